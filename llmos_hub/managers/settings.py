"""The platform's settings: each has a default and can be changed by an admin's Setting or the environment.

The environment overrides the resource, and that the default. `DEFINITIONS` is the only list; a
setting is read with ``await settings.value(MAX_BODY_BYTES)``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from llmos.errors import LLMOSError
from llmos.resources import Setting
from llmos_hub.stores.base import Store

__all__ = [
    "DEFINITIONS",
    "MAX_BODY_BYTES",
    "MAX_NAMESPACE_BYTES",
    "MAX_RESOURCES",
    "MAX_RESOURCE_BYTES",
    "MAX_STREAMS",
    "MAX_WRITES",
    "STREAM_TIMEOUT",
    "VOLUME_REST",
    "Definition",
    "PlatformSettings",
]

logger = logging.getLogger(__name__)

_COMPLAINTS: Final = 100
"""Maximum number of invalid values that are logged, once each."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a setting, whose value is a whole number.

    Attributes
    ----------
    name
        The Setting's name.
    default
        The default value.
    description
        The effect, the unit, and the reason for the default.
    bounds
        The smallest and the largest value.
    """

    name: str
    default: int
    description: str
    bounds: tuple[int, int]

    @property
    def variable(self) -> str:
        """The environment variable, which overrides everything else."""
        return "LLMOS_SETTING_" + self.name.upper().replace("-", "_")

    def parse(self, text: str) -> int:
        """Return the value that a text stands for.

        Raises
        ------
        ValueError
            It is none; the message says which are valid.
        """
        low, high = self.bounds
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise ValueError(f'"{text[:40]}" is not a whole number from {low} to {high}')
        return int(text)


MAX_RESOURCES: Final = Definition(
    "api-max-resources-per-namespace",
    1000,
    "The maximum number of resources of one kind in a namespace. It protects against runaway scripts: lists and "
    "watches of a thousand are still answered in well under a second.",
    (1, 100_000),
)
MAX_BODY_BYTES: Final = Definition(
    "api-max-body-bytes",
    512 * 1024,
    "The maximum size of a request body in bytes. Four times the maximum size of a resource, since JSON may "
    "encode one character in six.",
    (64 * 1024, 16 * 1024 * 1024),
)
MAX_RESOURCE_BYTES: Final = Definition(
    "api-max-resource-bytes",
    128 * 1024,
    "The maximum size of a resource: bytes of its metadata and spec as JSON. A manifest has a few kilobytes, one with pod "
    "templates and many values a few dozen.",
    (16 * 1024, 1024 * 1024),
)
MAX_NAMESPACE_BYTES: Final = Definition(
    "api-max-bytes-per-namespace-and-kind",
    4 * 1024 * 1024,
    "The maximum total bytes of all resources of one kind in a namespace. Enough for a thousand ordinary ones; bounds "
    "the memory that one person can use in the database, the API, the gateway and the controllers.",
    (256 * 1024, 1024 * 1024 * 1024),
)
MAX_WRITES: Final = Definition(
    "api-max-writes-per-second-and-user",
    20,
    "The sustained number of writes per second that a person may send to one process of the API; bursts of five seconds' "
    "worth are allowed, more is refused with 429 and Retry-After. Each write is on disk before it is answered.",
    (1, 100_000),
)
STREAM_TIMEOUT: Final = Definition(
    "api-stream-timeout-seconds",
    1800,
    "The maximum seconds that a watch or a followed log stays open; clients then open a new one. Half an hour, as "
    "in Kubernetes, so that a forgotten one doesn't stay open.",
    (5, 86_400),
)
MAX_STREAMS: Final = Definition(
    "api-max-streams-per-user",
    100,
    "The maximum number of watches and followed logs that a person may have open. Each tab and each `--watch` uses one.",
    (1, 10_000),
)
VOLUME_REST: Final = Definition(
    "volume-deletion-rest-hours",
    7 * 24,
    "The hours for which a deleted volume keeps its files and can be undeleted; 0: it is deleted at once. A week, so that "
    "what was deleted on a Friday can be missed on the Monday after.",
    (0, 24 * 365),
)

_ALL: Final = (
    *(MAX_BODY_BYTES, MAX_NAMESPACE_BYTES, MAX_RESOURCE_BYTES, MAX_RESOURCES),
    *(MAX_STREAMS, MAX_WRITES, STREAM_TIMEOUT, VOLUME_REST),
)
DEFINITIONS: Final[Mapping[str, Definition]] = {definition.name: definition for definition in _ALL}


class PlatformSettings:
    """The values in effect.

    Parameters
    ----------
    store
        The store of Settings.
    environ
        The environment variables; by default the process's own.
    remembered_for
        Seconds until a changed Setting takes effect.
    """

    def __init__(self, store: Store, environ: Mapping[str, str] | None = None, *, remembered_for: float = 5.0) -> None:
        self._store = store
        self._remembered_for = remembered_for
        self._environ = os.environ if environ is None else environ
        self._stored: dict[str, str] = {}
        self._complained: set[tuple[str, str]] = set()
        self._read_at: float | None = None

    async def value(self, definition: Definition) -> int:
        """Return the value in effect; while the store is unavailable, the last known one."""
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= self._remembered_for:
            self._read_at = now  # also after a failure, so that not every request queries the store meanwhile
            try:
                listing = await self._store.list(Setting)
            except LLMOSError as error:
                logger.warning("Settings can't be read, going on with those last known: %s", error)
            else:
                self._stored = {s.metadata.name: s.spec.value for s in listing.items if s.spec.value is not None}
        text, _ = self.in_force(definition, self._stored.get(definition.name))
        return definition.parse(text)

    def in_force(self, definition: Definition, stored: str | None) -> tuple[str, str]:
        """Return the value in effect, and its source: ``environment``, ``resource`` or ``default``."""
        for text, source in ((self._environ.get(definition.variable), "environment"), (stored, "resource")):
            if text is None:
                continue
            try:
                definition.parse(text)
            except ValueError as error:
                if (definition.name, text) not in self._complained and len(self._complained) < _COMPLAINTS:
                    self._complained.add((definition.name, text))
                    logger.warning("Setting %s from the %s is left out: %s", definition.name, source, error)
            else:
                return text, source
        return str(definition.default), "default"
