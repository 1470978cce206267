"""``whoami``: the identity that the token belongs to."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.client.messages import WhoAmI
from llmos.present.resources import as_json
from llmos.present.text import line, pad

__all__ = ["configure_whoami", "run_whoami"]


def configure_whoami(parser: Parser) -> None:
    """Add the arguments of ``whoami``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_whoami(client: Client, args: argparse.Namespace, output: Output) -> WhoAmI:
    """Show the identity that the token belongs to, with addresses."""
    who = client.whoami()
    if args.json:
        output.text(as_json(asdict(who)))
        return who
    facts = [
        ("Name", f"{who.name} (admin)" if who.admin else who.name),
        ("Namespace", who.namespace),
        ("Groups", ", ".join(who.groups)),
        ("Token may", ", ".join(who.scopes)),
        ("API", f"{client.configuration.url} (from {client.configuration.source})"),
        ("Gateway", client.configuration.gateway_url),
        ("Hub", who.public_url),
    ]
    output.lines([line(pad(f"{label}:", 12) + value) for label, value in facts if value])
    return who
