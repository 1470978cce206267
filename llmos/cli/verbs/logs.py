"""``logs``: the log of a model service's processes."""

from __future__ import annotations

import argparse

from llmos.cli.common import add_namespace, suggesting
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import Unavailable
from llmos.resources import ModelService

__all__ = ["configure_logs", "run_logs"]


def configure_logs(parser: Parser) -> None:
    """Add the arguments of ``logs``."""
    parser.add_argument("name", metavar="NAME", help="name of the model service")
    parser.add_argument("-f", "--follow", action="store_true", help="keep running and show new lines")
    parser.add_argument("--tail", metavar="N", type=int, help="number of lines from the end (default: all)")
    parser.add_argument("--replica", metavar="ID", help="only this replica; `llmos describe` shows the ids")
    add_namespace(parser)


def run_logs(client: Client, args: argparse.Namespace, output: Output) -> None:
    """Show a log."""
    name = args.name.removeprefix("modelservice/")
    with suggesting(client, name, args.namespace):
        pieces = client.collection(ModelService).logs(
            name, namespace=args.namespace, tail=args.tail, follow=args.follow, replica=args.replica
        )
        try:
            for text in pieces:
                output.piece(text)
        except Unavailable as error:
            message = f"{error.message} To continue: {output.hints.command} logs {name}{' -f' if args.follow else ''} --tail 20"
            raise Unavailable(message, request_id=error.request_id) from None
