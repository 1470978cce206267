"""Placeholders in a process's arguments and environment, for which a backend fills in values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["fill", "find_names", "find_roles"]

_NAME: Final = r"[\w-]+"
# `{{x.address}}` is a template language's, not ours
_PLACEHOLDER: Final = re.compile(
    rf"\{{(?:(socket|port|index|dir)|(?<!\{{\{{)((?:port|mount)\.{_NAME}|{_NAME}\.address|{_NAME}\.port\.{_NAME}))\}}"
)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace placeholders by their values; other braces are not changed.

    >>> fill('{"a": {index}} {port.gcs} {x} {{x.address}}', {"index": "2", "port.gcs": "6379", "x.address": "a"})
    '{"a": 2} 6379 {x} {{x.address}}'
    """
    return _PLACEHOLDER.sub(lambda found: values.get(found[1] or found[2], found[0]), text)


def find_names(text: str) -> Iterator[str]:
    """Yield the names in a text's placeholders for ports, mounts and addresses, such as ``head.port.gcs``."""
    for found in _PLACEHOLDER.finditer(text):
        if found[2]:
            yield found[2]


def find_roles(texts: Iterator[str]) -> frozenset[str]:
    """Return the roles whose addresses or ports are placeholders in the texts."""
    roles = {name.partition(".")[0] for text in texts for name in find_names(text)}
    return frozenset(roles - {"port", "mount"})
