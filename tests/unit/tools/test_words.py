"""Words of the code that no linter checks: beginnings of docstrings, and names of classes."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("llmos", "llmos_hub", "llmos_server_ext", "llmos_widgets", "spawners")
FOLDERS = (*PACKAGES, "helm", "tools", "tests")
RIDDLE = re.compile(r"(What|Whether|Where|How|Who)\b")
TWO_SIDES = {"Event", "Listing", "WatchEvent"}
"""Classes of one meaning on both sides of the wire, which can't share them: the client doesn't import the control plane."""


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules in folders, without those that are generated."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_sync" not in path.parts:
                yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_no_docstring_begins_like_a_question() -> None:
    found = [
        f"{path}:{node.lineno}: {node.value.value[:60]}"
        for path, tree in trees(*FOLDERS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str) and RIDDLE.match(node.value.value)
    ]
    assert found == []


def test_a_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees(*PACKAGES):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in TWO_SIDES} == {}
