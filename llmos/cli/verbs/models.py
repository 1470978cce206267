"""``models``: the names that clients can ask for."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.client.messages import AvailableModel
from llmos.present.fields import tone_of
from llmos.present.resources import as_json
from llmos.present.tables import Row, Table
from llmos.resources import MAIN_KIND

__all__ = ["configure_models", "run_models"]


def configure_models(parser: Parser) -> None:
    """Add the arguments of ``models``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_models(client: Client, args: argparse.Namespace, output: Output) -> list[AvailableModel]:
    """Show the models that the gateway lists."""
    models = client.models()
    if args.json:
        output.text(as_json([asdict(model) for model in models]))
        return models
    rows = [
        Row([m.id, m.task or "-", m.phase or "-", m.owned_by or "-"], {"STATE": tone_of(MAIN_KIND, m.phase)})
        for m in models
    ]
    empty = f"There is no model that you may use. Serve one with: {output.hints.command} serve demo://smollm2"
    output.show(Table(["NAME", "TASK", "STATE", "NAMESPACE"], rows, empty=empty, elastic=("NAME",)))
    return models
