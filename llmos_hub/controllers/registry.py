"""The controllers of all kinds: each package beside this module contributes one as its ``SPEC``."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmos.resources import Resource
from llmos_hub import controllers
from llmos_hub.backends.base import Backend
from llmos_hub.controllers.layout import WorkloadContext
from llmos_hub.controllers.reconciler import Controller, Queueing, Reconciler, Reference
from llmos_hub.stores.base import Store
from llmos_hub.stores.informer import Key
from llmos_hub.volumes.base import NoVolumes, Volumes

if TYPE_CHECKING:  # not loaded on a workstation
    from llmos_hub.kubernetes.connection import KubernetesAPI
    from llmos_hub.managers.namespace_options import NamespaceOptions

__all__ = ["Cluster", "ClusterControllerSpec", "ControllerSpec", "Dependencies", "load_specs"]

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The parts of the process that a reconciler may use.

    Attributes
    ----------
    store, backend
        The store of resources and the backend of workloads; they write only while this process leads.
    workloads
        The context of workloads' processes.
    requeue
        Called with the key of a resource to reconcile again.
    volumes
        The provider of volumes.
    environ
        The process's environment, from which downloads get their variables.
    engine_secret
        The secret from which the keys of custom commands are derived; empty if they get none.
    """

    store: Store
    backend: Backend
    workloads: WorkloadContext
    requeue: Callable[[Key], None]
    volumes: Volumes = field(default_factory=NoVolumes)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    engine_secret: str = ""


@dataclass(frozen=True, slots=True)
class ControllerSpec(Generic[R]):
    """The controller of a kind.

    Attributes
    ----------
    kind
        The kind.
    make
        Makes the reconciler.
    references
        The other kinds to which resources of this kind refer.
    """

    kind: type[R]
    make: Callable[[Dependencies], Reconciler[R]]
    references: Sequence[Reference[R]] = ()

    @property
    def name(self) -> str:
        """The kind's name."""
        return self.kind.kind_name()


@dataclass(frozen=True, slots=True)
class Cluster:
    """The parts of the process that a controller of Kubernetes' own objects may use.

    Attributes
    ----------
    api
        The connection to the cluster.
    options
        The settings of namespaces.
    release
        The release's own namespace.
    leading
        Returns whether this process may write.
    """

    api: KubernetesAPI
    options: NamespaceOptions
    release: str
    leading: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ClusterControllerSpec:
    """The controller of a kind of Kubernetes' own objects, which runs in a cluster only.

    Attributes
    ----------
    name
        The kind.
    make
        Makes the controller.
    """

    name: str
    make: Callable[[Cluster, Queueing], Controller[Any]]


def load_specs() -> list[ControllerSpec[Any] | ClusterControllerSpec]:
    """Return the controllers of all kinds, sorted by the packages' names."""
    packages = sorted(module.name for module in pkgutil.iter_modules(controllers.__path__) if module.ispkg)
    return [importlib.import_module(f"{controllers.__name__}.{name}").SPEC for name in packages]
