"""The choices a person has when a server is started, the same for every spawner: what, and how large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

__all__ = ["DEFAULT_SIZE", "SIZES", "BadOptions", "Size", "choose_size", "options_from_form", "render_form"]

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
        Cores.
    memory
        Bytes. A workstation tells it to the server, which shows it; a cluster enforces it.
    """

    name: str
    title: str
    description: str
    cpu: float
    memory: int


SIZES: Final[Sequence[Size]] = (
    Size("small", "Small", "Notebooks that call models", 1, 1 * _GIB),
    Size("medium", "Medium", "Data that fits into memory a few times over", 2, 4 * _GIB),
    Size("large", "Large", "Training, large tables", 4, 16 * _GIB),
)
DEFAULT_SIZE: Final = "small"


def choose_size(options: Mapping[str, Any]) -> Size:
    """The size that a start's options ask for.

    Parameters
    ----------
    options
        ``{"size": "small"}``; nothing means the default.

    Raises
    ------
    BadOptions
        An option or a size that there isn't.
    """
    unknown = sorted(set(options) - {"size"})
    if unknown:
        raise BadOptions(f'There is no option "{unknown[0][:40]}". Options: size.')
    wanted = options.get("size", DEFAULT_SIZE)
    for size in SIZES:
        if size.name == wanted:
            return size
    raise BadOptions(f'size: "{str(wanted)[:40]}" is not among {", ".join(size.name for size in SIZES)}.')


def options_from_form(form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The options that a submitted form means.

    Raises
    ------
    BadOptions
        As `choose_size`.
    """
    # the Hub adds its own hidden fields
    options = {key: values[0] for key, values in form.items() if not key.startswith("_") and values}
    return {"size": choose_size(options).name}


def render_form(chosen: str | None = None) -> str:
    """The form in the Hub's own look (Bootstrap 5): one card for each size, the whole card is the label.

    Parameters
    ----------
    chosen
        The size that is marked: what the person had last.
    """
    names = {size.name for size in SIZES}
    marked = chosen if chosen in names else DEFAULT_SIZE
    cards = "\n".join(_card(size, checked=size.name == marked) for size in SIZES)
    return f"""
<fieldset>
  <legend class="h5">Jupyter</legend>
  <p class="text-body-secondary">How large should the server be? Models run beside it and don't count.</p>
  <div class="list-group">
{cards}
  </div>
</fieldset>
"""


def _card(size: Size, *, checked: bool) -> str:
    cores = f"{size.cpu:g} core{'s' if size.cpu != 1 else ''}"
    return f"""    <label class="list-group-item d-flex gap-3 align-items-center" for="size-{escape(size.name)}">
      <input class="form-check-input flex-shrink-0 m-0" type="radio" name="size" id="size-{escape(size.name)}"
             value="{escape(size.name)}"{" checked" if checked else ""} />
      <span class="flex-grow-1"><strong>{escape(size.title)}</strong><br />
        <small class="text-body-secondary">{escape(size.description)}</small></span>
      <span class="text-nowrap">{cores} · {size.memory // _GIB} GiB</span>
    </label>"""
