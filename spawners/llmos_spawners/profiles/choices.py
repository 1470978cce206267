"""The choices at the start of a server, common to all spawners: its size, and in a cluster image, GPUs and volumes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

__all__ = [
    "DEFAULT_SIZE",
    "NAME",
    "SIZES",
    "BadOptions",
    "Gpu",
    "Profiles",
    "ServerImage",
    "SharedVolume",
    "Size",
    "StartChoices",
    "workstation",
]

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
"""Pattern of the names of sizes, images, GPUs and volumes."""

_GIB: Final = 1024**3


class BadOptions(ValueError):
    """An option or value of a start that doesn't exist; the message lists those that do."""


@dataclass(frozen=True, slots=True)
class Size:
    """A server's share of the machine.

    Attributes
    ----------
    name
        Name in options and URLs.
    title, description
        Text in the form.
    cpu
        Cores; on a workstation all servers share all of them.
    memory
        Bytes. A workstation stops a server that uses more, with a message; in a cluster it is the pod's limit.
    cpu_request, memory_request
        Requests of the pod in a cluster. The defaults are all of the memory, as it must be available when it is used,
        and a tenth of the cores, as notebooks mostly wait.
    """

    name: str
    title: str
    description: str
    cpu: float
    memory: int
    cpu_request: float | None = None
    memory_request: int | None = None


@dataclass(frozen=True, slots=True)
class ServerImage:
    """A container image of servers.

    Attributes
    ----------
    name, title, description
        As for sizes.
    image
        The image's reference: ``registry/llmos-notebook:0.1.0``.
    """

    name: str
    title: str
    image: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind and number of GPUs.

    Attributes
    ----------
    name, title, description
        As for sizes.
    count
        Number of GPUs.
    resource
        Name of the device plugin's resource.
    node_selector, tolerations
        Node selector and tolerations for the nodes that have these GPUs.
    runtime_class
        The runtime class for GPUs; empty if the default runtime supports them.
    """

    name: str
    title: str
    count: int = 1
    resource: str = "nvidia.com/gpu"
    description: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    runtime_class: str = ""


@dataclass(frozen=True, slots=True)
class SharedVolume:
    """A volume that users can mount, or that every server mounts (`always`).

    Attributes
    ----------
    name, title, description
        As for sizes.
    volume
        Its source as in a pod: ``{"persistentVolumeClaim": {"claimName": "data"}}``, ``{"nfs": {...}}``.
    mount
        The directory where it is mounted.
    read_only
        Mount it read-only.
    always
        Mount it in every server.
    """

    name: str
    title: str
    volume: dict[str, Any]
    mount: str
    description: str = ""
    read_only: bool = True
    always: bool = False


SIZES: Final[Sequence[Size]] = (
    Size("small", "Small", "Notebooks that call models", 1, 1 * _GIB),
    Size("medium", "Medium", "Data that fits into memory a few times over", 2, 4 * _GIB),
    Size("large", "Large", "Training, large tables", 4, 16 * _GIB),
)
DEFAULT_SIZE: Final = "small"

Named = TypeVar("Named", Size, ServerImage, Gpu, SharedVolume)


@dataclass(frozen=True, slots=True)
class StartChoices:
    """The choices for one start; `claims` are names of the user's own volumes."""

    size: Size
    image: ServerImage | None = None
    gpu: Gpu | None = None
    volumes: tuple[SharedVolume, ...] = ()
    claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profiles:
    """The available choices.

    Attributes
    ----------
    sizes, images, gpus, volumes
        Without options a server gets `default_size` and the first image. A server without a GPU is always possible.
    own_claims
        True if users can mount the claims of their namespace.
    preferred_size
        Name of the default size, if there is a size of that name.
    cores
        True if a size also limits the cores.
    """

    sizes: Sequence[Size] = SIZES
    images: Sequence[ServerImage] = ()
    gpus: Sequence[Gpu] = ()
    volumes: Sequence[SharedVolume] = ()
    own_claims: bool = False
    preferred_size: str = DEFAULT_SIZE
    cores: bool = True

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the available options."""
        offered = {"image": self.images, "gpu": self.gpus, "volumes": self.volumes or self.own_claims}
        return ("size", *(name for name, some in offered.items() if some))

    @property
    def default_size(self) -> str:
        """The name of the size of a server without options."""
        return next((size.name for size in self.sizes if size.name == self.preferred_size), self.sizes[0].name)

    def choose(self, options: Mapping[str, Any]) -> StartChoices:
        """Return the choices for a start's options.

        Parameters
        ----------
        options
            ``{"size": "small", "image": "r", "gpu": "a100", "volumes": ["data"]}``; a missing one means the default.

        Raises
        ------
        BadOptions
            An option or a value doesn't exist.
        """
        if unknown := sorted(set(options) - set(self.options)):
            raise BadOptions(f'There is no option "{unknown[0][:40]}". Options: {", ".join(self.options)}.')
        gpu = options.get("gpu", "none")
        wanted = options.get("volumes") or []
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise BadOptions(f'volumes: {str(wanted)[:40]} is not a list of names, such as ["data"].')
        shared = {volume.name: volume for volume in self.volumes}
        own = tuple(dict.fromkeys(name for name in wanted if name not in shared))
        for name in own:
            if not self.own_claims or not NAME.fullmatch(name):
                raise BadOptions(f'volumes: "{name[:40]}" is not among {", ".join(shared) or "those there are: none"}.')
        return StartChoices(
            size=_find("size", self.sizes, options.get("size", self.default_size)),
            image=_find("image", self.images, options.get("image", self.images[0].name)) if self.images else None,
            gpu=None if gpu == "none" or not self.gpus else _find("gpu", self.gpus, gpu, "none"),
            volumes=tuple(volume for volume in self.volumes if volume.always or volume.name in wanted),
            claims=own,
        )

    def from_form(self, form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return the options of a submitted form.

        Raises
        ------
        BadOptions
            An option or a value doesn't exist.
        """
        # names with an underscore are hidden fields of the Hub
        sent = {key: list(values) for key, values in form.items() if not key.startswith("_") and values}
        options: dict[str, Any] = {key: values if key == "volumes" else values[0] for key, values in sent.items()}
        choice = self.choose(options)
        return {**options, "size": choice.size.name}


def workstation(memory: int) -> Profiles:
    """Return the sizes of a workstation with this memory in bytes; the largest has at most all of it.

    The default is "medium", which has room for data, if it leaves at least half of the memory to others.
    """
    sizes = []
    for size in SIZES:
        sizes.append(replace(size, memory=min(size.memory, memory)))
        if size.memory >= memory:
            break
    roomy = [size.name for size in sizes[:2] if 2 * size.memory <= memory]
    return Profiles(sizes=tuple(sizes), preferred_size=roomy[-1] if roomy else sizes[0].name, cores=False)


def _find(option: str, choices: Sequence[Named], wanted: object, *more: str) -> Named:
    for choice in choices:
        if choice.name == wanted:
            return choice
    raise BadOptions(f'{option}: "{str(wanted)[:40]}" is not among {", ".join([*more, *(c.name for c in choices)])}.')
