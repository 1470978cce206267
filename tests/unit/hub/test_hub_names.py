"""Keys of labels and annotations, and names of claims, are written in one place."""

from __future__ import annotations

import re
from pathlib import Path

import llmos.names
import llmos_hub.names

ROOT = Path(llmos_hub.names.__file__).parents[1]
WRITTEN = re.compile(r"""f?["'](llmos\.ai/[a-z-]+|llmos-models|app\.kubernetes\.io/[a-z-]+)\b""")
KINDS_OF_SECRETS = {"llmos.ai/environment"}
"""Types of Secrets, which are no keys."""


def test_keys_are_written_in_the_modules_of_names_only() -> None:
    sources = [each for package in ("llmos", "llmos_hub", "spawners") for each in (ROOT / package).rglob("*.py")]
    found = {
        (str(path.relative_to(ROOT)), text)
        for path in sources
        for text in WRITTEN.findall(path.read_text())
        if text not in KINDS_OF_SECRETS
    }
    assert {path for path, _ in found} == {"llmos/names.py", "llmos_hub/names.py"}


def test_no_key_has_two_names() -> None:
    names = {**vars(llmos.names), **vars(llmos_hub.names)}
    keys = [value for name, value in names.items() if name.startswith("KEY_")]
    assert len(keys) == len(set(keys)) > 20
