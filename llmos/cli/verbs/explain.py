"""``explain``: the description of a kind or a field."""

from __future__ import annotations

import argparse

from llmos.cli.common import find_kind
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.present.explain import explain
from llmos.present.text import line
from llmos.resources import KINDS, MAIN_KIND

__all__ = ["configure_explain", "run_explain"]


def configure_explain(parser: Parser) -> None:
    """Add the arguments of ``explain``."""
    parser.add_argument(
        "path",
        metavar="KIND[.FIELD]",
        nargs="?",
        help=f"such as {MAIN_KIND.singular}.spec.resources (default: all kinds)",
    )


def run_explain(client: None, args: argparse.Namespace, output: Output) -> None:  # noqa: ARG001 - every verb's signature
    """Show the description of a kind or a field, or a list of all kinds."""
    if not args.path:
        for cls in KINDS.values():
            summary = (cls.__doc__ or "").splitlines()[0]
            output.lines([line(f"{cls.plural:<16} {summary}")])
        return
    kind, _, path = args.path.partition(".")
    output.lines(explain(find_kind(kind), path))
