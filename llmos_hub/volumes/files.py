"""The files of volumes for the API: on a workstation directly, in threads."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import Final, Protocol, cast

from llmos.errors import Conflict, Invalid, NotReady, Unsupported
from llmos_hub.volumes.base import VolumeRef
from llmos_hub.volumes.local import directory_of
from llmos_hub.volumes.tree import FileEntry, Tree, Upload

__all__ = ["NO_FILES", "LocalFiles", "VolumeFiles"]

_PIECE: Final = 1024 * 1024
"""Bytes read or written at once: a switch of threads for each, and no more than that in memory for a request."""


class VolumeFiles(Protocol):
    """Access to the files of volumes; paths are relative to the volume. Errors are those of `Tree`."""

    async def stat(self, ref: VolumeRef, path: str) -> FileEntry:
        """Return what is at a path."""
        ...

    async def list(self, ref: VolumeRef, path: str, *, after: str, limit: int) -> Sequence[FileEntry]:
        """Return some entries of a directory, by name, those after a name."""
        ...

    async def read(
        self, ref: VolumeRef, path: str, *, offset: int, length: int, version: str
    ) -> tuple[FileEntry, AsyncIterator[bytes]]:
        """Return what a file is, and a piece of it.

        Raises
        ------
        Conflict
            The file no longer has that `version`; an empty one fits any.
        """
        ...

    async def progress(self, ref: VolumeRef, path: str, upload: str) -> int:
        """Return how many bytes of an upload have arrived."""
        ...

    async def write(
        self, ref: VolumeRef, path: str, upload: Upload, content: AsyncIterator[bytes], *, length: int, sha256: str
    ) -> FileEntry | None:
        """Add a piece to an upload; with the last one the file is there, and returned.

        Raises
        ------
        Invalid
            The piece has another hash or length than was said; nothing of it is kept.
        """
        ...

    async def make_directory(self, ref: VolumeRef, path: str) -> None:
        """Make a directory and those above it."""
        ...

    async def remove(self, ref: VolumeRef, path: str, *, recursive: bool) -> None:
        """Remove a file or a directory."""
        ...


class LocalFiles:
    """Access to volumes that are directories of this machine; see `VolumeFiles`.

    Parameters
    ----------
    root
        The directory of all volumes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def stat(self, ref: VolumeRef, path: str) -> FileEntry:
        """Return what is at a path."""
        return await asyncio.to_thread(self._tree(ref).stat, path)

    async def list(self, ref: VolumeRef, path: str, *, after: str, limit: int) -> Sequence[FileEntry]:
        """Return some entries of a directory."""
        return await asyncio.to_thread(self._tree(ref).entries, path, after=after, limit=limit)

    async def read(
        self, ref: VolumeRef, path: str, *, offset: int, length: int, version: str
    ) -> tuple[FileEntry, AsyncIterator[bytes]]:
        """Return what a file is, and a piece of it."""
        fd, entry = await asyncio.to_thread(self._tree(ref).open, path)
        if version and entry.version != version:
            os.close(fd)
            raise Conflict(f"{entry.name} was changed while it was read. Begin again.")
        return entry, _pieces(os.fdopen(fd, "rb", buffering=0), offset, min(length, max(0, entry.size - offset)))

    async def progress(self, ref: VolumeRef, path: str, upload: str) -> int:
        """Return how many bytes of an upload have arrived."""
        return await asyncio.to_thread(self._tree(ref).progress, path, upload)

    async def write(
        self, ref: VolumeRef, path: str, upload: Upload, content: AsyncIterator[bytes], *, length: int, sha256: str
    ) -> FileEntry | None:
        """Add a piece to an upload."""
        tree = self._tree(ref)
        if upload.offset + length > upload.total:
            raise Invalid("offset: the piece ends after the end of the file.")
        async with _in_threads(tree, path, upload) as fd:
            digest, arrived = hashlib.sha256(), 0
            async for piece in content:
                arrived += len(piece)
                if arrived > length:
                    raise Invalid(f"The piece is longer than the {length} bytes that were said.")
                await asyncio.to_thread(_write, fd, piece, digest)
            if arrived != length or digest.hexdigest() != sha256:
                raise Invalid("The piece arrived damaged: it has another length or sha256. Send it again.")
        if upload.offset + length < upload.total:
            return None
        return await asyncio.to_thread(tree.finish, path, upload)

    async def make_directory(self, ref: VolumeRef, path: str) -> None:
        """Make a directory and those above it."""
        await asyncio.to_thread(self._tree(ref).make_directory, path)

    async def remove(self, ref: VolumeRef, path: str, *, recursive: bool) -> None:
        """Remove a file or a directory."""
        await asyncio.to_thread(self._tree(ref).remove, path, recursive=recursive)

    def _tree(self, ref: VolumeRef) -> Tree:
        directory = directory_of(self._root, ref)
        if not directory.is_dir():
            raise NotReady(f"{ref.name} is not there yet. Look with: llmos describe volume {ref.name}")
        return Tree(directory)


class _NoFiles:
    """No access to files; every method of `VolumeFiles` is refused."""

    def __getattr__(self, name: str) -> object:
        """Return a method that refuses."""

        async def refuse(*_: object, **__: object) -> None:
            raise Unsupported("The files of volumes can't be reached from here. Mount the volume in a server.")

        return refuse


NO_FILES: Final = cast("VolumeFiles", _NoFiles())
"""The access where the platform can't reach the files: every method is refused."""


@asynccontextmanager
async def _in_threads(tree: Tree, path: str, upload: Upload) -> AsyncIterator[int]:
    """Enter and leave `Tree.receive` in a thread, as both may wait for the disk."""
    receiving = tree.receive(path, upload)
    fd = await asyncio.to_thread(receiving.__enter__)
    try:
        yield fd
    except BaseException as error:
        # shielded: a client that goes away must not leave the descriptor open
        await asyncio.shield(asyncio.to_thread(_leave, receiving, error))
        raise
    else:
        await asyncio.to_thread(receiving.__exit__, None, None, None)


def _leave(receiving: object, error: BaseException) -> None:
    receiving.__exit__(type(error), error, None)  # type: ignore[attr-defined]


def _write(fd: int, piece: bytes, digest: object) -> None:
    digest.update(piece)  # type: ignore[attr-defined]
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


async def _pieces(file: FileIO, offset: int, length: int) -> AsyncIterator[bytes]:
    with file:
        while length > 0:
            piece = await asyncio.to_thread(os.pread, file.fileno(), min(_PIECE, length), offset)
            if not piece:
                return  # cut meanwhile; the client sees that bytes are missing
            offset += len(piece)
            length -= len(piece)
            yield piece
