"""The choices a person has when a server is started, the same for every spawner: how large, and in a cluster the
image, GPUs and volumes.
"""

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
    "Choice",
    "Gpu",
    "Image",
    "Profiles",
    "SharedVolume",
    "Size",
    "workstation",
]

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
"""What sizes, images, GPUs and volumes may be called."""

_GIB: Final = 1024**3


class BadOptions(ValueError):
    """The options of a start are not among those there are; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of the machine a server may count on.

    Attributes
    ----------
    name
        In options and URLs.
    title, description
        What people see.
    cpu
        Cores; on a workstation all servers share all of them.
    memory
        Bytes. A server that uses more is stopped on a workstation, with words; a cluster enforces it.
    cpu_request, memory_request
        What a cluster sets aside. By default all of the memory, since what was promised has to be there, and a
        tenth of the cores, since notebooks mostly wait.
    """

    name: str
    title: str
    description: str
    cpu: float
    memory: int
    cpu_request: float | None = None
    memory_request: int | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """What a server runs in.

    Attributes
    ----------
    name, title, description
        As for sizes.
    image
        The reference: ``registry/llmos-notebook:0.1.0``.
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
        How many.
    resource
        What the device plugin calls them.
    node_selector, tolerations
        Which nodes have them, and what keeps others off those.
    runtime_class
        The container runtime that passes them on; empty where the default one does.
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
    """A volume that people may mount, or (`always`) have mounted.

    Attributes
    ----------
    name, title, description
        As for sizes.
    volume
        Where its data is, as in a pod: ``{"persistentVolumeClaim": {"claimName": "data"}}``, ``{"nfs": {...}}``.
    mount
        The directory.
    read_only
        Whether it can't be written.
    always
        Whether every server has it.
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

Named = TypeVar("Named", Size, Image, Gpu, SharedVolume)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a start; `claims` are a person's own volumes by name."""

    size: Size
    image: Image | None = None
    gpu: Gpu | None = None
    volumes: tuple[SharedVolume, ...] = ()
    claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profiles:
    """All that can be chosen.

    Attributes
    ----------
    sizes, images, gpus, volumes
        Who says nothing gets `default_size` and the first image; no GPU is always possible.
    own_claims
        Whether people can mount claims of their namespace.
    preferred_size
        The name of what is started where nothing is said, if there is such a size.
    cores
        Whether a size bounds the cores as well.
    """

    sizes: Sequence[Size] = SIZES
    images: Sequence[Image] = ()
    gpus: Sequence[Gpu] = ()
    volumes: Sequence[SharedVolume] = ()
    own_claims: bool = False
    preferred_size: str = DEFAULT_SIZE
    cores: bool = True

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that there are."""
        offered = {"image": self.images, "gpu": self.gpus, "volumes": self.volumes or self.own_claims}
        return ("size", *(name for name, some in offered.items() if some))

    @property
    def default_size(self) -> str:
        """The name of what is started where nothing is said."""
        return next((size.name for size in self.sizes if size.name == self.preferred_size), self.sizes[0].name)

    def choose(self, options: Mapping[str, Any]) -> Choice:
        """What a start's options ask for.

        Parameters
        ----------
        options
            ``{"size": "small", "image": "r", "gpu": "a100", "volumes": ["data"]}``; nothing means the default.

        Raises
        ------
        BadOptions
            An option or a value that there isn't.
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
        return Choice(
            size=_find("size", self.sizes, options.get("size", self.default_size)),
            image=_find("image", self.images, options.get("image", self.images[0].name)) if self.images else None,
            gpu=None if gpu == "none" or not self.gpus else _find("gpu", self.gpus, gpu, "none"),
            volumes=tuple(volume for volume in self.volumes if volume.always or volume.name in wanted),
            claims=own,
        )

    def from_form(self, form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """The options that a submitted form means.

        Raises
        ------
        BadOptions
            As `choose`.
        """
        # the Hub adds its own hidden fields
        sent = {key: list(values) for key, values in form.items() if not key.startswith("_") and values}
        options: dict[str, Any] = {key: values if key == "volumes" else values[0] for key, values in sent.items()}
        choice = self.choose(options)
        return {**options, "size": choice.size.name}


def workstation(memory: int) -> Profiles:
    """A workstation's choices: how much of its memory, in bytes; the largest is at most all of it.

    Who says nothing gets a size that data fits into, where that leaves at least as much for others.
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
