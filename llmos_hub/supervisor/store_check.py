"""Checks of the platform's database before anything else uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmos.errors import Unavailable
from llmos_hub.supervisor.probes import error_words
from llmos_hub.valkey.resp import Refusal, Reply, ask
from llmos_hub.valkey.schema import SCHEMA_VERSION, Keys

__all__ = ["StoreCheck", "database_id", "refuse_newer_layout"]

_TIMEOUT: Final = 5.0  # seconds for commands; the server is on this machine


@dataclass(frozen=True)
class StoreCheck:
    """The probe of an embedded Valkey that has just been started.

    Valkey must listen only on its socket, require its password and use its own files; its contents must have a layout
    that this version knows, and must not be empty if there was a database before.

    Attributes
    ----------
    url
        Its URL with the password.
    directory
        The directory of its files.
    known
        The id of the database at the last start; empty if there was none.
    """

    url: str
    directory: Path
    known: str = ""

    async def check(self) -> str | None:
        """Return None if all is well, an error in words while the server isn't ready yet.

        Raises
        ------
        Unavailable
            Waiting doesn't help: the server is open to others, or its contents can't be used.
        """
        try:
            stranger = (await ask(self.url, ("PING",), log_in=False, timeout=_TIMEOUT))[0]
            answers = await ask(
                self.url,
                ("PING",),
                ("CONFIG", "GET", "port"),
                ("CONFIG", "GET", "tls-port"),
                ("CONFIG", "GET", "dir"),
                ("GET", Keys.schema),
                ("GET", Keys.epoch),
                timeout=_TIMEOUT,
            )
        except TimeoutError:
            return f"no answer within {_TIMEOUT:g} s"
        except OSError as exc:
            return error_words(exc)
        if answers[0] != "PONG":  # it is still loading its files
            return str(answers[0])
        self._check_listeners(stranger, answers[1:4])
        _check_layout(answers[4], f"The database in {self.directory}")
        if self.known and answers[5] is None:
            raise Unavailable(
                f"The database in {self.directory} is empty, though this platform has kept its models and settings there. "
                "Restore that directory from a backup, or start with an empty one: llmos up --recover empty-database"
            )
        return None

    def _check_listeners(self, stranger: Reply, settings: list[Reply]) -> None:
        found = [setting[1] if isinstance(setting, list) and len(setting) == 2 else None for setting in settings]
        port, tls_port, directory = found
        wrong = []
        if not isinstance(stranger, Refusal):
            wrong.append("answers without a password")
        if port != "0" or tls_port not in ("0", None):  # None: built without TLS
            wrong.append("listens on the network")
        if directory is None or Path(str(directory)).resolve() != self.directory.resolve():
            wrong.append(f"keeps its files in {directory}")
        if wrong:
            raise Unavailable(
                f"Valkey {' and '.join(wrong)}: it was not started as it should be, and is stopped. "
                "llmos doctor shows which program is used; another one on PATH comes first."
            )


def _check_layout(schema: Reply, what: str) -> None:
    if isinstance(schema, str) and schema.isdigit() and int(schema) > SCHEMA_VERSION:
        raise Unavailable(
            f"{what} was written by a newer LLMOS (layout {schema}, this one knows {SCHEMA_VERSION}). "
            "Start the newer one, or choose another: --data-dir DIR"
        )


async def refuse_newer_layout(url: str, name: str) -> None:
    """Refuse an external database with the layout of a newer version.

    Raises
    ------
    Unavailable
        The layout is newer.
    """
    schema = (await ask(url, ("GET", Keys.schema), timeout=_TIMEOUT))[0]
    _check_layout(schema, f"The database at {name}")


async def database_id(url: str) -> str:
    """Return the id of the database at this URL; empty if it can't be read."""
    try:
        answer = (await ask(url, ("GET", Keys.epoch), timeout=_TIMEOUT))[0]
    except OSError:
        return ""
    return answer if isinstance(answer, str) and not isinstance(answer, Refusal) else ""
