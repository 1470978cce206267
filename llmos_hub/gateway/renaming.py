"""The name of a model in its engine's answer, where the client asked by another one: an alias, or ``namespace/name``.

Engines answer with the one name that they were given. Most requests ask by it, and their answers pass untouched.
"""

from __future__ import annotations

import json

__all__ = ["Renaming"]


class Renaming:
    """Replaces the value of ``model`` in an answer that comes in pieces.

    Inside a JSON text quotes are escaped, so what a model writes is never taken for the field.

    Parameters
    ----------
    served
        As the engine says it.
    asked
        As the client does.
    """

    __slots__ = ("_held", "_names")

    def __init__(self, served: str, asked: str) -> None:
        old, new = json.dumps(served).encode(), json.dumps(asked).encode()
        self._names = [(b'"model":%s%s' % (blank, old), b'"model":%s%s' % (blank, new)) for blank in (b"", b" ")]
        self._held = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """What can be passed on now; the beginning of a name at a piece's end waits for the next."""
        data = self._held + data
        for old, new in self._names:
            data = data.replace(old, new)
        held = 0 if last else max(_begun(data, old) for old, _ in self._names)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]


def _begun(data: bytes, name: bytes) -> int:
    """How many bytes at the end may be the beginning of `name`."""
    start = max(0, len(data) - len(name) + 1)
    while (start := data.find(name[:1], start)) >= 0:
        if name.startswith(data[start:]):
            return len(data) - start
        start += 1
    return 0
