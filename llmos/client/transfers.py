"""The local side of file transfers: pieces, hashes, names, and the list of files to send. Blocks; needs no client."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from llmos.errors import Invalid, NotFound, Unsupported, UsageError

__all__ = [
    "PIECE",
    "FileInfo",
    "Transfer",
    "ain_parallel",
    "digest",
    "in_parallel",
    "local_files",
    "pieces",
    "place_of",
    "read_file_info",
    "size_of",
    "split_remote",
    "upload_id",
]

PIECE = 8 * 1024 * 1024
"""Bytes of a file in one request: what a broken connection loses, and what is in memory for each transfer."""
T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class FileInfo:
    """A file or directory in a volume.

    Attributes
    ----------
    name
        Its name.
    type
        ``file``, ``directory``, ``link`` or ``other``.
    size
        Bytes of a file, else 0.
    modified
        Time of the last change.
    version
        Changes with the content.
    """

    name: str
    type: Literal["file", "directory", "link", "other"]
    size: int
    modified: datetime
    version: str


@dataclass(frozen=True)
class Transfer:
    """The progress of a transfer of files.

    Attributes
    ----------
    file
        The file of which a piece has just arrived.
    done, total
        Bytes of all files.
    files, files_total
        Files that are complete, and all.
    """

    file: str
    done: int
    total: int
    files: int
    files_total: int


def read_file_info(data: Any) -> FileInfo:
    """Return a file as the API describes it.

    Raises
    ------
    Unsupported
        Its name isn't one: with it a download could write elsewhere.
    """
    name = str(data["name"])
    if "/" in name or "\0" in name or name in {".", ".."}:
        raise Unsupported(f'The platform lists a file called "{name[:80]}", which is no name.')
    return FileInfo(
        name,
        data["type"],
        int(data["size"]),
        datetime.fromisoformat(str(data["modified"])),
        str(data["version"]),
    )


def local_files(source: Path) -> list[tuple[Path, str]]:
    """Return a file, or the files below a directory, each with its path below the directory; links are left out.

    Raises
    ------
    NotFound, Invalid
        There is no such file, or it is neither a file nor a directory.
    """
    if not source.exists():
        raise NotFound(f"There is no {source} on this machine.")
    if source.is_file():
        return [(source, "")]
    if not source.is_dir():
        raise Invalid(f"{source} is neither a file nor a directory.")
    found = []
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            path = Path(directory) / name
            if path.is_file() and not path.is_symlink():
                found.append((path, path.relative_to(source).as_posix()))
    return found


def upload_id(path: Path, size: int, target: str) -> str:
    """Return the id of an upload, which is another if the file has changed, so that only the same is continued."""
    found = path.stat()
    return digest(f"{path.absolute()}\0{found.st_mtime_ns}\0{found.st_ino}\0{size}\0{target}".encode())[:16]


def size_of(path: Path) -> int:
    """Return the size of a file in bytes."""
    return path.stat().st_size


def place_of(target: Path, below: str, name: str) -> Path:
    """Return where a file goes: below a directory, or into one that exists."""
    if below:
        return target.joinpath(*below.split("/"))
    return target / name if target.is_dir() else target


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def split_remote(text: str) -> tuple[str, str]:
    """Return volume and path in ``NAME:PATH``.

    Raises
    ------
    UsageError
        It is none.
    """
    name, colon, path = text.partition(":")
    if not colon:
        raise UsageError(f'"{text[:80]}" is no place in a volume. Write NAME:PATH, such as data:models/a.gguf')
    return name, path


async def ain_parallel(do: Callable[[S], Awaitable[T]], items: Sequence[S], count: int) -> list[T]:
    """Return the results of `do` for all items, at most `count` at once; the first error ends all."""
    places = asyncio.Semaphore(count)

    async def one(item: S) -> T:
        async with places:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as group_:
        raise group_.exceptions[0] from None
    return [task.result() for task in tasks]


def in_parallel(do: Callable[[S], T], items: Sequence[S], count: int) -> list[T]:
    """Return the results of `do` for all items, at most `count` at once in threads; the first error ends all."""
    if count == 1 or len(items) <= 1:
        return [do(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(do, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def pieces(size: int, begin: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each piece of a file from `begin`; one empty piece for an empty file.

    >>> list(pieces(0, 0)), list(pieces(PIECE + 1, 0))
    ([(0, 0)], [(0, 8388608), (8388608, 1)])
    """
    while True:
        length = min(PIECE, size - begin)
        yield begin, length
        begin += length
        if begin >= size:
            return
