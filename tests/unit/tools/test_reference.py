"""The reference page names everything that people can type."""

from pathlib import Path

import pytest

from llmos.cli.parser import PLATFORM_VERBS, VERBS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "commands-and-resources.md"
HEADINGS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("### ")]


@pytest.mark.parametrize("verb", [*VERBS, *PLATFORM_VERBS])
def test_every_verb_has_a_section(verb):
    command = f"### llmos {verb}"
    assert [heading for heading in HEADINGS if heading == command or heading.startswith(f"{command} ")]
