"""`.ci/run` runs each tier once, and what fails fails the run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAKE = """#!/bin/sh
echo "$*" >>called
if [ "$*" = "$BROKEN" ]; then echo "FAILED tests/test_a.py::test_one - assert 1 == 2"; exit 2; fi
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the script, and a `make` that notes how it is called."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "make").write_text(MAKE)
    (programs / "make").chmod(0o755)
    return tmp_path


def run(checkout: Path, broken: str = "", *, cluster: str = "/none") -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "LLMOS_TEST_KUBECONFIG": cluster, "BROKEN": broken}
    return subprocess.run([checkout / ".ci" / "run"], env=variables, capture_output=True, text=True, check=False)


def test_each_tier_runs_once(checkout: Path) -> None:
    assert run(checkout).returncode == 0
    called = (checkout / "called").read_text().splitlines()
    assert called[0] == "test"
    assert sorted(called) == ["lint", "test", "test-browser", "test-kubernetes"]
    assert called[-1] == "test-kubernetes"


@pytest.mark.parametrize(
    ("broken", "never"),
    [
        ("test", {"lint", "test-browser", "test-kubernetes"}),
        ("lint", {"test-kubernetes"}),
        ("test-browser", {"test-kubernetes"}),
        ("test-kubernetes", set()),
    ],
)
def test_what_fails_is_said_and_not_tried_again(checkout: Path, broken: str, never: set[str]) -> None:
    done = run(checkout, broken)
    assert done.returncode
    assert "FAILED tests/test_a.py::test_one - assert 1 == 2" in done.stdout
    called = (checkout / "called").read_text().splitlines()
    assert called.count(broken) == 1
    assert not never & set(called)


@pytest.fixture
def root_with_go(checkout: Path) -> Path:
    """The checkout, where a cluster of our own can be built."""
    for name, said in (("id", "0"), ("go", "")):
        program = checkout / "bin" / name
        program.write_text(f"#!/bin/sh\necho {said}\n")
        program.chmod(0o755)
    return checkout


def test_a_cluster_of_our_own_is_built_before_its_tests(root_with_go: Path) -> None:
    assert run(root_with_go, cluster="").returncode == 0
    called = (root_with_go / "called").read_text().splitlines()
    assert sorted(called) == ["lint", "test", "test-browser", "test-kubernetes", "test-kubernetes-build"]
    assert called[-1] == "test-kubernetes"


def test_a_cluster_that_can_not_be_built_fails_the_run(root_with_go: Path) -> None:
    done = run(root_with_go, "test-kubernetes-build", cluster="")
    assert done.returncode
    assert "== make test-kubernetes-build\nFAILED" in done.stdout
    assert "test-kubernetes" not in (root_with_go / "called").read_text().splitlines()
