"""The choices a person has when a server is started, the same for every spawner: how large, and in a cluster the
image, GPUs and volumes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from html import escape
from typing import Any, Final, TypeVar

from llmos.resources.quantities import format_bytes, parse_quantity

__all__ = [
    "DEFAULT_SIZE",
    "SIZES",
    "WORKSTATION",
    "BadOptions",
    "Choice",
    "Gpu",
    "Image",
    "Profiles",
    "SharedVolume",
    "Size",
    "choose_size",
    "options_from_form",
    "render_form",
]

_GIB: Final = 1024**3
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


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
        Cores.
    memory
        Bytes. A workstation tells it to the server, which shows it; a cluster enforces it.
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

_Named = TypeVar("_Named", Size, Image, Gpu, SharedVolume)


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
        The first of sizes and of images is what a person gets who says nothing; no GPU is always possible.
    own_claims
        Whether people can mount claims of their namespace.
    """

    sizes: Sequence[Size] = SIZES
    images: Sequence[Image] = ()
    gpus: Sequence[Gpu] = ()
    volumes: Sequence[SharedVolume] = ()
    own_claims: bool = False

    @classmethod
    def from_config(
        cls,
        *,
        sizes: Sequence[Mapping[str, Any]] = (),
        images: Sequence[Mapping[str, Any]] = (),
        gpus: Sequence[Mapping[str, Any]] = (),
        volumes: Sequence[Mapping[str, Any]] = (),
        own_claims: bool = False,
    ) -> Profiles:
        """The choices that a site's configuration lists.

        Raises
        ------
        ValueError
            An entry can't be read; the message says which and why.
        """
        return cls(
            sizes=_read(Size, "sizes", sizes) or SIZES,
            images=_read(Image, "images", images),
            gpus=_read(Gpu, "gpus", gpus),
            volumes=_read(SharedVolume, "volumes", volumes),
            own_claims=own_claims,
        )

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that there are."""
        offered = {"image": self.images, "gpu": self.gpus, "volumes": self.volumes or self.own_claims}
        return ("size", *(name for name, some in offered.items() if some))

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
        default = next((size.name for size in self.sizes if size.name == DEFAULT_SIZE), self.sizes[0].name)
        gpu = options.get("gpu", "none")
        wanted = options.get("volumes") or []
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise BadOptions(f'volumes: {str(wanted)[:40]} is not a list of names, such as ["data"].')
        shared = {volume.name: volume for volume in self.volumes}
        own = tuple(dict.fromkeys(name for name in wanted if name not in shared))
        for name in own:
            if not self.own_claims or not _NAME.fullmatch(name):
                raise BadOptions(f'volumes: "{name[:40]}" is not among {", ".join(shared) or "those there are: none"}.')
        return Choice(
            size=_find("size", self.sizes, options.get("size", default)),
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

    def render(self, chosen: Mapping[str, Any] | None = None, claims: Sequence[str] = ()) -> str:
        """The form in the Hub's own look (Bootstrap 5).

        Parameters
        ----------
        chosen
            The options of the last start, which are marked.
        claims
            The person's own volumes.
        """
        had = dict(chosen or {})
        names = {size.name for size in self.sizes}
        marked = had.get("size") if had.get("size") in names else None
        marked = marked or (DEFAULT_SIZE if DEFAULT_SIZE in names else self.sizes[0].name)
        cards = "\n".join(_card(size, checked=size.name == marked) for size in self.sizes)
        more = [
            _select("image", "Image", self.images, had.get("image")) if len(self.images) > 1 else "",
            _select("gpu", "GPU", (Gpu("none", "No GPU", 0), *self.gpus), had.get("gpu")) if self.gpus else "",
            self._checkboxes(had.get("volumes"), claims),
        ]
        return f"""
<fieldset>
  <legend class="h5">Jupyter</legend>
  <p class="text-body-secondary">How large should the server be? Models run beside it and don't count.</p>
  <div class="list-group">
{cards}
  </div>
</fieldset>
{"".join(more)}"""

    def _checkboxes(self, had: object, claims: Sequence[str]) -> str:
        marked = had if isinstance(had, list) else []
        boxes = [
            _checkbox(volume.name, volume.title, volume.mount, checked=volume.always or volume.name in marked)
            for volume in self.volumes
        ]
        boxes += [
            _checkbox(name, name, f"~/volumes/{name}", checked=name in marked) for name in claims if self.own_claims
        ]
        if not boxes:
            return ""
        return f"""<fieldset class="mt-3">
  <legend class="h6">Volumes</legend>
{chr(10).join(boxes)}
</fieldset>
"""


WORKSTATION: Final = Profiles()
"""A workstation's: sizes."""


