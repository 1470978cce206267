"""``apply``: create or change resources from files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llmos.cli.common import add_namespace
from llmos.cli.manifests import Manifest, read_manifests
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import Invalid, LLMOSError, NotFound
from llmos.resources import Resource

__all__ = ["configure_apply", "run_apply"]


def configure_apply(parser: Parser) -> None:
    """Add the arguments of ``apply``."""
    parser.add_argument(
        "-f",
        "--filename",
        metavar="FILE",
        action="append",
        required=True,
        help="a YAML or JSON file, a directory of them, or - for standard input; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, change nothing")
    add_namespace(parser)


def run_apply(client: Client, args: argparse.Namespace, output: Output) -> Sequence[Resource]:
    """Validate all files, then create or change their resources."""
    manifests = read_manifests(args.filename)
    applied = []
    for manifest in manifests:
        try:
            applied.append(_apply(client, manifest, args, output))
        except LLMOSError as error:
            message = f"{manifest.place}: {error.message}"
            raise type(error)(message, causes=error.causes, request_id=error.request_id) from None
    return applied


def _apply(client: Client, manifest: Manifest, args: argparse.Namespace, output: Output) -> Resource:
    wanted = manifest.resource
    collection = client.collection(type(wanted))
    namespace = wanted.metadata.namespace or args.namespace
    if args.namespace and wanted.metadata.namespace and wanted.metadata.namespace != args.namespace:
        raise Invalid(f"it says namespace {wanted.metadata.namespace}, -n says {args.namespace}")
    try:
        before = collection.get(wanted.metadata.name, namespace=namespace)
    except NotFound:
        before = None
    after = collection.apply(wanted, namespace=namespace, dry_run=args.dry_run)
    if before is None:
        word = "created"
    elif (
        before.spec == after.spec
        and before.metadata.labels == after.metadata.labels
        and (before.metadata.annotations == after.metadata.annotations)
        and wanted.spec.model_fields_set.isdisjoint(wanted.write_only)  # what is given can't be compared
    ):
        word = "unchanged"
    else:
        word = "changed"
    rehearsal = " (dry run: nothing was changed)" if args.dry_run else ""
    output.text(f"{wanted.singular}/{wanted.metadata.name} {word}{rehearsal}")
    return after
