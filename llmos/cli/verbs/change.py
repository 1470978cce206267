"""``stop``, ``start``, ``scale`` and ``set``: changes of an existing service."""

from __future__ import annotations

import argparse
from typing import Any

from llmos.cli.common import add_namespace, add_wait, suggesting
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.cli.verbs.serve import add_spec_options, spec_options
from llmos.cli.waiting import wait_shown
from llmos.client._sync.client import Client
from llmos.client.serving import make_patch
from llmos.errors import UsageError
from llmos.resources import ModelService

__all__ = [
    "configure_scale",
    "configure_set",
    "configure_start",
    "configure_stop",
    "run_scale",
    "run_set",
    "run_start",
    "run_stop",
]


def _configure_named(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the model service")
    add_namespace(parser)


def _configure_wait(parser: Parser, *, default: bool) -> None:
    add_wait(parser, until="Ready", default=default)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="maximum time to wait")


def configure_stop(parser: Parser) -> None:
    """Add the arguments of ``stop``."""
    _configure_named(parser)


def configure_start(parser: Parser) -> None:
    """Add the arguments of ``start``."""
    _configure_named(parser)
    _configure_wait(parser, default=True)


def configure_scale(parser: Parser) -> None:
    """Add the arguments of ``scale``."""
    _configure_named(parser)
    parser.add_argument("replicas", metavar="N", type=int, help="number of replicas")
    _configure_wait(parser, default=False)


def configure_set(parser: Parser) -> None:
    """Add the arguments of ``set``."""
    _configure_named(parser)
    parser.add_argument("--model", metavar="MODEL", help="serve another model under this name")
    add_spec_options(parser)
    _configure_wait(parser, default=False)


def _patch(client: Client, args: argparse.Namespace, spec: dict[str, Any]) -> ModelService:
    with suggesting(client, args.name, args.namespace):
        return client.collection(ModelService).patch(args.name, {"spec": spec}, namespace=args.namespace)


def run_stop(client: Client, args: argparse.Namespace, output: Output) -> ModelService:
    """Stop a service but keep it."""
    service = _patch(client, args, {"paused": True})
    output.text(f"{args.name} is stopped. Start it again with: {output.hints.command} start {args.name}")
    return service


def run_start(client: Client, args: argparse.Namespace, output: Output) -> ModelService:
    """Start a stopped service again."""
    service = _patch(client, args, {"paused": False})
    return _end(client, service, args, output, "is starting")


def run_scale(client: Client, args: argparse.Namespace, output: Output) -> ModelService:
    """Set the number of replicas."""
    if args.replicas < 0:
        raise UsageError("The number of replicas can't be less than 0.")
    service = _patch(client, args, {"replicas": args.replicas})
    return _end(
        client, service, args, output, f"is going to {args.replicas} replica{'' if args.replicas == 1 else 's'}"
    )


def run_set(client: Client, args: argparse.Namespace, output: Output) -> ModelService:
    """Change some fields of a service's spec."""
    given = spec_options(args)
    if args.model:
        given["model"] = client.address_of(args.model)
    if not given:
        raise UsageError(f"Set what? For example: {output.hints.command} set {args.name} --memory 6Gi")
    service = _patch(client, args, make_patch(given))
    words = ", ".join(f"{key} {value}" for key, value in given.items() if key != "env")
    return _end(client, service, args, output, f"is changing: {words or 'its environment'}")


def _end(client: Client, service: ModelService, args: argparse.Namespace, output: Output, words: str) -> ModelService:
    if args.wait:
        return wait_shown(client, service, output, timeout=args.timeout)
    output.text(f"{args.name} {words}. Look with: {output.hints.command} ps")
    return service
