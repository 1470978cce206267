"""Files of resources that have some: lists, downloads, and uploads in pieces that can be resumed.

The path is a parameter of the query: proxies and clients normalise ``..`` in the path of an address.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse

from llmos.errors import Conflict, Invalid, PayloadTooLarge, UsageError
from llmos.resources import API_VERSION
from llmos_hub.api.dependencies import Call
from llmos_hub.api.transfers import LARGEST_PIECE, arriving
from llmos_hub.volumes.base import VolumeRef
from llmos_hub.volumes.tree import FileEntry, Upload

__all__ = ["list_files", "make_directory", "read_file", "remove_file", "write_file"]

_PAGE: Final = 1000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


async def list_files(call: Call) -> Response:
    """Return what is at ``path``: the entries of a directory in pages, or of a file its own; or how far an upload is."""
    ref, path, files = await _volume(call), _path(call), call.services.files
    if upload := call.query.get("upload"):
        return JSONResponse({"received": await files.progress(ref, path, upload)})
    entry = await files.stat(ref, path)
    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "FileList", "metadata": {}, "file": _document(entry)}
    if entry.type != "directory":
        return JSONResponse(body)
    limit = min(_number(call, "limit") or _PAGE, _PAGE)
    found = list(await files.list(ref, path, after=call.query.get("continue", ""), limit=limit + 1))
    if len(found) > limit:
        found = found[:limit]
        body["metadata"]["continue"] = found[-1].name
    return JSONResponse({**body, "items": [_document(each) for each in found]})


async def read_file(call: Call) -> Response:
    """Return a piece of a file: ``length`` bytes from ``offset``, of the ``version`` that a list has shown."""
    ref, path = await _volume(call), _path(call)
    offset, length = _number(call, "offset") or 0, _number(call, "length")
    with contextlib.ExitStack() as stack:
        stack.enter_context(call.services.transfers.counted(call.caller.name))
        entry, pieces = await call.services.files.read(
            ref,
            path,
            offset=offset,
            length=LARGEST_PIECE if length is None else min(length, LARGEST_PIECE),
            version=call.query.get("version", ""),
        )
        headers = {
            "x-llmos-size": str(entry.size),
            "x-llmos-version": entry.version,
            "content-disposition": "attachment",
        }
        return StreamingResponse(
            _until_sent(pieces, stack.pop_all()), media_type="application/octet-stream", headers=headers
        )


async def write_file(call: Call) -> Response:
    """Add the body to an upload: at ``offset`` of ``total`` bytes, checked by ``sha256``. The last piece ends it."""
    ref, path = await _volume(call), _path(call)
    upload = Upload(call.query.get("upload", ""), _needed(call, "offset"), _needed(call, "total"))
    sha256, length = call.query.get("sha256", ""), call.request.headers.get("content-length", "")
    if not _SHA256.fullmatch(sha256):
        raise UsageError("sha256: the hash of the request's body, 64 hexadecimal digits.")
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise UsageError("The header Content-Length is needed.")
    if int(length) > LARGEST_PIECE:
        raise PayloadTooLarge(
            f"The piece has {length} bytes, and {LARGEST_PIECE} are allowed. Send the file in more pieces."
        )
    with call.services.transfers.counted(call.caller.name):
        entry = await call.services.files.write(
            ref, path, upload, arriving(call.request), length=int(length), sha256=sha256
        )
    body: dict[str, Any] = {"received": upload.offset + int(length)}
    if entry is not None:
        body["file"] = _document(entry)
    return JSONResponse(body)


async def make_directory(call: Call) -> Response:
    """Make a directory and those above it."""
    ref, path = await _volume(call), _path(call)
    await call.services.files.make_directory(ref, path)
    return JSONResponse({"file": _document(await call.services.files.stat(ref, path))})


async def remove_file(call: Call) -> Response:
    """Remove a file, or a directory: with ``recursive=1`` with all that is in it."""
    await call.services.files.remove(await _volume(call), _path(call), recursive=call.flag("recursive"))
    return JSONResponse({})


async def _volume(call: Call) -> VolumeRef:
    """Return the volume, which the caller may use: that was checked for its kind, namespace and name."""
    resource = await call.services.resources.get(call.kind, call.namespace, call.name)
    if resource.rests_until is not None or resource.metadata.deletion_timestamp is not None:
        undo = f" To have it again: llmos {resource.undo.format(name=call.name)}" if resource.rests_until else ""
        raise Conflict(f"{call.name} was deleted.{undo}")
    return VolumeRef(call.namespace or "", call.name, resource.metadata.uid or "")


def _path(call: Call) -> str:
    return call.query.get("path", "")


def _number(call: Call, name: str) -> int | None:
    """Return a number of bytes, which may be larger than other numbers."""
    text = call.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f'{name}: "{text[:40]}" is not a number of bytes.')
    return int(text)


def _needed(call: Call, name: str) -> int:
    found = _number(call, name)
    if found is None:
        raise Invalid(f"{name}: is required.")
    return found


def _document(entry: FileEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "type": entry.type,
        "size": entry.size,
        "modified": entry.modified.isoformat().replace("+00:00", "Z"),
        "version": entry.version,
    }


async def _until_sent(pieces: AsyncIterator[bytes], resources: contextlib.ExitStack) -> AsyncIterator[bytes]:
    with resources:
        async for piece in pieces:
            yield piece
