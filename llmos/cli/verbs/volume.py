"""``volume``: make, grow and undelete volumes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from llmos.cli.common import Target, add_namespace, add_wait, suggesting
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.cli.waiting import wait_shown
from llmos.client._sync.client import Client
from llmos.errors import UsageError
from llmos.present.volumes import volume_table
from llmos.resources import Volume
from llmos.resources.base import utcnow

__all__ = ["configure_volume", "run_volume"]


def configure_volume(parser: Parser) -> None:
    """Add the arguments of ``volume``."""
    parser.add_argument("action", choices=tuple(_ACTIONS), help="what to do")
    parser.add_argument(
        "words", metavar="NAME", nargs="*", default=[], help="name of the volume; then a size, such as 10Gi"
    )
    add_namespace(parser)
    add_wait(parser, until="ready")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="maximum time to wait")


def run_volume(client: Client, args: argparse.Namespace, output: Output) -> Any:
    """Make, grow, undelete or list volumes."""
    return _ACTIONS[args.action](client, args, output)


def _create(client: Client, args: argparse.Namespace, output: Output) -> Volume:
    name, size = _words(args, "create NAME SIZE, such as: create data 10Gi", 2)
    client.collection(Volume).create({"metadata": {"name": name}, "spec": {"size": size}}, namespace=args.namespace)
    return _end(client, name, args, output, "is being made")


def _grow(client: Client, args: argparse.Namespace, output: Output) -> Volume:
    name, size = _words(args, "grow NAME SIZE, such as: grow data 20Gi", 2)
    with suggesting(client, Target(Volume, name), args.namespace):
        client.collection(Volume).patch(name, {"spec": {"size": size}}, namespace=args.namespace)
    return _end(client, name, args, output, f"is growing to {size}")


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
    _words(args, "ls", 0)
    found = client.collection(Volume).list(namespace=args.namespace)
    output.show(volume_table(found, now=utcnow()))
    return found


_ACTIONS: Mapping[str, Callable[[Client, argparse.Namespace, Output], Any]] = {
    "create": _create,
    "grow": _grow,
    "undelete": _undelete,
    "ls": _list,
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
