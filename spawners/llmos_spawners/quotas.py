"""What the cluster's API server answers when it refuses a pod or a volume, in words for the person.

The messages are those of Kubernetes' admission plugins: ResourceQuota (``exceeded quota: …``), LimitRanger,
PodSecurity, NamespaceLifecycle and RBAC. What isn't recognised is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from llmos.kubernetes_messages import ExceededQuota, OutsideLimit, parse_limits, parse_quota
from llmos.resources.quantities import format_bytes, parse_quantity

__all__ = ["Refused", "explain_refusal"]

_MUST_SAY: Final = re.compile(r"failed quota: (?P<name>[^:]+): must specify (?P<what>[^\s]+)")
_SECURITY: Final = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<why>.+)', re.DOTALL)
_RIGHTS: Final = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something wasn't created.

    Attributes
    ----------
    message
        For the person.
    reason
        For metrics: ``quota``, ``limits``, ``security``, ``rights``, ``namespace`` or ``refused``.
    """

    message: str
    reason: str


def explain_refusal(
    text: str, *, namespace: str, what: str = "this server", running: Sequence[tuple[str, str]] = ()
) -> Refused:
    """Words for a refusal of the API server.

    Parameters
    ----------
    text
        Its message.
    namespace
        Where something was to be made.
    what
        What was to be made: "this server", "its home".
    running
        Name and size of the person's servers that run, for what could be stopped.
    """
    if quota := parse_quota(text):
        return Refused(_quota(quota, what, running), "quota")
    if found := _MUST_SAY.search(text):
        return Refused(
            f"The quota of {namespace} wants every server to say {found['what']}, and this size doesn't. "
            "Choose another size, and tell the operator of this platform.",
            "quota",
        )
    if limits := parse_limits(text):
        return Refused(" ".join(dict.fromkeys(_limit(found, what) for found in limits)), "limits")
    if found := _SECURITY.search(text):
        return Refused(
            f'{namespace} holds pods to the standard "{found["level"]}", and {what} does not keep to it: '
            f"{found['why'].strip()}. Tell the operator of this platform.",
            "security",
        )
    if "because it is being terminated" in text:
        return Refused(f"{namespace} is being deleted. Try again in a minute.", "namespace")
    if found := _RIGHTS.search(text):
        return Refused(
            f"The Hub may not {found['verb']} {found['resource']} in {namespace}. The controllers give it that right "
            "when they prepare the namespace: do they run? Tell the operator of this platform.",
            "rights",
        )
    return Refused(f"The cluster refused {what}: {text.strip()[:400]}", "refused")


def _amounts(written: Mapping[str, str]) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for name, value in written.items():
        try:
            amounts[name] = parse_quantity(value)
        except ValueError:
            continue
    return amounts


def _plain(resource: str) -> str:
    """The resource without the words that quotas put around it: ``limits.memory`` is memory."""
    return resource.removeprefix("requests.").removeprefix("limits.").removeprefix("count/")


def _thing(resource: str) -> str:
    """How people call it."""
    plain = _plain(resource)
    names = {
        "cpu": "cores",
        "memory": "of memory",
        "storage": "of storage",
        "ephemeral-storage": "of scratch space",
        "pods": "pods (servers, models and jobs)",
        "persistentvolumeclaims": "volumes",
        "secrets": "Secrets (credentials, and the tokens of servers and models)",
    }
    if plain.endswith("/requests.storage"):
        return f"of storage of class {plain.partition('.storageclass')[0]}"
    if plain.endswith("/gpu"):
        return "GPUs"
    return names.get(plain, plain)


def _amount(resource: str, value: Decimal) -> str:
    plain = _plain(resource)
    if "memory" in plain or "storage" in plain:
        return format_bytes(float(value)) if value else "0 GiB"
    return f"{float(value):g}"


def _quota(found: ExceededQuota, what: str, running: Sequence[tuple[str, str]]) -> str:
    requested, used, limited = (_amounts(part) for part in (found.requested, found.used, found.limited))
    sentences: dict[str, str] = {}
    for resource, asked in requested.items():
        limit, taken = limited.get(resource), used.get(resource, Decimal(0))
        if limit is None:
            continue
        left = max(Decimal(0), limit - taken)
        # limits.memory and requests.memory say the same thing to a person
        verb = "is" if left == 1 else "are"
        sentences.setdefault(
            _thing(resource),
            f"{_amount(resource, left)} of your {_amount(resource, limit)} {_thing(resource)} {verb} left "
            f"({_amount(resource, taken)} in use), and {what} needs {_amount(resource, asked)}.",
        )
    lines = list(sentences.values()) or [f"The quota {found.name} doesn't leave enough for {what}."]
    if running:
        lines.append(f"Running: {', '.join(f'{name} ({size})' for name, size in running)}.")
    return " ".join([*lines, "Choose a smaller size, or stop a server or a model that you don't need."])


def _limit(found: OutsideLimit, what: str) -> str:
    resource = found.resource
    try:
        bound, asked = (_amount(resource, parse_quantity(text)) for text in (found.bound, found.asked))
    except ValueError:
        bound, asked = found.bound, found.asked
    most = "at most" if found.side == "maximum" else "at least"
    return f"Here {what} may have {most} {bound} {_thing(resource)}, and {asked} were asked for. Choose another size."
