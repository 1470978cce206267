"""``ps``: model services at a glance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime

from llmos.cli.common import add_namespace, list_everywhere
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.present.modelservices import ps_table
from llmos.present.resources import as_json
from llmos.present.text import Line
from llmos.resources import ModelService

__all__ = ["configure_ps", "run_ps"]


class _Ages:
    """The table as it is whenever it is drawn, so that ages go on."""

    def __init__(self, services: Sequence[ModelService], *, namespaces: bool) -> None:
        self._services = services
        self._namespaces = namespaces

    def lines(self, *, now: datetime, width: int | None = None) -> list[Line]:
        return ps_table(self._services, now=now, namespaces=self._namespaces).lines(width=width)


def configure_ps(parser: Parser) -> None:
    """Arguments of ``ps``."""
    parser.add_argument("-w", "--watch", action="store_true", help="go on and show what changes")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_namespace(parser, everywhere=True)


def run_ps(client: Client, args: argparse.Namespace, output: Output) -> Sequence[ModelService]:
    """Show model services."""
    if args.watch:
        with output.live() as live:
            where = "*" if args.all_namespaces else args.namespace
            for step in client.collection(ModelService).steps(namespace=where):
                if step.away:
                    output.note(step.away)
                services = sorted(step.items.values(), key=lambda service: service.key)
                live.show(_Ages(services, namespaces=args.all_namespaces))
    if args.all_namespaces:
        services = list(list_everywhere(client, ModelService))
    else:
        services = list(client.collection(ModelService).list(namespace=args.namespace))
    if args.json:
        output.text(as_json([service.dump() for service in services]))
    else:
        output.show(_Ages(services, namespaces=args.all_namespaces))
    return services
