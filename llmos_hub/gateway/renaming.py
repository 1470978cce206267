"""Renaming of the model in an engine's answer, if the client used another name: an alias, or ``namespace/name``.

Engines answer with the one name that they were given. Most requests use that name, and their answers are not changed.
"""

from __future__ import annotations

import json
from typing import ClassVar

__all__ = ["Renaming"]


class Renaming:
    """A tap that replaces the value of ``model`` in an answer that comes in pieces.

    Inside a JSON string quotes are escaped, so text that a model generates is never mistaken for the field.

    Parameters
    ----------
    served
        The model's name in the engine's answers.
    asked
        The name that the client used.
    """

    __slots__ = ("_held", "_names")
    changes: ClassVar[bool] = True

    def __init__(self, served: str, asked: str) -> None:
        old, new = json.dumps(served).encode(), json.dumps(asked).encode()
        self._names = [(b'"model":%s%s' % (blank, old), b'"model":%s%s' % (blank, new)) for blank in (b"", b" ")]
        self._held = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Return what can be passed on now; a possible beginning of the field at the end waits for the next piece."""
        data = self._held + data
        for old, new in self._names:
            data = data.replace(old, new)
        held = 0 if last else max(_begun(data, old) for old, _ in self._names)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]


def _begun(data: bytes, name: bytes) -> int:
    """Return how many bytes at the end of `data` may be the beginning of `name`."""
    start = max(0, len(data) - len(name) + 1)
    while (start := data.find(name[:1], start)) >= 0:
        if name.startswith(data[start:]):
            return len(data) - start
        start += 1
    return 0
