"""Kubernetes' quantities: ``500m`` of a CPU, ``2Gi`` of memory.

The notation is Kubernetes' own
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/), so that a spec
means the same on a workstation and in a cluster. What people type instead (``2GiB``, ``2 GB``) is
refused with the spelling that was probably meant.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = ["CPU", "Memory", "format_bytes", "parse_quantity"]

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}
_PATTERN = r"^(\d{1,15}(?:\.\d{1,9})?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_QUANTITY = re.compile(_PATTERN)
_MEANT = re.compile(r"^\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kKmMgGtTpP])?\s*(i)?\s*([bB](?:ytes?)?)?\s*$")


def _suggestion(text: str) -> str:
    found = _MEANT.match(text)
    if not found:
        return "Write a number and a unit, such as 2Gi or 512Mi."
    number, prefix, binary, _ = found.groups()
    if prefix is None:
        return f'Did you mean "{number}"?'
    unit = prefix.upper() + "i"
    if not binary and prefix.lower() != "k":
        return f'Did you mean "{number}{unit}" (binary) or "{number}{prefix.upper()}" (decimal)?'
    return f'Did you mean "{number}{unit}"?'


def parse_quantity(text: str) -> Decimal:
    """The number that a quantity stands for: bytes, or CPUs.

    Raises
    ------
    ValueError
        The text is not a quantity; the message suggests one.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        message = f'"{text[:40]}" is not a quantity. {_suggestion(text)}'
        raise ValueError(message)
    return Decimal(found[1]) * _FACTORS[found[2] or ""]


def _as_text(value: object) -> object:
    """Accept ``2`` and ``0.5`` as YAML reads them."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)).normalize(), "f")
    return value


def _positive(text: str) -> str:
    if parse_quantity(text) <= 0:
        message = f'"{text}" is not more than zero.'
        raise ValueError(message)
    return text


def _whole_bytes(text: str) -> str:
    _positive(text)
    if parse_quantity(text) < 1024 * 1024:
        message = f'"{text}" is {text} bytes, less than 1Mi. Did you forget the unit, as in "{text.rstrip("mkK")}Gi"?'
        raise ValueError(message)
    return text


CPU = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_positive),
    Field(json_schema_extra={"pattern": _PATTERN, "x-kubernetes-int-or-string": True}, examples=["500m", "2"]),
]
"""A number of CPUs: ``2``, ``0.5`` or ``500m``."""

Memory = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_whole_bytes),
    Field(json_schema_extra={"pattern": _PATTERN, "x-kubernetes-int-or-string": True}, examples=["512Mi", "4Gi"]),
]
"""An amount of memory in bytes: ``512Mi``, ``4Gi``."""


def format_bytes(count: float, *, binary: bool = True) -> str:
    """A size for people: GiB for memory (``binary``), GB for files.

    >>> format_bytes(2.5 * 2**30), format_bytes(92_871_040, binary=False)
    ('2.5 GiB', '93 MB')
    """
    step, units = (1024, ("B", "KiB", "MiB", "GiB", "TiB")) if binary else (1000, ("B", "kB", "MB", "GB", "TB"))
    value, unit = float(count), units[0]
    for unit in units:
        if abs(value) < step or unit == units[-1]:
            break
        value /= step
    digits = 0 if unit == units[0] or value >= 10 else 1
    return f"{value:.{digits}f} {unit}"
