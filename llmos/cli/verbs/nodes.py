"""``nodes``: the nodes with their free capacity."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llmos.cli.output import Output
from llmos.cli.parser import Parser
from llmos.client._sync.client import Client
from llmos.errors import NotFound
from llmos.present.nodes import node_table, work_table
from llmos.present.resources import as_json
from llmos.present.text import did_you_mean
from llmos.resources.node import Node

__all__ = ["configure_nodes", "run_nodes"]


def configure_nodes(parser: Parser) -> None:
    """Add the arguments of ``nodes``."""
    parser.add_argument("node", metavar="NAME", nargs="?", help="only this node, with its workloads")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_nodes(client: Client, args: argparse.Namespace, output: Output) -> Sequence[Node]:
    """Show all nodes, or one node with its workloads."""
    nodes = client.nodes()
    if args.node is not None:
        nodes = [node for node in nodes if node.name == args.node] or _unknown(args.node, nodes)
    if args.json:
        output.text(as_json([node.model_dump(mode="json", by_alias=True) for node in nodes]))
        return nodes
    output.show(node_table(nodes))
    for node in nodes if args.node is not None else ():
        output.show(work_table(node))
        hidden = sum(node.counts.values()) - len(node.running)
        if node.running and hidden:
            output.footer(f"and {hidden} more that are not yours")
    return nodes


def _unknown(name: str, nodes: Sequence[Node]) -> list[Node]:
    names = [node.name for node in nodes]
    hint = did_you_mean(name, names) or f" There {'is' if len(names) == 1 else 'are'}: {', '.join(names)}."
    raise NotFound(f'There is no node "{name[:80]}".{hint}')
