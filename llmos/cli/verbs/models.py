"""``models``: the names that clients can ask for."""

from __future__ import annotations

import argparse

from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.client.messages import AvailableModel
from llmos.present.resources import as_json
from llmos.present.tables import Row, Table

__all__ = ["configure_models", "run_models"]


def configure_models(parser: Parser) -> None:
    """Arguments of ``models``."""
    parser.add_argument("--json", action="store_true", help="for programs")


def run_models(client: Client, args: argparse.Namespace, output: Output) -> list[AvailableModel]:
    """Show the models that the gateway answers for."""
    models = client.models()
    if args.json:
        output.text(as_json([{"id": model.id, "owned_by": model.owned_by, **model.extra} for model in models]))
        return models
    rows = [Row([model.id, model.owned_by or "-"]) for model in models]
    empty = "There is no model that you may use. Serve one with: llmos serve demo://smollm2"
    output.show(Table(["NAME", "OWNER"], rows, empty=empty))
    return models
