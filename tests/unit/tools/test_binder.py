"""The files by which a BinderHub opens the repository."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell

from llmos.cli.parser import parse
from llmos_hub.app import build_parser
from llmos_hub.sources.demo import _DEMOS
from llmos_widgets import load_ipython_extension
from tools import bootstrap

ROOT = Path(__file__).parents[3]
BINDER = ROOT / "binder"
POST_BUILD = BINDER / "postBuild"
NOTEBOOK = BINDER / "try-llmos.ipynb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILTINS = {"cd", "export", "set", "trap"}


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((BINDER / "environment.yml").read_text())["dependencies"]


@pytest.fixture(scope="module")
def cells():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    load_ipython_extension(shell)
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


def test_its_python_is_one_that_llmos_runs_on(environment):
    (python,) = [words for words in environment if isinstance(words, str) and words.startswith("python=")]
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"]).group(1)
    assert int(re.fullmatch(r"python=3\.(\d+)", python).group(1)) >= int(least)


def test_the_package_comes_from_the_checkout_with_an_extra_that_exists(environment):
    (pip,) = [words["pip"] for words in environment if isinstance(words, dict)]
    for requirement in pip:
        place, extra = re.fullmatch(r"(\.\S*)\[(\w+)\]", requirement).groups()  # repo2docker takes ./ and ../ for local
        assert (BINDER / place).resolve() == ROOT
        assert "ipykernel" in {re.split("[<>=]", each)[0] for each in PROJECT["optional-dependencies"][extra]}


def test_post_build_can_be_run():
    assert os.access(POST_BUILD, os.X_OK)
    text = POST_BUILD.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", POST_BUILD], check=True)


def test_what_post_build_runs_exists():
    lines = [line for line in POST_BUILD.read_text().splitlines() if line and not line.startswith("#")]
    programs = [re.sub(r"^\w+=\$\(", "", line).split()[0] for line in lines]
    assert [name for name in programs if name not in BUILTINS and not shutil.which(name)] == []
    (command,) = [shlex.split(line) for line in lines if line.startswith("python3")]
    script, *options = command[2:]
    assert (ROOT / script).samefile(bootstrap.__file__)
    assert f"[{options[0]}]" in bootstrap.main.__doc__
    assert str(ROOT / ".venv-notebook") == bootstrap.NOTEBOOK
    assert "rm -rf .venv-notebook" in lines


def test_the_notebook_starts_and_stops_the_platform_that_post_build_installs(cells):
    commands = [shlex.split(line[1:]) for cell in cells for line in cell.splitlines() if line.startswith("!")]
    assert {(BINDER / program).resolve() for program, *_ in commands} == {Path(bootstrap.BIN, "llmos").resolve()}
    assert "llmos" in PROJECT["scripts"]
    up, down = (
        build_parser().parse_args([re.sub(r"^\{.*\}$", "8100", word) for word in words]) for _, *words in commands
    )
    assert (up.command, up.detach, up.port, up.gateway_port, down.command) == ("up", True, 8100, 8100, "down")


def test_its_ports_are_free_ones(cells, shell):
    code = "\n".join(line for line in cells[0].splitlines() if not line.startswith(("!", "%")))
    shell.run_cell(code).raise_error()
    assert 1024 <= shell.user_ns["free_port"]() < 65536


def test_its_magics_exist_and_understand_their_words(cells, shell):
    lines = [cell.splitlines()[0] for cell in cells if cell.startswith("%")]
    assert [line.split()[0] for line in lines] == ["%llmos", "%%chat", "%llmos"]
    for line in lines:
        name, *words = line.lstrip("%").split()
        assert shell.find_magic(name, "cell" if line.startswith("%%") else "line")
        if name == "llmos":
            parse(words)
        for word in words:
            if word.startswith("demo://"):
                assert word.removeprefix("demo://") in _DEMOS


def test_the_page_about_it_opens_this_notebook():
    page = (ROOT / "docs" / "how-to" / "try-on-binder.md").read_text()
    assert f"labpath={NOTEBOOK.relative_to(ROOT)}".replace("/", "%2F") in page
    assert json.loads(NOTEBOOK.read_text())["metadata"]["kernelspec"]["name"] == "python3"
