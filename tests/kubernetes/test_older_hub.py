"""The parts that run in other people's Hubs, on the JupyterHub of Zero to JupyterHub's chart; they need no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = Path(__file__).parent / "images" / "jupyterhub5.txt"
HUB_SIDE = ("tests/unit/spawners", "tests/unit/hub", "tests/unit/accounts", "tests/unit/identity")
THE_PATH = ("tests/integration/test_path.py",)  # a real Hub, log-in, servers, models, and who they are for

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which JupyterHub 5.5 is found before the one that is installed."""
    place = tmp_path_factory.mktemp("jupyterhub5")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--target", place, "--requirement", LOCK], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": str(place)}


@pytest.mark.parametrize("tests", [HUB_SIDE, THE_PATH], ids=["hub-side", "the-path"])
def test_the_same_tests_pass_on_jupyterhub_5(older: dict[str, str], tests: tuple[str, ...]) -> None:
    found = "import jupyterhub; print(jupyterhub.version_info[:2])"
    done = subprocess.run(
        [sys.executable, "-c", found], env=older, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "(5, 5)\n"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, env=older, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
