"""The parameters and devices of the installed build of llama.cpp."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from llmos_hub.engines.llamacpp_arguments import Parameter
from llmos_hub.engines.machine import detect

__all__ = ["Build", "find_build", "gpu_summary"]

_TIMEOUT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Build:
    """The installed build of llama.cpp.

    Attributes
    ----------
    parameters
        Its parameters; None if it isn't installed here (in a cluster it is in the engine's image).
    devices
        The GPUs that it can compute on, by its own names.
    """

    parameters: Mapping[str, Parameter] | None = None
    devices: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def find_build() -> Build:
    """Return the installed build, which is queried once."""
    if importlib.util.find_spec("xllamacpp") is None:
        return Build()
    # in a separate process, so that llama.cpp's library isn't loaded into this one
    command = [sys.executable, "-I", "-m", "llmos_hub.engines.llamacpp_server", "--describe"]
    try:
        output = subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT).stdout
        data = json.loads(output)
    except (OSError, subprocess.SubprocessError, ValueError):
        return Build()
    parameters = {name: Parameter(kind, tuple(choices)) for name, (kind, *choices) in data["parameters"].items()}
    return Build(parameters, tuple(data["devices"]))


def gpu_summary(gpus: Sequence[str], build: Build) -> str:
    """Return the names of the GPUs, and how this build uses them or what to do if it can't; empty without a GPU.

    >>> gpu_summary(["NVIDIA L4", "NVIDIA L4"], Build({}, ("CUDA0", "CUDA1")))
    '2 × NVIDIA L4: llama.cpp computes on them (CUDA0, CUDA1)'
    """
    if not gpus:
        return ""
    names = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in Counter(gpus).items())
    if build.devices:
        return f"{names}: llama.cpp computes on {'it' if len(gpus) == 1 else 'them'} ({', '.join(build.devices)})"
    advice = "how to get one for GPUs: docs/how-to/use-gpus.md"
    return f"{names}: the installed build of llama.cpp computes on CPUs only; {advice}"


if __name__ == "__main__":  # for the supervisor, which imports as little as possible
    found = detect().gpus
    sys.stdout.write(gpu_summary(found, find_build()) if found else "")
