"""``logs``: the log of a resource's processes."""

from __future__ import annotations

import argparse
from operator import attrgetter

from llmos.cli.common import add_namespace, add_target, suggesting, target_of
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import Unavailable

__all__ = ["configure_logs", "run_logs"]


_able = attrgetter("has_logs")


def configure_logs(parser: Parser) -> None:
    """Add the arguments of ``logs``."""
    add_target(parser, _able)
    parser.add_argument("-f", "--follow", action="store_true", help="keep running and show new lines")
    parser.add_argument("--tail", metavar="N", type=int, help="number of lines from the end (default: all)")
    parser.add_argument("--replica", metavar="ID", help="only this replica; `llmos describe` shows the ids")
    add_namespace(parser)


def run_logs(client: Client, args: argparse.Namespace, output: Output) -> None:
    """Show a log."""
    target = target_of(args.name, _able, "have no logs")
    with suggesting(client, target, args.namespace):
        pieces = client.collection(target.kind).logs(
            target.name, namespace=args.namespace, tail=args.tail, follow=args.follow, replica=args.replica
        )
        try:
            for text in pieces:
                output.piece(text)
        except Unavailable as error:
            follow = " -f" if args.follow else ""
            message = f"{error.message} To continue: {output.hints.command} logs {target.words}{follow} --tail 20"
            raise Unavailable(message, request_id=error.request_id) from None
