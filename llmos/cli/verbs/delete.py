"""``delete``: delete resources, after one confirmation on a terminal."""

from __future__ import annotations

import argparse

from llmos.cli.common import Target, add_namespace, add_wait, examples_of_kinds, suggesting, targets_or_main
from llmos.cli.manifests import read_manifests
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import UsageError
from llmos.present.amounts import duration
from llmos.resources.base import utcnow

__all__ = ["configure_delete", "run_delete"]


def configure_delete(parser: Parser) -> None:
    """Add the arguments of ``delete``."""
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", help=f"{examples_of_kinds()}; KIND/NAME; or the name of a model service"
    )
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="name of the resource")
    parser.add_argument("-f", "--filename", metavar="FILE", action="append", help="delete the resources in this file")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
    parser.add_argument("--dry-run", action="store_true", help="check everything, delete nothing")
    add_wait(parser, until="gone")
    add_namespace(parser)


def run_delete(client: Client, args: argparse.Namespace, output: Output) -> list[str]:
    """Delete resources and wait until they are gone."""
    wanted = _wanted(args)
    final = False
    for target, namespace in wanted:  # checked first, so that a wrong name doesn't leave half of them deleted
        with suggesting(client, target, namespace):
            found = client.collection(target.kind).get(target.name, namespace=namespace)
        final = final or not target.kind.undo or found.rests_until is not None
    names = ", ".join(str(target) for target, _ in wanted)
    then = "This can't be undone." if final else "It rests for a while, and can be taken back until then."
    if not (args.yes or args.dry_run) and not output.confirm(f"Delete {names}? {then}"):
        output.note("Nothing was deleted.")
        return []
    left = [
        client.collection(target.kind).delete(target.name, namespace=namespace, dry_run=args.dry_run)
        for target, namespace in wanted
    ]
    for (target, namespace), last in zip(wanted, left, strict=True):
        if last.rests_until is not None and last.metadata.deletion_timestamp is None:
            rest = duration((last.rests_until - utcnow()).total_seconds() + 0.5)
            word = "would be deleted (dry run)" if args.dry_run else "deleted"
            undo = f"{output.hints.command} {target.kind.undo.format(name=target.name)}"
            output.text(f"{target} {word}. It rests for {rest}; to have it again: {undo}")
            continue
        if args.wait and not args.dry_run:
            client.collection(target.kind).wait_deleted(target.name, namespace=namespace)
        word = "would be deleted (dry run)" if args.dry_run else "deleted" if args.wait else "is being deleted"
        output.text(f"{target} {word}")
    return [str(target) for target, _ in wanted]


def _wanted(args: argparse.Namespace) -> list[tuple[Target, str | None]]:
    if args.filename and args.kind:
        raise UsageError("Either -f FILE or KIND NAME, not both.")
    if args.filename:
        found = [manifest.resource for manifest in read_manifests(args.filename)]
        return [(Target(type(r), r.metadata.name), r.metadata.namespace or args.namespace) for r in found]
    if not args.kind:
        raise UsageError("Delete what? KIND NAME, or -f FILE.")
    return [(target, args.namespace) for target in targets_or_main(args.kind, args.names)]
