"""Nodes as shown by ``nodes``."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.present.amounts import memory_of
from llmos.present.tables import Row, Table
from llmos.present.text import Tone
from llmos.resources import KINDS
from llmos.resources.node import Node

__all__ = ["node_table", "work_table"]

_WORDS = {
    "Server": ("server", "servers"),
    "Download": ("download", "downloads"),
    "System": ("of the system", "of the system"),
    "Other": ("other", "others"),
}


def _words(kind: str) -> tuple[str, str]:
    """Return the words for one and for several workloads of a kind."""
    if kind in KINDS and KINDS[kind].nouns[0]:
        return KINDS[kind].nouns
    return _WORDS.get(kind, (kind, kind))


def node_table(nodes: Sequence[Node]) -> Table:
    """Return a table with a row per node: capacity, free capacity and number of workloads."""
    headings = ["NAME", "ROLES", "STATE", "CPUS FREE", "MEMORY FREE", "GPUS FREE", "GPU", "RUNNING"]
    if not any(node.gpus for node in nodes):
        headings = [heading for heading in headings if not heading.startswith("GPU")]
    return Table(
        headings, [_row(node, headings) for node in nodes], "There are no nodes.", elastic=("RUNNING", "GPU", "NAME")
    )


def _row(node: Node, headings: Sequence[str]) -> Row:
    state = "Ready" if node.ready else "Cordoned" if node.message.startswith("Cordoned") else "NotReady"
    tone: Tone = "good" if node.ready else "bad"
    cells = {
        "NAME": node.name,
        "ROLES": ", ".join(node.roles),
        "STATE": state,
        "CPUS FREE": f"{node.cpus_free:g}/{node.cpus:g}",
        "MEMORY FREE": memory_of(node.memory_free, node.memory),
        "GPUS FREE": f"{node.gpus_free}/{node.gpus}" if node.gpus else "-",
        "GPU": node.gpu_type or "-",
        "RUNNING": _counted(node.counts),
    }
    return Row([cells[heading] for heading in headings], {"STATE": tone}, node.message)


def _counted(counts: dict[str, int]) -> str:
    """Return the numbers of workloads in words.

    >>> _counted({"Other": 2, "Server": 1, "System": 9})
    '1 server, 9 of the system, 2 others'
    """
    words = [
        f"{counts[kind]} {_words(kind)[counts[kind] != 1]}"
        for kind in sorted(counts, key=[*KINDS, *_WORDS, *counts].index)
        if counts[kind]
    ]
    return ", ".join(words) or "-"


def work_table(node: Node) -> Table:
    """Return a table with a row per workload on the node that the reader may see."""
    rows = [
        Row(
            [
                work.name,
                _words(work.kind)[0] if work.kind != "System" else "system",
                work.namespace,
                f"{work.cpus:g}" if work.cpus else "-",
                memory_of(work.memory, None) if work.memory else "-",
                str(work.gpus or "-"),
            ]
        )
        for work in node.running
    ]
    hidden = sum(node.counts.values()) - len(rows)
    empty = f"Nothing of yours runs on {node.name}." if hidden else f"Nothing runs on {node.name}."
    return Table(["NAME", "KIND", "NAMESPACE", "CPUS", "MEMORY", "GPUS"], rows, empty, elastic=("NAME", "NAMESPACE"))
