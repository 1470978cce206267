"""``get``: resources as tables and documents."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from llmos.cli.common import Target, add_namespace, examples_of_kinds, find_kind, suggesting, targets
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import UsageError
from llmos.present.resources import as_json, as_list, as_yaml, resource_table
from llmos.present.tables import Table
from llmos.resources import Resource
from llmos.resources.base import utcnow

__all__ = ["configure_get", "run_get"]


def configure_get(parser: Parser) -> None:
    """Add the arguments of ``get``."""
    parser.add_argument("kind", metavar="KIND", help=f"{examples_of_kinds()}, or KIND/NAME")
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="names of resources (default: all)")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml", "name"),
        default="table",
        help="output format (default: table)",
    )
    parser.add_argument("--json", dest="output", action="store_const", const="json", help="the same as -o json")
    parser.add_argument("-l", "--selector", metavar="A=1,B=2", help="only resources with these labels")
    parser.add_argument("-w", "--watch", action="store_true", help="keep running and show changes")
    add_namespace(parser, everywhere=True)


def run_get(client: Client, args: argparse.Namespace, output: Output) -> Sequence[Resource]:
    """Show resources."""
    wanted = targets(args.kind, args.names)
    kind = wanted[0].kind if wanted else find_kind(args.kind)
    if any(target.kind is not kind for target in wanted):
        raise UsageError("One kind at a time, please.")
    if args.watch:
        return _watch(client, kind, [target.name for target in wanted], args, output)
    found = _find(client, kind, wanted, args)
    _show(kind, found, args, output, single=len(wanted) == 1)
    return found


def _find(client: Client, kind: type[Resource], wanted: list[Target], args: argparse.Namespace) -> Sequence[Resource]:
    if not wanted:
        where = "*" if args.all_namespaces else args.namespace
        return client.collection(kind).list(namespace=where, labels=args.selector)
    found = []
    for target in wanted:
        with suggesting(client, target, args.namespace):
            found.append(client.collection(kind).get(target.name, namespace=args.namespace))
    return found


def _show(
    kind: type[Resource], found: Sequence[Resource], args: argparse.Namespace, output: Output, *, single: bool
) -> None:
    if args.output in {"json", "yaml"}:
        document = found[0].document() if single else as_list(found)
        output.text(as_json(document) if args.output == "json" else as_yaml(document))
    elif args.output == "name":
        if found:
            output.text("\n".join(f"{kind.singular}/{resource.metadata.name}" for resource in found))
    else:
        output.show(_table(kind, found, args))


def _table(kind: type[Resource], found: Sequence[Resource], args: argparse.Namespace) -> Table:
    namespaces = args.all_namespaces and kind.scope == "Namespaced"
    wide, where = args.output == "wide", args.namespace or ""
    return resource_table(kind, found, now=utcnow(), namespaces=namespaces, wide=wide, where=where)


def _watch(
    client: Client, kind: type[Resource], names: list[str], args: argparse.Namespace, output: Output
) -> Sequence[Resource]:
    """Follow resources: tables are updated in place, JSON (one object per line) and YAML have a document per event."""
    collection = client.collection(kind)
    where = "*" if args.all_namespaces else args.namespace
    if args.output in {"table", "wide"}:
        with output.live() as live:
            for step in collection.steps(namespace=where, labels=args.selector):
                items = [item for item in step.items.values() if not names or item.metadata.name in names]
                if step.away:
                    output.note(step.away)
                live.show(_table(kind, sorted(items, key=lambda item: item.key), args))
    for event in collection.watch(namespace=where, labels=args.selector, on_away=output.note):
        if names and event.resource.metadata.name not in names:
            continue
        data: dict[str, Any] = {"type": event.type, "object": event.resource.document()}
        if args.output == "json":
            output.text(as_json(data, indent=None))
        elif args.output == "yaml":
            output.text(as_yaml(data) + "\n---")
        else:
            output.text(f"{event.type.lower()} {kind.singular}/{event.resource.metadata.name}")
    return []
