"""Kubernetes' quantities: ``500m`` of a CPU, ``2Gi`` of memory.

The notation is Kubernetes' own
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/), so that a spec means the same on a
workstation and on a cluster. Other common notations (``2GiB``, ``2 GB``) are rejected with a suggestion.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from llmos.resources import cel

__all__ = ["CPU", "Memory", "Storage", "format_bytes", "parse_quantity"]

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
_MEANT = re.compile(r"^\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kKmMgGtTpP])?\s*([iI])?\s*([bB](?:[yY][tT][eE][sS]?)?)?\s*$")

_UNIT: Final = r"(?i)\d *[kmgtp]"
_LONG: Final = 20  # characters; a longer text gets no suggestion


def _suggestion(text: str) -> str:
    found = _MEANT.match(text)
    if not found or len(text) >= _LONG:
        return "Write a number and a unit, such as 2Gi or 512Mi."
    number, prefix, binary, _ = found.groups()
    if prefix is None:
        return f'Did you mean "{number}"?'
    unit = prefix.upper() + "i"
    if not binary and prefix.lower() != "k":
        return f'Did you mean "{number}{unit}" (binary) or "{number}{prefix.upper()}" (decimal)?'
    return f'Did you mean "{number}{unit}"?'


def parse_quantity(text: str) -> Decimal:
    """Return the number that a quantity stands for: bytes or CPUs.

    Raises
    ------
    ValueError
        The text is not a quantity; the message has a suggestion.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f'"{text[:40]}" is not a quantity. {_suggestion(text)}')
    return Decimal(found[1]) * _FACTORS[found[2] or ""]


def _as_text(value: object) -> object:
    """Convert ``2`` and ``0.5``, which YAML reads as numbers, into a string."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)).normalize(), "f")
    return value


def _positive(text: str) -> str:
    if parse_quantity(text) <= 0:
        raise ValueError(f'"{text}" is not more than zero.')
    return text


def _whole_bytes(text: str) -> str:
    _positive(text)
    if parse_quantity(text) < 1024 * 1024:
        number = text.rstrip("mkKi")
        raise ValueError(f'"{text}" is less than 1Mi. Did you forget the unit, as in "{number}Gi"?')
    return text


def _rules(*more: dict[str, str]) -> dict[str, Any]:
    """Return the rules for a cluster's API server, which accepts numbers and strings."""
    # Shorter expressions are preferred to clearer ones: the server estimates their cost for the longest string that
    # fits into a request, and rejects rules that could take too long.
    number, unit = "self.find('[0-9.]+')", "self.find('[kKmMgGtTpP]').upperAscii()"
    meant = (
        f"!self.matches({cel.text(_UNIT)}) ? 'Did you mean \"%s\"?'.format([{number}]) : "
        f"self.matches('(?i)k|[a-z ]i') ? 'Did you mean \"%s%si\"?'.format([{number}, {unit}]) : "
        f'\'Did you mean "%s%si" (binary) or "%s%s" (decimal)?\'.format([{number}, {unit}, {number}, {unit}])'
    )
    likely = f"self.size() < {_LONG} && self.matches('(?i)^[ 0-9.]+[kmgtp]?[ i]*b?(ytes?)? *$')"
    return cel.validations(
        cel.rule(
            "type(self) != int || self > 0",
            says="self < 0 ? '\"%d\" is not a quantity. Write a number and a unit, such as 2Gi or 512Mi.'.format([self]) : "
            "'\"0\" is not more than zero.'",
        ),
        cel.rule(
            f"type(self) == int || self.matches({cel.text(_PATTERN)})",
            says=f"'\"%s\" is not a quantity. %s'.format([{cel.cut('self', 40)}, "
            f"{likely} ? ({meant}) : 'Write a number and a unit, such as 2Gi or 512Mi.'])",
        ),
        cel.rule(
            "type(self) == int || !self.matches('^0+([.]0+)?[a-zA-Z]*$')",
            says=f"{cel.quoted('self', 40)} + ' is not more than zero.'",
        ),
        *more,
        **{"x-kubernetes-int-or-string": True, "pattern": _PATTERN},
    )


_LEAST: Final = cel.rule(
    "!isQuantity(string(self)) || !quantity(string(self)).isLessThan(quantity('1Mi')) || "
    "!quantity(string(self)).isGreaterThan(quantity('0'))",
    says='\'"%s" is less than 1Mi. Did you forget the unit, as in "%sGi"?\''
    ".format([string(self), string(self).find('[0-9.]+')])",
)

CPU = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_positive),
    Field(json_schema_extra=_rules(), examples=["500m", "2"]),
]
"""A number of CPUs: ``2``, ``0.5`` or ``500m``."""

Memory = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_whole_bytes),
    Field(json_schema_extra=_rules(_LEAST), examples=["512Mi", "4Gi"]),
]
"""An amount of memory in bytes: ``512Mi``, ``4Gi``."""

Storage = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_whole_bytes),
    Field(json_schema_extra=_rules(_LEAST), examples=["10Gi", "2Ti"]),
]
"""An amount of storage in bytes: ``10Gi``, ``2Ti``."""


def format_bytes(count: float, *, binary: bool = True) -> str:
    """Format a number of bytes: GiB for memory (``binary``), GB for files.

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
