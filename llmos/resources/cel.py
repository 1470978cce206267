"""Rules in CEL, for the API server of a cluster: what the validators here check, with the same words.

A type carries its rules in its JSON Schema as ``x-kubernetes-validations``
(https://kubernetes.io/docs/reference/using-api/cel/), from where ``tools/crds.py`` takes them into the custom
resource definitions. The regular expressions are the validators' own; both engines read them alike.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["cut", "quoted", "rule", "text", "validations"]


def text(value: str | list[str]) -> str:
    """A string, or a list of them, as CEL writes them."""
    return json.dumps(value, ensure_ascii=False)


def cut(expression: str, limit: int) -> str:
    """The value, cut as the validators cut it."""
    return f"({expression}.size() > {limit} ? {expression}.substring(0, {limit}) : {expression})"


def quoted(expression: str, limit: int) -> str:
    """The same in quotation marks."""
    return f"'\"' + {cut(expression, limit)} + '\"'"


def rule(expression: str, message: str = "", *, says: str = "", field: str = "") -> dict[str, str]:
    """One rule.

    Parameters
    ----------
    expression
        What must hold of ``self``.
    message
        The sentence where it doesn't.
    says
        The sentence as an expression, where it speaks of the value.
    field
        The path of the field at fault below this one.
    """
    found = {"rule": expression}
    if says:
        found["messageExpression"] = says
    if message:
        found["message"] = message
    if field:
        found["fieldPath"] = field
    return found


def validations(*rules: dict[str, str], **more: Any) -> dict[str, Any]:
    """The rules as a type's ``json_schema_extra``."""
    return {"x-kubernetes-validations": list(rules), **more}
