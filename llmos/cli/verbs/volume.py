"""``volume``: make, grow, copy and undelete volumes, and list, copy and remove their files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmos.cli.common import Target, add_namespace, add_wait, suggesting
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.cli.waiting import wait_shown
from llmos.client._sync.client import Client
from llmos.client.transfers import FileInfo, Transfer, split_remote
from llmos.errors import UsageError
from llmos.present.amounts import format_bytes, stopwatch
from llmos.present.volumes import TransferView, file_table, volume_table
from llmos.resources import Snapshot, Volume
from llmos.resources.base import utcnow

__all__ = ["configure_volume", "run_volume"]


def configure_volume(parser: Parser) -> None:
    """Add the arguments of ``volume``."""
    parser.add_argument("action", choices=tuple(_ACTIONS), help="what to do")
    parser.add_argument(
        "words",
        metavar="NAME",
        nargs="*",
        default=[],
        help="name of the volume, then a size such as 10Gi; NAME:PATH for files in it; for cp also files of this machine",
    )
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="rm: remove directories with all that is in them"
    )
    parser.add_argument("--snapshot", metavar="SNAPSHOT", help="create: fill it with what a snapshot holds")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
    parser.add_argument("--parallel", metavar="N", type=int, default=4, help="cp: files sent at once (default: 4)")
    add_namespace(parser)
    add_wait(parser, until="ready")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="maximum time to wait")


def run_volume(client: Client, args: argparse.Namespace, output: Output) -> Any:
    """Make, grow, undelete or list volumes, or work with their files."""
    return _ACTIONS[args.action](client, args, output)


def _create(client: Client, args: argparse.Namespace, output: Output) -> Volume:
    name, size = _words(args, "create NAME SIZE, such as: create data 10Gi", 2)
    spec: dict[str, Any] = {"size": size}
    if args.snapshot:
        spec["source"] = {"snapshot": args.snapshot}
    client.collection(Volume).create({"metadata": {"name": name}, "spec": spec}, namespace=args.namespace)
    return _end(client, name, args, output, "is being made")


def _grow(client: Client, args: argparse.Namespace, output: Output) -> Volume:
    name, size = _words(args, "grow NAME SIZE, such as: grow data 20Gi", 2)
    with suggesting(client, Target(Volume, name), args.namespace):
        client.collection(Volume).patch(name, {"spec": {"size": size}}, namespace=args.namespace)
    return _end(client, name, args, output, f"is growing to {size}")


def _clone(client: Client, args: argparse.Namespace, output: Output) -> Volume:
    name, new = _words(args, "clone NAME NEW, such as: clone data data-copy", 2)
    with suggesting(client, Target(Volume, name), args.namespace):
        size = client.collection(Volume).get(name, namespace=args.namespace).spec.size
    manifest = {"metadata": {"name": new}, "spec": {"size": size, "source": {"volume": name}}}
    client.collection(Volume).create(manifest, namespace=args.namespace)
    return _end(client, new, args, output, f"is being copied from {name}")


def _snapshot(client: Client, args: argparse.Namespace, output: Output) -> Snapshot:
    if len(args.words) not in {1, 2}:
        raise UsageError("llmos volume snapshot NAME [SNAPSHOT], such as: snapshot data data-before")
    name = args.words[0]
    new = args.words[1] if len(args.words) == 2 else f"{name}-{utcnow():%Y%m%d-%H%M%S}"
    manifest = {"metadata": {"name": new}, "spec": {"volume": name}}
    client.collection(Snapshot).create(manifest, namespace=args.namespace)
    if args.wait:
        return wait_shown(client, Snapshot, new, output, namespace=args.namespace, timeout=args.timeout)
    output.text(f"snapshot/{new} is being made. Look with: {output.hints.command} get snapshots")
    return client.collection(Snapshot).get(new, namespace=args.namespace)


def _restore(client: Client, args: argparse.Namespace, output: Output) -> Volume | None:
    name, snapshot = _words(args, "restore NAME SNAPSHOT, such as: restore data data-before", 2)
    question = f"Replace all files of {name} by those of {snapshot}? What it holds now is lost."
    if not args.yes and not output.confirm(question):
        output.note("Nothing was restored.")
        return None
    restore = {"snapshot": snapshot, "request": f"{utcnow():%Y%m%d-%H%M%S-%f}"}
    with suggesting(client, Target(Volume, name), args.namespace):
        client.collection(Volume).patch(name, {"spec": {"restore": restore}}, namespace=args.namespace)
    return _end(client, name, args, output, f"is going back to {snapshot}")


def _undelete(client: Client, args: argparse.Namespace, output: Output) -> Volume:
    (name,) = _words(args, "undelete NAME", 1)
    with suggesting(client, Target(Volume, name), args.namespace):
        found = client.collection(Volume).get(name, namespace=args.namespace)
        if found.rests_until is None:
            output.note(f"{name} was not deleted: there is nothing to undo.")
            return found
        client.collection(Volume).patch(name, {"spec": {"deleteAt": None}}, namespace=args.namespace)
    return _end(client, name, args, output, "is being taken back")


def _list(client: Client, args: argparse.Namespace, output: Output) -> Any:
    if not args.words:
        found = client.collection(Volume).list(namespace=args.namespace)
        output.show(volume_table(found, now=utcnow()))
        return found
    (place,) = _words(args, "ls [NAME[:PATH]], such as: ls data:models", 1)
    name, path = split_remote(place if ":" in place else f"{place}:")
    with suggesting(client, Target(Volume, name), args.namespace):
        entries = sorted(client.collection(Volume).files(name, namespace=args.namespace).list(path), key=_order)
    output.show(file_table(entries, now=utcnow()))
    return entries


def _order(entry: FileInfo) -> tuple[bool, str]:
    return entry.type != "directory", entry.name


def _copy(client: Client, args: argparse.Namespace, output: Output) -> None:
    if len(args.words) < 2:
        raise UsageError("llmos volume cp SOURCE… TARGET, such as: cp model.gguf data:models/ or cp data:models .")
    *sources, target = args.words
    if _is_remote(target) and any(map(_is_remote, sources)):
        raise UsageError(
            "Either from this machine to a volume or back. Between volumes copy in a server that has both."
        )
    if not _is_remote(target) and not all(map(_is_remote, sources)):
        raise UsageError("One side is a place in a volume: NAME:PATH, such as data:models/")
    begun, total, shown = time.monotonic(), 0, TransferView()
    with output.live() as live:

        def show(transfer: Transfer) -> None:
            shown.seen(transfer, time.monotonic() - begun)
            live.show(shown)

        for source in sources:
            name, path = split_remote(target if _is_remote(target) else source)
            files = client.collection(Volume).files(name, namespace=args.namespace)
            with suggesting(client, Target(Volume, name), args.namespace):
                if _is_remote(target):
                    inner = _into(source, path, several=len(sources) > 1)
                    total += files.upload(source, inner, parallel=args.parallel, on_progress=show)
                else:
                    total += files.download(path, target, parallel=args.parallel, on_progress=show)
    seconds = time.monotonic() - begun
    output.text(f"{format_bytes(total, binary=False)} copied in {stopwatch(seconds)}")


def _into(source: str, path: str, *, several: bool) -> str:
    """Return the path in a volume that a file or directory gets, as with ``cp -r``."""
    directory = not path or path.endswith("/") or several
    above = path if not path or path.endswith("/") else f"{path}/"
    return f"{above}{Path(source).absolute().name}" if directory else path


def _is_remote(word: str) -> bool:
    """Return whether a word names a place in a volume; a path of this machine with a colon is written ./a:b."""
    name, colon, _ = word.partition(":")
    return bool(colon) and "/" not in name


def _remove(client: Client, args: argparse.Namespace, output: Output) -> None:
    if not args.words:
        raise UsageError("llmos volume rm NAME:PATH…, such as: rm data:models/old.gguf")
    places, names = [split_remote(word) for word in args.words], ", ".join(args.words)
    question = f"Remove {names} with all that is in it? This can't be undone."
    if args.recursive and not args.yes and not output.confirm(question):
        output.note("Nothing was removed.")
        return
    for (name, path), word in zip(places, args.words, strict=True):
        with suggesting(client, Target(Volume, name), args.namespace):
            client.collection(Volume).files(name, namespace=args.namespace).remove(path, recursive=args.recursive)
        output.text(f"{word} removed")


_ACTIONS: Mapping[str, Callable[[Client, argparse.Namespace, Output], Any]] = {
    "create": _create,
    "grow": _grow,
    "undelete": _undelete,
    "snapshot": _snapshot,
    "restore": _restore,
    "clone": _clone,
    "ls": _list,
    "cp": _copy,
    "rm": _remove,
}


def _words(args: argparse.Namespace, usage: str, count: int) -> list[str]:
    if len(args.words) != count:
        raise UsageError(f"llmos volume {usage}")
    words: list[str] = args.words
    return words


def _end(client: Client, name: str, args: argparse.Namespace, output: Output, words: str) -> Volume:
    if args.wait:
        return wait_shown(client, Volume, name, output, namespace=args.namespace, timeout=args.timeout)
    output.text(f"volume/{name} {words}. Look with: {output.hints.command} volume ls")
    return client.collection(Volume).get(name, namespace=args.namespace)
