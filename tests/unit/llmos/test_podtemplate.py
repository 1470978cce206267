"""Validation of ``spec.template``."""

from __future__ import annotations

import pytest

from llmos.resources.podtemplate import check_pod_template
from tests.support.pod_templates import ALLOWED, REFUSED


@pytest.mark.parametrize("template", ALLOWED)
def test_a_pod_of_ones_own(template: dict) -> None:
    assert check_pod_template(template) == template


@pytest.mark.parametrize(("template", "words"), REFUSED)
def test_nothing_beyond_it(template: dict, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_pod_template(template)
    assert words in str(raised.value)
