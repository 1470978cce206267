"""Checks and repair of the embedded database's files, before the server is started.

The files are in a directory ``appendonlydir``, with a manifest that names one base file and the incremental files that
follow it (https://valkey.io/topics/persistence/). A server that doesn't find its manifest starts empty and overwrites
the existing files, so this is checked before.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from llmos.errors import Unavailable

__all__ = ["RECOVER", "explain_exit", "refuse_lost_files", "repair", "set_aside", "sound_length"]

RECOVER: Final = "llmos up --recover"
_DIRECTORY: Final = "appendonlydir"
_MANIFEST: Final = "appendonly.aof.manifest"
_DAMAGE: Final = re.compile(
    r"append only file|AOF|RDB|manifest|Bad file format|Wrong signature|checksum", re.IGNORECASE
)
_PREFIX: Final = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ [#*.-] ")  # pid, role, date, time and level of a line


def _manifest(directory: Path) -> list[tuple[str, str]]:
    """Return name and type of the manifest's files in order; type ``b`` is base, ``i`` incremental, ``h`` history."""
    text = (directory / _DIRECTORY / _MANIFEST).read_text(encoding="utf-8", errors="replace")
    return [(words[1], words[5]) for words in map(str.split, text.splitlines()) if len(words) >= 6]


def _restore_or(command: str) -> str:
    return f"Restore that directory from a backup, or {command}"


_START_EMPTY: Final = _restore_or(
    f"start with an empty one (the old files are kept beside it): {RECOVER} empty-database"
)


def refuse_lost_files(directory: Path) -> None:
    """Refuse to start with missing database files.

    Parameters
    ----------
    directory
        Valkey's ``dir``, which held a database before.

    Raises
    ------
    Unavailable
        The manifest or a file that it names is missing.
    """
    try:
        named = [name for name, kind in _manifest(directory) if kind != "h"]
    except FileNotFoundError:
        raise Unavailable(
            f"The database in {directory} is lost: there is no {_DIRECTORY}/{_MANIFEST}. {_START_EMPTY}"
        ) from None
    lost = [name for name in named if not (directory / _DIRECTORY / name).exists()]
    if lost or not named:
        missing = f"{_DIRECTORY}/{lost[0]} is missing" if lost else f"{_DIRECTORY}/{_MANIFEST} names no file"
        raise Unavailable(f"The database in {directory} is damaged: {missing}. {_START_EMPTY}")


def explain_exit(directory: Path, lines: Sequence[str]) -> str | None:
    """Return a message for an error in the server's last log lines; None if it isn't about its files."""
    said = next((line for line in reversed(lines) if _DAMAGE.search(line) and "***" not in line), None)
    if said is None or "No space left" in said:
        return None
    reason = _PREFIX.sub("", said).split(": make a backup")[0].strip().rstrip(".")
    repair_it = _restore_or(
        f"repair it (what can't be read is left out, the damaged files are kept beside): {RECOVER} database"
    )
    return f"The database in {directory} is damaged ({reason[:200]}). {repair_it}"


def repair(directory: Path) -> str:
    """Truncate the newest file after its last valid command; return a message about what was done.

    All files are copied to a directory beside them first.

    Raises
    ------
    Unavailable
        There is other damage, or none.
    """
    refuse_lost_files(directory)
    follows = [name for name, kind in _manifest(directory) if kind == "i"]
    damaged = ""
    for number, name in enumerate(follows):
        path = directory / _DIRECTORY / name
        with path.open("rb") as file:
            sound = sound_length(file)
        if sound < path.stat().st_size:
            damaged = name
            if number + 1 < len(follows):
                raise Unavailable(f"{path} is damaged, and newer files build on it. {_START_EMPTY}")
    if not damaged:
        raise Unavailable(f"Nothing in {directory} can be repaired. {_START_EMPTY}")
    kept = _beside(directory / _DIRECTORY)
    shutil.copytree(directory / _DIRECTORY, kept)
    path = directory / _DIRECTORY / damaged
    cut = path.stat().st_size - sound
    with path.open("rb+") as file:
        file.truncate(sound)
    return f"The database is repaired: {cut} of {cut + sound} bytes of {damaged} are left out. Before: {kept}"


def sound_length(file: BinaryIO) -> int:
    """Return the length in bytes of the valid commands at the start; an incomplete transaction is not valid.

    A command is ``*COUNT`` and for each word ``$BYTES`` and the word, each on a line of its own (RESP); lines that
    begin with ``#`` are annotations.
    """
    sound, open_transaction = 0, False
    while (word := _first_word(file)) is not None:
        if word in (b"MULTI", b"EXEC"):
            open_transaction = word == b"MULTI"
        if not open_transaction:
            sound = file.tell()
    return sound


def _first_word(file: BinaryIO) -> bytes | None:
    """Return the first word of the next command in capitals; None if there is no complete command."""
    head = file.readline(64)
    if head.startswith(b"#"):
        return b"" if head.endswith(b"\n") else None
    count = _number(head, b"*")
    if not count:
        return None
    first = b""
    for index in range(count):
        length = _number(file.readline(64), b"$")
        if length is None:
            return None
        data = file.read(length + 2)
        if len(data) != length + 2 or not data.endswith(b"\r\n"):
            return None
        first = data[:-2].upper() if index == 0 else first
    return first


def _number(line: bytes, sign: bytes) -> int | None:
    digits = line[1:-2]
    return int(digits) if line[:1] == sign and line.endswith(b"\r\n") and digits.isdigit() else None


def set_aside(path: Path) -> Path | None:
    """Rename a file or directory out of the way; return its new path, None if it doesn't exist."""
    if not path.exists():
        return None
    kept = _beside(path)
    path.rename(kept)
    return kept


def _beside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.name}.before-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.before-{stamp}-{number}")
    return kept
