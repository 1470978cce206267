"""The place of model files for the processes that use them, on this machine or in pods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmos.resources import ModelService
from llmos_hub.names import DataDir

__all__ = ["Layout", "cluster_layout", "local_layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The file layout that a workload's process finds.

    The interpreter is not part of it: the backend replaces this process's own in a command by the image's.

    Attributes
    ----------
    models
        The directory of model files.
    per_namespace
        True if each namespace has its own volume there, under the same path. Otherwise all share one directory,
        except for models fetched with a Credential.
    visible
        True if the controllers can read the files, too.
    """

    models: Path
    per_namespace: bool
    visible: bool

    def directory(self, service: ModelService) -> Path:
        """Return the cache directory of a service's model."""
        if self.per_namespace:
            return self.models
        if service.spec.credential_ref is None:
            return self.models / "shared"
        return self.models / "private" / (service.metadata.namespace or "")


def local_layout(data_dir: DataDir) -> Layout:
    """Return the layout in the data directory."""
    return Layout(data_dir.models, per_namespace=False, visible=True)


def cluster_layout(models: Path) -> Layout:
    """Return the layout in pods: the volume of their namespace, mounted at `models`."""
    return Layout(models, per_namespace=True, visible=False)
