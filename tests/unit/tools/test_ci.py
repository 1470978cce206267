"""`.ci/run` names the tests that only passed when they were repeated."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAKE = """#!/bin/sh
case "$*" in
*ARGS=*) echo "PASSED tests/test_a.py::test_one[x y]"; [ -z "$BROKEN" ] || { echo "FAILED tests/test_b.py::test_two"; exit 1; } ;;
test) echo "FAILED tests/test_a.py::test_one[x y] - assert 1 == 2"; echo "ERROR tests/test_b.py::test_two - OSError"; exit 2 ;;
esac
"""
HEADING = "== Failed at first, passed when repeated\n"


@pytest.fixture
def checkout(tmp_path):
    """A directory with the script, and a `make` whose tests fail once."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "make").write_text(MAKE)
    (programs / "make").chmod(0o755)
    return tmp_path


def run(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "LLMOS_TEST_KUBECONFIG": "/none", **environment}
    return subprocess.run([checkout / ".ci" / "run"], env=variables, capture_output=True, text=True, check=False)


def test_what_passed_when_repeated_is_named_at_the_end(checkout):
    done = run(checkout)
    assert done.returncode == 0
    assert done.stdout.endswith(f"{HEADING}make test: tests/test_a.py::test_one[x y]\n")


def test_what_failed_again_is_not_and_the_run_fails(checkout):
    done = run(checkout, BROKEN="1")
    assert done.returncode == 1
    assert done.stdout.endswith(f"{HEADING}make test: tests/test_a.py::test_one[x y]\n")
    assert "make lint" not in done.stdout


def test_nothing_is_named_where_all_passed(checkout):
    (checkout / "bin" / "make").write_text("#!/bin/sh\n")
    done = run(checkout)
    assert (done.returncode, HEADING in done.stdout) == (0, False)
