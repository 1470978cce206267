"""Export of images from a container engine on this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llmos.errors import BadRequest, Unsupported

__all__ = ["ENGINES", "export"]

ENGINES: Final = ("docker", "podman", "ctr", "k3s")
_TIMEOUT: Final = 30 * 60.0
"""Timeout in seconds for all images together: some gigabytes from a slow disk."""


def _command(engine: str, names: Sequence[str], platform: str, out: Path) -> list[str]:
    if engine == "docker":
        return ["docker", "save", "--output", str(out), *names]
    if engine == "podman":
        return ["podman", "save", "--multi-image-archive", "--format", "docker-archive", "--output", str(out), *names]
    ctr = ["k3s", "ctr"] if engine == "k3s" else ["ctr"]
    # ctr itself reads the path of its socket from CONTAINERD_ADDRESS
    return [*ctr, "--namespace", "k8s.io", "images", "export", "--platform", platform, str(out), *names]


def export(engine: str, names: Sequence[str], platform: str, out: Path) -> None:
    """Write images of the engine into an archive.

    Parameters
    ----------
    engine
        One of `ENGINES`.
    names
        The images' names in the engine.
    platform
        The platform to export, if the engine has an image for several.
    out
        The archive to write.

    Raises
    ------
    Unsupported
        The engine isn't installed.
    BadRequest
        The engine failed; the message quotes its output.
    """
    command = _command(engine, names, platform, out)
    if shutil.which(command[0]) is None:
        raise Unsupported(f"{command[0]} is not installed here. Give archives instead: --images FILE.tar")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise BadRequest(f"`{' '.join(command[:3])} …` took longer than {_TIMEOUT / 60:.0f} minutes.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise BadRequest(f"`{' '.join(command)}` failed: {' '.join(said)}")
