"""Messages for users about refusals of the API server to create a pod or a volume.

The API server's messages are those of Kubernetes' admission plugins: ResourceQuota (``exceeded quota: …``), LimitRanger,
PodSecurity, NamespaceLifecycle and RBAC. Others are passed on unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from llmos.kubernetes_messages import ExceededQuota, OutsideLimit, parse_limits, parse_quota
from llmos.resources.quantities import format_bytes, parse_quantity

__all__ = ["Explanation", "explain_refusal"]

_MUST_SAY: Final = re.compile(r"failed quota: (?P<name>[^:]+): must specify (?P<what>[^\s]+)")
_SECURITY: Final = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<why>.+)', re.DOTALL)
_RIGHTS: Final = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reason why an object wasn't created.

    Attributes
    ----------
    message
        A message for the user.
    reason
        One word for metrics: ``quota``, ``limits``, ``security``, ``rights``, ``namespace`` or ``refused``.
    """

    message: str
    reason: str


def explain_refusal(
    text: str, *, namespace: str, what: str = "this server", running: Sequence[tuple[str, str]] = ()
) -> Explanation:
    """Return a message for the user about a refusal of the API server.

    Parameters
    ----------
    text
        The API server's message.
    namespace
        The namespace of the refused object.
    what
        The refused object in words: "this server", "its home".
    running
        Name and size of the user's running servers, which could be stopped.
    """
    if quota := parse_quota(text):
        return Explanation(_quota(quota, what, running), "quota")
    if found := _MUST_SAY.search(text):
        return Explanation(
            f"The quota of {namespace} wants every server to say {found['what']}, and this size doesn't. "
            "Choose another size, and tell the operator of this platform.",
            "quota",
        )
    if limits := parse_limits(text):
        return Explanation(" ".join(dict.fromkeys(_limit(found, what) for found in limits)), "limits")
    if found := _SECURITY.search(text):
        return Explanation(
            f'{namespace} holds pods to the standard "{found["level"]}", and {what} does not keep to it: '
            f"{found['why'].strip()}. Tell the operator of this platform.",
            "security",
        )
    if "because it is being terminated" in text:
        return Explanation(f"{namespace} is being deleted. Try again in a minute.", "namespace")
    if found := _RIGHTS.search(text):
        return Explanation(
            f"The Hub may not {found['verb']} {found['resource']} in {namespace}. The controllers give it that right "
            "when they prepare the namespace: do they run? Tell the operator of this platform.",
            "rights",
        )
    return Explanation(f"The cluster refused {what}: {text.strip()[:400]}", "refused")


def _amounts(written: Mapping[str, str]) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for name, value in written.items():
        try:
            amounts[name] = parse_quantity(value)
        except ValueError:
            continue
    return amounts


def _plain(resource: str) -> str:
    """Return the resource without a quota's prefix: ``limits.memory`` is ``memory``."""
    return resource.removeprefix("requests.").removeprefix("limits.").removeprefix("count/")


def _thing(resource: str) -> str:
    """Return the name of a resource for users."""
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
        # one sentence for limits.memory and requests.memory, which are the same for users
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
