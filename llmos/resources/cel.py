"""Validation rules in CEL for a cluster's API server; they check the same as the validators, with the same messages.

A type has its rules in its JSON Schema as ``x-kubernetes-validations``
(https://kubernetes.io/docs/reference/using-api/cel/); ``tools/crds.py`` copies them into the custom resource
definitions. The regular expressions are those of the validators; both engines interpret them alike.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["cut", "quoted", "rule", "text", "validations"]


def text(value: str | list[str]) -> str:
    """Return a string, or a list of strings, as a CEL literal."""
    return json.dumps(value, ensure_ascii=False)


def cut(expression: str, limit: int) -> str:
    """Return an expression that truncates `expression` as the validators do."""
    return f"({expression}.size() > {limit} ? {expression}.substring(0, {limit}) : {expression})"


def quoted(expression: str, limit: int) -> str:
    """Return an expression that truncates `expression` and puts it in quotation marks."""
    return f"'\"' + {cut(expression, limit)} + '\"'"


def rule(expression: str, message: str = "", *, says: str = "", field: str = "") -> dict[str, str]:
    """Return one validation rule.

    Parameters
    ----------
    expression
        The condition that ``self`` must meet.
    message
        The message if it doesn't.
    says
        An expression for the message, if the message contains the value.
    field
        Path of the invalid field below this one.
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
    """Return the rules as a type's ``json_schema_extra``."""
    return {"x-kubernetes-validations": list(rules), **more}
