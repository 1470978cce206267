"""A check of the package index, for tests that need a model from it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmos_hub.sources.wheels import pip_environment

__all__ = ["require_project"]


def require_project(project: str) -> None:
    """Skip the test unless the configured package index is reachable and has the project."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--retries", "0", "--timeout", "5", project]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=pip_environment())
    if done.returncode != 0:
        pytest.skip(f"no package index with {project} can be reached: {done.stderr[-300:]}")
