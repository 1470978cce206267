"""``ps``: the list of model services."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llmos.cli.common import add_namespace, shared_namespaces
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import Forbidden, NotFound
from llmos.present.modelservices import ps_table
from llmos.present.resources import as_json
from llmos.present.text import Span, line
from llmos.resources import ModelService
from llmos.resources.base import utcnow

__all__ = ["configure_ps", "run_ps"]

_REDRAW = 10.0
"""Seconds after which ages are updated although nothing changed."""


def configure_ps(parser: Parser) -> None:
    """Add the arguments of ``ps``."""
    parser.add_argument("-w", "--watch", action="store_true", help="keep running and show changes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_namespace(parser, everywhere=True)


def run_ps(client: Client, args: argparse.Namespace, output: Output) -> Sequence[ModelService]:
    """Show model services."""
    if args.watch:
        with output.live() as live:
            where = "*" if args.all_namespaces else args.namespace
            for step in client.collection(ModelService).steps(namespace=where, quiet=_REDRAW):
                if step.away:
                    output.note(step.away)
                services = sorted(step.items.values(), key=lambda service: service.key)
                live.show(ps_table(services, now=utcnow(), namespaces=args.all_namespaces))
    services = list(client.collection(ModelService).list(namespace="*" if args.all_namespaces else args.namespace))
    if args.json:
        output.text(as_json([service.dump() for service in services]))
        return services
    output.show(ps_table(services, now=utcnow(), namespaces=args.all_namespaces))
    if args.namespace is None and not args.all_namespaces:
        services += _shared(client, output)
    return services


def _shared(client: Client, output: Output) -> list[ModelService]:
    """Show and return services shared by others, one section per namespace, under the names that clients ask for."""
    found: list[ModelService] = []
    for namespace in shared_namespaces(client):
        try:
            services = client.collection(ModelService).list(namespace=namespace)
        except (Forbidden, NotFound):  # the namespace of a group may not exist yet
            continue
        if services:
            output.lines([(), line(Span(f"In {namespace}", "bold"))])
            output.show(ps_table(services, now=utcnow(), qualified=True))
            found += services
    return found
