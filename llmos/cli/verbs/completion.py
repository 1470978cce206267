"""``completion``: completion scripts for shells."""

from __future__ import annotations

import argparse

from llmos.cli.completion import SHELLS, script
from llmos.cli.output import Output
from llmos.cli.parser import Parser

__all__ = ["configure_completion", "run_completion"]


def configure_completion(parser: Parser) -> None:
    """Add the arguments of ``completion``."""
    parser.add_argument("shell", choices=SHELLS, help="name of the shell")


def run_completion(client: None, args: argparse.Namespace, output: Output) -> None:  # noqa: ARG001 - every verb's signature
    """Print the completion script."""
    output.text(script(args.shell))
