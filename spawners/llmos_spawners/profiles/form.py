"""The form for the choices of a start, in the style of the Hub's pages (Bootstrap 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from llmos.resources.quantities import format_bytes
from llmos_spawners.profiles.choices import Gpu, Profiles, ServerImage, Size

__all__ = ["render_form"]


def render_form(
    profiles: Profiles, chosen: Mapping[str, Any] | None = None, claims: Sequence[str] = (), notice: str = ""
) -> str:
    """Return the form as HTML.

    Parameters
    ----------
    profiles
        The available choices; without sizes, none can be chosen.
    chosen
        The options to preselect, such as those of the last start.
    claims
        The user's own volumes.
    notice
        A message above the form, such as why the last server ended.
    """
    had = dict(chosen or {})
    names = [size.name for size in profiles.sizes]  # a list: remembered options may be unhashable
    cards = ""
    if names:
        marked = had["size"] if had.get("size") in names else profiles.default_size
        cards = _sizes(
            "\n".join(_card(size, checked=size.name == marked, cores=profiles.cores) for size in profiles.sizes)
        )
    gpus = (Gpu("none", "No GPU", 0), *profiles.gpus)
    more = [
        _select("image", "Image", profiles.images, had.get("image")) if len(profiles.images) > 1 else "",
        _select("gpu", "GPU", gpus, had.get("gpu")) if profiles.gpus else "",
        _volumes(profiles, had.get("volumes"), claims),
    ]
    warning = f'<div class="alert alert-warning" role="alert">{escape(notice)}</div>\n' if notice else ""
    return f"\n{warning}{cards}{''.join(more)}"


def _sizes(cards: str) -> str:
    return f"""<fieldset>
  <legend class="h5">Jupyter</legend>
  <p class="text-body-secondary">How large should the server be? Models run beside it and don't count.</p>
  <div class="list-group">
{cards}
  </div>
</fieldset>
"""


def _volumes(profiles: Profiles, had: object, claims: Sequence[str]) -> str:
    marked = had if isinstance(had, list) else []
    boxes = [
        _checkbox(volume.name, volume.title, volume.mount, checked=volume.always or volume.name in marked)
        for volume in profiles.volumes
    ]
    boxes += [
        _checkbox(name, name, f"~/volumes/{name}", checked=name in marked) for name in claims if profiles.own_claims
    ]
    if not boxes:
        return ""
    return f"""<fieldset class="mt-3">
  <legend class="h6">Volumes</legend>
{chr(10).join(boxes)}
</fieldset>
"""


def _card(size: Size, *, checked: bool, cores: bool) -> str:
    processors = f"{size.cpu:g} core{'s' if size.cpu != 1 else ''} · " if cores else ""
    return f"""    <label class="list-group-item d-flex gap-3 align-items-center" for="size-{escape(size.name)}">
      <input class="form-check-input flex-shrink-0 m-0" type="radio" name="size" id="size-{escape(size.name)}"
             value="{escape(size.name)}"{" checked" if checked else ""} />
      <span class="flex-grow-1"><strong>{escape(size.title)}</strong><br />
        <small class="text-body-secondary">{escape(size.description)}</small></span>
      <span class="text-nowrap">{processors}{format_bytes(size.memory).replace(".0 ", " ")}</span>
    </label>"""


def _select(name: str, title: str, choices: Sequence[ServerImage] | Sequence[Gpu], chosen: object) -> str:
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
