"""Renaming of the model in an engine's answer to the name that the client used.

It may be an alias, or ``namespace/name``; and a program of somebody's own may answer with any name. Other engines answer with
the one name that they were given. Most requests use that name, and their answers are not changed.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar, Final

__all__ = ["Renaming"]

_KEY: Final = b'"model":'
_LONGEST: Final = 512  # bytes of a name


class Renaming:
    """A tap that replaces the value of ``model`` in an answer that comes in pieces.

    Inside a JSON string quotes are escaped, so text that a model generates is never mistaken for the field.

    Parameters
    ----------
    served
        The model's name in the engine's answers; None if it may be any.
    asked
        The name that the client used.
    """

    __slots__ = ("_field", "_held", "_longest", "_new")
    changes: ClassVar[bool] = True

    def __init__(self, served: str | None, asked: str) -> None:
        old = rb'"(?:[^"\\]|\\.){0,%d}"' % _LONGEST if served is None else re.escape(json.dumps(served).encode())
        self._field = re.compile(b"(%s ?)%s" % (_KEY, old))
        self._longest = len(_KEY) + (_LONGEST if served is None else len(old))
        self._new = json.dumps(asked).encode()
        self._held = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Return what can be passed on now; a possible beginning of the field at the end waits for the next piece."""
        data = self._field.sub(lambda found: found[1] + self._new, self._held + data)
        held = 0 if last else self._begun(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end of `data` may be the beginning of the field."""
        start = data.rfind(_KEY)
        if start >= 0 and len(data) - start <= self._longest and not self._field.match(data, start):
            return len(data) - start
        return next((size for size in range(len(_KEY) - 1, 0, -1) if data.endswith(_KEY[:size])), 0)