def choose_size(options: Mapping[str, Any]) -> Size:
    """The size that a start's options ask for, on a workstation.

    Raises
    ------
    BadOptions
        An option or a size that there isn't.
    """
    return WORKSTATION.choose(options).size


def options_from_form(form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The options that a submitted form means, on a workstation.

    Raises
    ------
    BadOptions
        As `choose_size`.
    """
    return WORKSTATION.from_form(form)


def render_form(chosen: str | None = None) -> str:
    """The workstation's form; `chosen` is the size that the person had last."""
    return WORKSTATION.render({"size": chosen})


def _find(option: str, choices: Sequence[_Named], wanted: object, *more: str) -> _Named:
    for choice in choices:
        if choice.name == wanted:
            return choice
    raise BadOptions(f'{option}: "{str(wanted)[:40]}" is not among {", ".join([*more, *(c.name for c in choices)])}.')


def _read(kind: type[_Named], where: str, entries: Sequence[Mapping[str, Any]]) -> tuple[_Named, ...]:
    known = {part.name for part in fields(kind)}
    made: list[_Named] = []
    for index, entry in enumerate(entries):
        at = f"{where}[{index}]"
        if unknown := sorted(set(entry) - known):
            raise ValueError(f'{at} has no "{unknown[0]}". It has: {", ".join(sorted(known))}.')
        values = dict(entry)
        if not _NAME.fullmatch(str(values.get("name", ""))):
            raise ValueError(
                f'{at}.name: "{str(values.get("name", ""))[:40]}" is not lower-case letters, digits and -.'
            )
        values.setdefault("title", values["name"])
        if kind is Size:
            values.setdefault("description", "")
        for key in {"cpu", "memory", "cpu_request", "memory_request"} & set(values):
            values[key] = _amount(f"{at}.{key}", values[key], whole=key.startswith("memory"))
        try:
            made.append(kind(**values))
        except TypeError:
            missing = [part for part in ("cpu", "memory", "image", "volume", "mount") if part in known - set(values)]
            raise ValueError(f"{at} ({values['name']}) lacks {', '.join(missing)}.") from None
    names = [one.name for one in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f'{where} has two of the name "{twice[0]}".')
    return tuple(made)


def _amount(where: str, value: object, *, whole: bool) -> float | int:
    try:
        number = parse_quantity(str(value))
    except ValueError as exc:
        raise ValueError(f"{where}: {exc}") from None
    return int(number) if whole else float(number)


def _card(size: Size, *, checked: bool) -> str:
    cores = f"{size.cpu:g} core{'s' if size.cpu != 1 else ''}"
    return f"""    <label class="list-group-item d-flex gap-3 align-items-center" for="size-{escape(size.name)}">
      <input class="form-check-input flex-shrink-0 m-0" type="radio" name="size" id="size-{escape(size.name)}"
             value="{escape(size.name)}"{" checked" if checked else ""} />
      <span class="flex-grow-1"><strong>{escape(size.title)}</strong><br />
        <small class="text-body-secondary">{escape(size.description)}</small></span>
      <span class="text-nowrap">{cores} · {format_bytes(size.memory)}</span>
    </label>"""


def _select(name: str, title: str, choices: Sequence[Image] | Sequence[Gpu], chosen: object) -> str:
    options = "\n".join(
        f'    <option value="{escape(choice.name)}"{" selected" if choice.name == chosen else ""}>'
        f"{escape(choice.title)}{' · ' + escape(choice.description) if choice.description else ''}</option>"
        for choice in choices
    )
    return f"""<div class="mt-3">
  <label class="form-label h6" for="{name}">{title}</label>
  <select class="form-select" name="{name}" id="{name}">
{options}
  </select>
</div>
"""


def _checkbox(name: str, title: str, where: str, *, checked: bool) -> str:
    return f"""  <div class="form-check">
    <input class="form-check-input" type="checkbox" name="volumes" id="volume-{escape(name)}"
           value="{escape(name)}"{" checked" if checked else ""} />
    <label class="form-check-label" for="volume-{escape(name)}">{escape(title)}
      <small class="text-body-secondary">{escape(where)}</small></label>
  </div>"""
