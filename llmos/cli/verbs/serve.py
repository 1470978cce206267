"""``serve``: create or change a model service and wait until it is ready."""

from __future__ import annotations

import argparse
from typing import Any

from llmos.cli.common import add_namespace, add_wait
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.cli.waiting import wait_shown
from llmos.client._sync.client import Client
from llmos.client.serving import Submitted, changed_fields, kept_fields
from llmos.errors import UsageError
from llmos.resources import ModelService

__all__ = ["add_spec_options", "configure_serve", "run_serve", "spec_options"]

_SPEC_OPTIONS = ("replicas", "memory", "cpu", "gpus", "engine", "task", "args", "aliases", "credential_ref")
"""Options that are fields of a ModelService's spec, or of its resources, as given."""


def configure_serve(parser: Parser) -> None:
    """Add the arguments of ``serve``."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="org/repo[:file] of Hugging Face, /path/model.gguf, smollm2, or an address such as hf://org/repo; "
        "none with --engine custom",
    )
    parser.add_argument("--name", help="name for clients (default: derived from MODEL)")
    add_spec_options(parser)
    add_wait(parser, until="Ready")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="maximum time to wait")
    parser.add_argument("--dry-run", action="store_true", help="check everything, start nothing")
    add_namespace(parser)


def add_spec_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the fields of a ModelService's spec; they are None unless given."""
    parser.add_argument("--replicas", metavar="N", type=int, help="number of replicas (default: 1)")
    parser.add_argument("--memory", metavar="4Gi", help="memory limit per replica")
    parser.add_argument("--cpu", metavar="N", help="CPUs per replica, such as 2 or 500m")
    parser.add_argument("--gpus", metavar="N", type=int, help="GPUs per replica")
    parser.add_argument("--engine", metavar="NAME", help="auto, llamacpp or custom (default: auto)")
    parser.add_argument("--task", metavar="NAME", help="auto, generate, embed or rerank (default: auto)")
    parser.add_argument(
        "--arg",
        dest="args",
        metavar="=WORD",
        action="append",
        help="one more argument for the engine, as in --arg=--ctx-size --arg=8192; may be repeated",
    )
    parser.add_argument("--env", metavar="A=1", action="append", help="an environment variable; may be repeated")
    parser.add_argument(
        "--alias", dest="aliases", metavar="NAME", action="append", help="a further name for clients; may be repeated"
    )
    parser.add_argument(
        "--credential", dest="credential_ref", metavar="NAME", help="a Credential with access to a gated model"
    )


def spec_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the spec that were given.

    Raises
    ------
    UsageError
        The value of an option is malformed.
    """
    given = {name: getattr(args, name) for name in _SPEC_OPTIONS}
    if args.env:
        pairs = [item.partition("=") for item in args.env]
        wrong = [name for name, sign, _ in pairs if not sign or not name]
        if wrong:
            raise UsageError(f'--env: "{wrong[0][:80]}" should read NAME=VALUE.')
        given["env"] = {name: value for name, _, value in pairs}
    return {key: value for key, value in given.items() if value is not None}


def run_serve(client: Client, args: argparse.Namespace, output: Output) -> ModelService:
    """Create or change a ModelService, and wait until it is Ready."""
    submitted = client.submit(
        args.model, args.name, namespace=args.namespace, dry_run=args.dry_run, **spec_options(args)
    )
    service, name = submitted.service, submitted.service.metadata.name
    done = "created" if submitted.before is None else "changed"
    _say_what_changes(submitted, output)
    if args.dry_run:
        output.text(f"modelservice/{name} {done} (dry run: nothing was changed)")
        return service
    if not args.wait:
        output.text(f"modelservice/{name} {done}. It continues by itself; look with: {output.hints.command} ps")
        return service
    return wait_shown(client, ModelService, name, output, namespace=service.metadata.namespace, timeout=args.timeout)


def _say_what_changes(submitted: Submitted, output: Output) -> None:
    """Tell for an existing service which fields change and which stay, since either may not be intended."""
    before, after = submitted.before, submitted.service
    if before is None:
        return
    told = ", ".join(changed_fields(before, after)) or "nothing"
    stays = ", ".join(kept_fields(before, after))
    output.note(f"{after.metadata.name} exists already. Changes: {told}." + (f" Stays: {stays}." if stays else ""))
