"""``describe`` and ``events``: one resource in detail."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llmos.cli.common import add_namespace, examples_of_kinds, suggesting, targets_or_main
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.client.messages import Event
from llmos.errors import NotFound
from llmos.present.describe import describe, events_table
from llmos.resources import Resource
from llmos.resources.base import utcnow

__all__ = ["configure_describe", "configure_events", "run_describe", "run_events"]


def configure_describe(parser: Parser) -> None:
    """Add the arguments of ``describe``."""
    parser.add_argument(
        "kind", metavar="KIND", help=f"{examples_of_kinds()}; KIND/NAME; or the name of a model service"
    )
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="name of the resource")
    add_namespace(parser)


configure_events = configure_describe


def run_describe(client: Client, args: argparse.Namespace, output: Output) -> list[Resource]:
    """Show everything about resources."""
    found = []
    for n, target in enumerate(targets_or_main(args.kind, args.names)):
        collection = client.collection(target.kind)
        with suggesting(client, target, args.namespace):
            resource = collection.get(target.name, namespace=args.namespace)
        try:
            events: Sequence[Event] = collection.events(target.name, namespace=args.namespace)
        except NotFound:
            events = ()
        output.lines([*([()] if n else []), *describe(resource, events, now=utcnow())])
        found.append(resource)
    return found


def run_events(client: Client, args: argparse.Namespace, output: Output) -> list[Event]:
    """Show the events of resources."""
    found: list[Event] = []
    for target in targets_or_main(args.kind, args.names):
        with suggesting(client, target, args.namespace):
            events = client.collection(target.kind).events(target.name, namespace=args.namespace)
        output.show(events_table(events, now=utcnow()))
        found += events
    return found
