"""``volume://name/path``: a model in a volume of the service's namespace, used in place.

The volume is mounted where the variable ``LLMOS_MODEL_VOLUME`` says. Links inside the volume are fine, as in a copy of
a hub's cache; one that leads out is refused.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from llmos.errors import SourceFailed
from llmos.resources.modeluri import volume_of
from llmos_hub.sources import file
from llmos_hub.sources.base import ModelFiles, Reporter
from llmos_hub.sources.gguf_files import parts_of

__all__ = ["ENV_VOLUME", "fetch"]

ENV_VOLUME: Final = "LLMOS_MODEL_VOLUME"


def fetch(uri: str, directory: Path, report: Reporter) -> ModelFiles:
    """Check the file and read its header, as for ``file://``.

    Raises
    ------
    SourceFailed
        The file doesn't exist, can't be read, or is outside of the volume.
    Invalid
        It is not a GGUF model.
    """
    name, path = volume_of(uri) or ("", "")
    root = Path(os.environ.get(ENV_VOLUME, ""))
    if not root.is_absolute() or not root.is_dir():
        raise SourceFailed(f"The volume {name} isn't mounted here. Look with: llmos describe volume {name}")
    root = root.resolve()
    found = (root / path).resolve()
    if not all(each.resolve().is_relative_to(root) for each in (found, *parts_of(found))):
        raise SourceFailed(f"{path} leads out of the volume {name} over a link. Put the file itself there.")
    if not found.exists():
        raise SourceFailed(f"There is no {path} in the volume {name}. What there is shows: llmos volume ls {name}")
    if found.is_dir():
        models = sorted(each.name for each in found.glob("*.gguf"))[:5]
        hint = f"It holds: {', '.join(models)}." if models else "It holds no .gguf file."
        raise SourceFailed(f"{path} in the volume {name} is a directory; name the GGUF file in it. {hint}")
    return replace(file.fetch(f"file://{found}", directory, report), uri=uri)
