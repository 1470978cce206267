"""Validation rules in CEL for a cluster's API server; they check the same as the validators, with the same messages.

A type has its rules in its JSON Schema as ``x-kubernetes-validations``
(https://kubernetes.io/docs/reference/using-api/cel/); `tools.crds` copies them into the custom resource
definitions. The regular expressions are those of the validators; both engines interpret them alike.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Pattern", "cut", "quoted", "rule", "text", "validations"]


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


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that a text or the keys of a map must match, with a message that is the same in CEL.

    Attributes
    ----------
    regex
        The expression.
    what
        The end of the message: ``a name``, as in ``"…" is not a name``.
    """

    regex: str
    what: str

    def check(self, value: str) -> str:
        """Return the text if it matches, for a validator."""
        if not re.fullmatch(self.regex, value):
            raise ValueError(f'"{value[:80]}" is not {self.what}')
        return value

    def check_keys(self, values: dict[str, str]) -> dict[str, str]:
        """Return the map if all keys match, for a validator."""
        for key in values:
            self.check(key)
        return values

    def rules(self) -> dict[str, Any]:
        """Return the ``json_schema_extra`` of a text."""
        # the bound keeps the rule's estimated cost low
        return validations(rule(self._holds("self"), says=self._says("self")), maxLength=253)

    def key_rules(self) -> dict[str, Any]:
        """Return the ``json_schema_extra`` of a map."""
        wrong = f"self.filter(name, !{self._holds('name')})[0]"
        return validations(rule(f"self.all(name, {self._holds('name')})", says=self._says(wrong)))

    def _holds(self, value: str) -> str:
        return f"{value}.matches({text(self.regex)})"

    def _says(self, value: str) -> str:
        return f"{quoted(value, 80)} + ' is not {self.what}'"
