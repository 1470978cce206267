"""The platform's images in the cluster of the tests: built and imported where it is ours, else where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.cluster import Cluster, ClusterMissing

__all__ = ["image", "require_images"]

BUILD = Path(__file__).parents[1] / "kubernetes" / "images" / "build.py"
TAG = "0.1.0-test"
_TIMEOUT = 30 * 60.0  # seconds; three minutes with nothing cached


def image(name: str) -> str:
    """The reference of an image: ``hub``, ``notebook``, ``engine-cpu``.

    ``LLMOS_TEST_IMAGES`` says where another cluster finds them: ``registry.example.org/llmos/`` is put before
    ``llmos-hub:0.1.0-test``.
    """
    return f"{os.environ.get('LLMOS_TEST_IMAGES') or 'registry.local/'}llmos-{name}:{TAG}"


def require_images(cluster: Cluster, *names: str) -> None:
    """See to it that the cluster has them; quick where nothing has changed.

    Raises
    ------
    ClusterMissing
        They can't be built here.
    """
    if cluster.directory is None:
        return
    environment = {**os.environ, "TESTCLUSTER_DIR": str(cluster.directory)}
    done = subprocess.run(
        [sys.executable, str(BUILD), *names],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise ClusterMissing(f"The images can't be built:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
