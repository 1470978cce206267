"""The platform's images by their names in the test cluster."""

from __future__ import annotations

import os

__all__ = ["REGISTRY", "TAG", "image"]

REGISTRY = (os.environ.get("LLMOS_TEST_IMAGES") or "registry.local").rstrip("/")
"""Registry of the test cluster; ``LLMOS_TEST_IMAGES`` names another, such as ``registry.example.org/llmos``."""
TAG = "0.1.0-test"


def image(name: str) -> str:
    """Return the reference of an image: ``hub``, ``notebook``, ``engine-cpu``, ``hub-5``."""
    return f"{REGISTRY}/llmos-{name}:{TAG}"
