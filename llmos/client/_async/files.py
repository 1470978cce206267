"""Files of a resource that has some, such as a volume: list, upload, download and remove."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from llmos.client._async.transport import AsyncTransport
from llmos.client.requests import resource_path
from llmos.client.timing import AsyncText
from llmos.client.transfers import (
    PIECE,
    FileInfo,
    Transfer,
    ain_parallel,
    digest,
    local_files,
    pieces,
    place_of,
    read_file_info,
    size_of,
    upload_id,
)
from llmos.errors import Conflict, Invalid, Unavailable
from llmos.resources import Resource

__all__ = ["AsyncFiles"]

_PARALLEL = 4
OnTransfer = Callable[[Transfer], None]


class AsyncFiles:
    """The files of one resource; created by `AsyncCollection.files`.

    Paths are relative to the resource and written with ``/``; an empty one stands for all of it. Transfers that
    were interrupted continue where they were if they are begun again: what has arrived is not sent again.

    Parameters
    ----------
    kind, name
        The resource.
    transport
        The connection to the API.
    namespace
        Returns the resource's namespace.
    """

    def __init__(self, kind: type[Resource], name: str, transport: AsyncTransport, namespace: AsyncText) -> None:
        self._kind = kind
        self._name = name
        self._transport = transport
        self._namespace = namespace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._kind.singular}/{self._name}>"

    async def _path(self, what: str = "files") -> str:
        return resource_path(self._kind, await self._namespace(), self._name, what)

    async def stat(self, path: str = "") -> FileInfo:
        """Return what is at a path.

        Raises
        ------
        NotFound
            There is nothing.
        """
        params = {"path": path, "limit": "1"}
        answer = await self._transport.request("GET", await self._path(), params=params)
        return read_file_info(answer["file"])

    async def list(self, path: str = "") -> AsyncGenerator[FileInfo]:
        """Yield the entries of a directory by name, or a file itself.

        Raises
        ------
        NotFound
            There is nothing at that path.
        """
        after = ""
        while True:
            params = {"path": path, "continue": after} if after else {"path": path}
            answer = await self._transport.request("GET", await self._path(), params=params)
            if "items" not in answer:
                yield read_file_info(answer["file"])
                return
            for item in answer["items"]:
                yield read_file_info(item)
            after = answer.get("metadata", {}).get("continue", "")
            if not after:
                return

    async def walk(self, path: str = "") -> AsyncGenerator[tuple[str, FileInfo]]:
        """Yield all files below a directory with their paths below it, or a file itself with an empty path."""
        found = await self.stat(path)
        if found.type != "directory":
            yield "", found
            return
        waiting = [""]
        while waiting:
            inner = waiting.pop()
            async for entry in self.list(_joined(path, inner)):
                below = _joined(inner, entry.name)
                if entry.type == "directory":
                    waiting.append(below)
                elif entry.type == "file":
                    yield below, entry

    async def make_directory(self, path: str) -> FileInfo:
        """Make a directory and those above it; one that exists is fine."""
        answer = await self._transport.request("POST", await self._path(), params={"path": path})
        return read_file_info(answer["file"])

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or an empty directory; with `recursive` any directory.

        Raises
        ------
        NotFound
            There is nothing.
        Invalid
            The directory is not empty.
        """
        params = {"path": path, "recursive": "1"} if recursive else {"path": path}
        await self._transport.request("DELETE", await self._path(), params=params, repeatable=False)

    async def upload(
        self,
        source: str | os.PathLike[str],
        target: str = "",
        *,
        parallel: int = _PARALLEL,
        on_progress: OnTransfer | None = None,
    ) -> int:
        """Send a file, or a directory with all that is in it, and return the bytes of all files.

        Links are left out. Each piece is checked by its SHA-256; a file appears when it is complete.

        Parameters
        ----------
        source
            File or directory on this machine.
        target
            Path in the volume; for a file, one that ends with ``/`` or is empty is its directory.
        parallel
            Number of files sent at once.
        on_progress
            Called after each piece.

        Raises
        ------
        NotFound
            There is no such file on this machine.
        Insufficient
            The disk is full; what has arrived stays.
        """
        files = local_files(Path(source))
        if len(files) == 1 and not files[0][1]:
            whole = f"{target}{Path(source).name}" if not target or target.endswith("/") else target
            jobs = [(files[0][0], whole)]
        else:
            jobs = [(path, _joined(target.rstrip("/"), below)) for path, below in files]
        sizes = {path: size_of(path) for path, _ in jobs}
        count = _Counting(sum(sizes.values()), len(jobs), on_progress)

        async def send(job: tuple[Path, str]) -> None:
            await self._send(job[0], job[1], sizes[job[0]], count)

        await ain_parallel(send, jobs, parallel)
        return count.total

    async def _send(self, path: Path, target: str, size: int, count: _Counting) -> None:
        id_, content = upload_id(path, size, target), await self._path("files/content")
        params = {"path": target, "upload": id_}
        arrived = 0
        if size > PIECE:
            answer = await self._transport.request("GET", await self._path(), params=params)
            arrived = min(int(answer["received"]), size - 1) // PIECE * PIECE
        count.add(target, arrived)
        with path.open("rb") as file:
            file.seek(arrived)
            for offset, length in pieces(size, arrived):
                data = file.read(length)
                if len(data) != length:
                    raise Conflict(f"{path} was cut while it was sent. Send it again.")
                piece = {**params, "offset": str(offset), "total": str(size), "sha256": digest(data)}
                await self._transport.send_bytes("PUT", content, data, params=piece)
                count.add(target, length)
        if upload_id(path, size_of(path), target) != id_:
            raise Conflict(f"{path} was changed while it was sent. Send it again.")
        count.end(target)

    async def download(
        self,
        source: str,
        target: str | os.PathLike[str],
        *,
        parallel: int = _PARALLEL,
        on_progress: OnTransfer | None = None,
    ) -> int:
        """Fetch a file, or a directory with all that is in it, and return the bytes of all files.

        Parameters
        ----------
        source
            Path in the volume.
        target
            File or directory on this machine; a file goes into a directory that exists.
        parallel
            Number of files fetched at once.
        on_progress
            Called after each piece.

        Raises
        ------
        NotFound
            There is nothing at that path.
        """
        place, jobs = Path(target), []
        async for below, entry in self.walk(source):
            if entry.type != "file":
                raise Invalid(f"{source} is a {entry.type}, which can't be fetched.")
            jobs.append((_joined(source.rstrip("/"), below), entry, place_of(place, below, entry.name)))
        count = _Counting(sum(entry.size for _, entry, _ in jobs), len(jobs), on_progress)

        async def fetch(job: tuple[str, FileInfo, Path]) -> None:
            await self._fetch(*job, count)

        await ain_parallel(fetch, jobs, parallel)
        return count.total

    async def _fetch(self, source: str, entry: FileInfo, local: Path, count: _Counting) -> None:
        content = await self._path("files/content")
        local.parent.mkdir(parents=True, exist_ok=True)
        unfinished = local.with_name(f".{local.name[:100]}.{digest(entry.version.encode())[:16]}.part")
        begin = unfinished.stat().st_size if unfinished.exists() else 0
        begin = min(begin, entry.size) // PIECE * PIECE
        count.add(source, begin)
        with unfinished.open("r+b" if unfinished.exists() else "wb") as file:
            file.truncate(begin)
            file.seek(begin)
            for offset, length in pieces(entry.size, begin):
                if not length:
                    break
                params = {"path": source, "offset": str(offset), "length": str(length), "version": entry.version}
                arrived = 0
                async with self._transport.stream("GET", content, params=params, read_timeout=60.0) as response:
                    async for data in response.aiter_bytes():
                        file.write(data)
                        arrived += len(data)
                if arrived != length:
                    raise Unavailable(
                        f"{arrived} of {length} bytes of {source} arrived. Fetch it again: it continues there."
                    )
                count.add(source, length)
        unfinished.replace(local)
        count.end(source)


class _Counting:
    """The sum of what all files of a transfer have got to."""

    def __init__(self, total: int, files: int, on_progress: OnTransfer | None) -> None:
        self.total = total
        self._done = self._files = 0
        self._all = files
        self._tell: Any = on_progress or (lambda _: None)

    def add(self, file: str, size: int) -> None:
        self._done += size
        self._tell(Transfer(file, self._done, self.total, self._files, self._all))

    def end(self, file: str) -> None:
        self._files += 1
        self.add(file, 0)


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory and name else directory or name
