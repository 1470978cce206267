"""The authorization rules.

People have full access to their own namespace and to those of their groups, and read access to `public`; admins
have access to everything. A caller may do what both the *token* (by its Hub scopes) and its *owner* (by the rules
below) may do. Whatever isn't allowed explicitly is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llmos.resources import Resource
from llmos_hub.names import PUBLIC_NAMESPACE, SCOPE_INVOKE, SCOPE_MANAGE, group_namespace, user_namespace

__all__ = ["Caller", "Decision", "Verb", "may"]

Verb = Literal["get", "list", "watch", "create", "update", "delete", "logs", "invoke", "connect", "spawn", "approve"]
READING: frozenset[str] = frozenset({"get", "list", "watch", "logs"})


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request, with the scopes of their token.

    Attributes
    ----------
    name
        The Hub's user name.
    admin
        True if they are an admin of the Hub.
    groups
        Their Hub groups.
    scopes
        The token's ``custom:llmos:…`` scopes.
    """

    name: str
    admin: bool = False
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = field(default_factory=frozenset)

    @property
    def namespace(self) -> str:
        """Their own namespace."""
        return user_namespace(self.name)

    @property
    def group_namespaces(self) -> tuple[str, ...]:
        """The namespaces that they share with the other members of their groups."""
        return tuple(sorted(map(group_namespace, self.groups)))

    @property
    def search_path(self) -> tuple[str, ...]:
        """The namespaces in which a model name without a namespace is looked up; the first match wins.

        `public`, which admins control, comes before the groups: otherwise any member of a group could shadow a public
        model for the whole group.
        """
        return (self.namespace, PUBLIC_NAMESPACE, *self.group_namespaces)


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, with its reason in a sentence for people."""

    allowed: bool
    reason: str


def may(caller: Caller, verb: Verb, kind: type[Resource], namespace: str | None) -> Decision:
    """Decide whether `caller` may do `verb` to resources of `kind` in `namespace`; deny by default.

    `namespace` is None for cluster-scoped kinds, and for all namespaces together.
    """
    needed = SCOPE_INVOKE if verb == "invoke" else SCOPE_MANAGE
    if needed not in caller.scopes:
        return Decision(False, f"This token lacks the scope {needed}. Make one that has it on the Hub's token page.")
    if caller.admin:
        return Decision(True, "admins may everything")
    if verb == "approve":
        return Decision(False, f"Only admins may approve {kind.plural}.")
    if kind.scope == "Cluster":
        if verb in READING:
            return Decision(True, "everyone may read what holds for the whole platform")
        return Decision(False, f"Only admins may {verb} {kind.plural}.")
    if namespace is None:
        return Decision(False, f"Only admins may {verb} {kind.plural} of all namespaces. {_yours(caller)}")
    if namespace == caller.namespace:
        return Decision(True, "it is the caller's own namespace")
    if namespace in caller.group_namespaces:
        return Decision(True, "it is the namespace of a group that the caller is in")
    if namespace == PUBLIC_NAMESPACE and not kind.write_only and verb in (READING - {"logs"}) | {"invoke"}:
        return Decision(True, f"everyone may read and use what is in {PUBLIC_NAMESPACE}")
    if namespace == PUBLIC_NAMESPACE and verb == "logs":
        return Decision(
            False, f"Only admins may read the logs of what is in {PUBLIC_NAMESPACE}: others' prompts may be in them."
        )
    if namespace == PUBLIC_NAMESPACE:
        return Decision(False, f"Only admins may {verb} {kind.plural} in {PUBLIC_NAMESPACE}.")
    return Decision(False, f"You may not {verb} {kind.plural} in {namespace}. {_yours(caller)}")


def _yours(caller: Caller) -> str:
    """Return a sentence with the caller's namespaces."""
    groups = caller.group_namespaces
    return f"Yours are {', '.join((caller.namespace, *groups))}." if groups else f"Yours is {caller.namespace}."
