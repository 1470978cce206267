"""Every package that is imported is declared in `pyproject.toml`, so that none comes in only because another needs it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[3]
OWN = {"llmos", "llmos_hub", "llmos_server_ext", "llmos_widgets", "llmos_spawners", "tests", "tools"}
OPTIONAL = {"pandas"}
"""What a person may have: its absence is told in words."""


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {_normal(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in lines}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared() -> None:
    distributions, declared = packages_distributions(), _declared()
    missing = {
        f"{module} in {path.relative_to(ROOT)}"
        for folder in ("llmos", "llmos_hub", "llmos_server_ext", "llmos_widgets", "spawners", "tools", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for module in _imports(path)
        if module not in sys.stdlib_module_names | OWN | OPTIONAL
        and not (path.parent / f"{module}.py").exists()  # a module beside a program
        and not declared & {_normal(name) for name in distributions.get(module, [module])}
    }
    assert missing == set()
