"""``stop``, ``start``, ``scale``, ``wait`` and ``set``: changes of an existing resource, and waiting for them."""

from __future__ import annotations

import argparse
from operator import attrgetter

from llmos.cli.common import Target, add_namespace, add_target, add_wait, suggesting, target_of
from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.cli.verbs.serve import add_spec_options, spec_options
from llmos.cli.waiting import wait_shown
from llmos.client._sync.client import Client
from llmos.client.serving import make_patch
from llmos.errors import UsageError
from llmos.resources import MAIN_KIND, Resource

__all__ = [
    "configure_scale",
    "configure_set",
    "configure_start",
    "configure_stop",
    "configure_wait",
    "run_scale",
    "run_set",
    "run_start",
    "run_stop",
    "run_wait",
]


_pausable = attrgetter("pausable")
_scalable = attrgetter("scalable")
_awaitable = attrgetter("phases")


def _add_timeout(parser: Parser) -> None:
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="maximum time to wait")


def configure_stop(parser: Parser) -> None:
    """Add the arguments of ``stop``."""
    add_target(parser, _pausable)
    add_namespace(parser)


def configure_start(parser: Parser) -> None:
    """Add the arguments of ``start``."""
    add_target(parser, _pausable)
    add_namespace(parser)
    add_wait(parser, until="ready")
    _add_timeout(parser)


def configure_scale(parser: Parser) -> None:
    """Add the arguments of ``scale``."""
    add_target(parser, _scalable)
    parser.add_argument("replicas", metavar="N", type=int, help="number of replicas")
    add_namespace(parser)
    add_wait(parser, until="ready", default=False)
    _add_timeout(parser)


def configure_wait(parser: Parser) -> None:
    """Add the arguments of ``wait``."""
    add_target(parser, _awaitable)
    add_namespace(parser)
    _add_timeout(parser)


def configure_set(parser: Parser) -> None:
    """Add the arguments of ``set``."""
    parser.add_argument("name", metavar="NAME", help="name of the model service")
    parser.add_argument("--model", metavar="MODEL", help="serve another model under this name")
    add_spec_options(parser)
    add_namespace(parser)
    add_wait(parser, until="ready", default=False)
    _add_timeout(parser)


def run_stop(client: Client, args: argparse.Namespace, output: Output) -> Resource:
    """Stop the processes of a resource but keep it."""
    target = target_of(args.name, _pausable, "can't be stopped")
    with suggesting(client, target, args.namespace):
        resource = client.collection(target.kind).stop(target.name, namespace=args.namespace)
    output.text(f"{target.name} is stopped. Start it again with: {output.hints.command} start {target.words}")
    return resource


def run_start(client: Client, args: argparse.Namespace, output: Output) -> Resource:
    """Start a stopped resource again."""
    target = target_of(args.name, _pausable, "can't be started")
    with suggesting(client, target, args.namespace):
        resource = client.collection(target.kind).start(target.name, namespace=args.namespace)
    return _end(client, resource, args, output, "is starting")


def run_scale(client: Client, args: argparse.Namespace, output: Output) -> Resource:
    """Set the number of replicas."""
    if args.replicas < 0:
        raise UsageError("The number of replicas can't be less than 0.")
    target = target_of(args.name, _scalable, "have no replicas")
    with suggesting(client, target, args.namespace):
        resource = client.collection(target.kind).scale(target.name, args.replicas, namespace=args.namespace)
    words = f"is going to {args.replicas} replica{'' if args.replicas == 1 else 's'}"
    return _end(client, resource, args, output, words)


def run_wait(client: Client, args: argparse.Namespace, output: Output) -> Resource:
    """Wait until a resource is ready."""
    target = target_of(args.name, _awaitable, "have no phases to wait for")
    with suggesting(client, target, args.namespace):
        return wait_shown(client, target.kind, target.name, output, namespace=args.namespace, timeout=args.timeout)


def run_set(client: Client, args: argparse.Namespace, output: Output) -> Resource:
    """Change some fields of a service's spec."""
    given = spec_options(args)
    if args.model:
        given["model"] = client.address_of(args.model)
    if not given:
        raise UsageError(f"Set what? For example: {output.hints.command} set {args.name} --memory 6Gi")
    target = Target(MAIN_KIND, args.name)
    with suggesting(client, target, args.namespace):
        patch = {"spec": make_patch(given)}
        resource = client.collection(target.kind).patch(target.name, patch, namespace=args.namespace)
    words = ", ".join(f"{key} {value}" for key, value in given.items() if key != "env")
    return _end(client, resource, args, output, f"is changing: {words or 'its environment'}")


def _end(client: Client, resource: Resource, args: argparse.Namespace, output: Output, words: str) -> Resource:
    target = Target(type(resource), resource.metadata.name)
    if args.wait:
        namespace = resource.metadata.namespace
        return wait_shown(client, target.kind, target.name, output, namespace=namespace, timeout=args.timeout)
    look = "ps" if target.kind is MAIN_KIND else f"get {target}"
    output.text(f"{target.name} {words}. Look with: {output.hints.command} {look}")
    return resource
