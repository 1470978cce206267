"""The choices of a start in a site's configuration: dictionaries, validated with messages about errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from llmos.resources.quantities import parse_quantity
from llmos_spawners.profiles.choices import NAME, SIZES, Gpu, Named, Profiles, ServerImage, SharedVolume, Size

__all__ = ["default_sizes", "read_profiles"]


def default_sizes() -> list[dict[str, Any]]:
    """Return LLMOS' default sizes in the format of a site's configuration."""
    keys = ("name", "title", "description", "cpu", "memory")
    return [{key: getattr(size, key) for key in keys} for size in SIZES]


def read_profiles(
    *,
    sizes: Sequence[Mapping[str, Any]] = (),
    images: Sequence[Mapping[str, Any]] = (),
    gpus: Sequence[Mapping[str, Any]] = (),
    volumes: Sequence[Mapping[str, Any]] = (),
    own_claims: bool = False,
) -> Profiles:
    """Return the choices that a site's configuration lists.

    Raises
    ------
    ValueError
        An entry is invalid; the message says which one and why.
    """
    return Profiles(
        sizes=_read(Size, "sizes", sizes) or SIZES,
        images=_read(ServerImage, "images", images),
        gpus=_read(Gpu, "gpus", gpus),
        volumes=_read(SharedVolume, "volumes", volumes),
        own_claims=own_claims,
    )


def _read(kind: type[Named], where: str, entries: Sequence[Mapping[str, Any]]) -> tuple[Named, ...]:
    known = {part.name for part in fields(kind)}
    made: list[Named] = []
    for index, entry in enumerate(entries):
        at = f"{where}[{index}]"
        if unknown := sorted(set(entry) - known):
            raise ValueError(f'{at} has no "{unknown[0]}". It has: {", ".join(sorted(known))}.')
        values = dict(entry)
        if not NAME.fullmatch(str(values.get("name", ""))):
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
