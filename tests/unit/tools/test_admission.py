"""The chart's admission policy in words."""

import pytest

from llmos.resources.podtemplate import TEMPLATE, Fields
from tools.admission import validations

SIMPLE = [
    f"spec.template.{part}.{name}"
    for part, fields in TEMPLATE.items()
    for name, check in fields.allowed.items()
    if not isinstance(check, Fields)
]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("spec.template.spec.terminationGracePeriodSeconds", "must be a whole number of seconds from 0 to 600."),
        ("spec.template.metadata.annotations", "May be set there: custom.llmos.ai/… for your own"),
        ("spec.template.spec.affinity", "Affinity is to pods of the same namespace."),
    ],
)
def test_a_message_says_what_a_field_may_be(field, words):
    (message,) = [rule["message"] for rule in validations() if rule["message"].startswith(f"{field} ")]
    assert words in message


def test_only_messages_about_what_is_nested_refer_to_the_api():
    referring = [rule["message"].split()[0] for rule in validations() if "llmos apply" in rule["message"]]
    assert not set(referring).intersection(SIMPLE)
