"""The rights of a caller, in one object that every part of the API asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmos.errors import Forbidden, NotFound
from llmos.resources import Resource
from llmos_hub.names import PUBLIC_NAMESPACE, SCOPE_MANAGE, group_namespace, user_namespace
from llmos_hub.policy.rules import Caller, Decision, Verb, may

__all__ = ["NamespaceOwner", "Rights"]

NamespaceOwner = tuple[Literal["user", "group", "platform"], str]
"""Kind and name of a namespace's owner."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a caller may do; immutable, made for each request.

    Attributes
    ----------
    caller
        The caller, with their groups and the scopes of their token.
    """

    caller: Caller

    def explain(self, verb: Verb, kind: type[Resource], namespace: str | None) -> Decision:
        """Return whether the caller may do `verb` to resources of `kind` in `namespace`, and why.

        `namespace` is None for cluster-scoped kinds, and for all namespaces together.
        """
        return may(self.caller, verb, kind, namespace)

    def may(self, verb: Verb, kind: type[Resource], namespace: str | None) -> bool:
        """Return whether the caller may do it."""
        return self.explain(verb, kind, namespace).allowed

    def require(self, verb: Verb, kind: type[Resource], namespace: str | None) -> None:
        """Raise an error unless the caller may do it.

        Raises
        ------
        Forbidden
            With the reason.
        """
        decision = self.explain(verb, kind, namespace)
        if not decision.allowed:
            raise Forbidden(decision.reason)

    def namespaces(self, verb: Verb, kind: type[Resource]) -> frozenset[str] | None:
        """Return the namespaces in which the caller may do `verb` to resources of `kind`; None for all of them."""
        if self.may(verb, kind, None):
            return None
        return frozenset(each for each in self.caller.search_path if self.may(verb, kind, each))

    def require_somewhere(self, verb: Verb, kind: type[Resource], namespace: str | None) -> frozenset[str] | None:
        """Return the namespaces to which a request is restricted: all that the caller may see, if it names none.

        Returns
        -------
        frozenset of str, or None
            None if the request needs no restriction.

        Raises
        ------
        Forbidden
            The caller may do it nowhere, or not in the named namespace.
        """
        within = self.namespaces(verb, kind) if namespace is None and kind.scope == "Namespaced" else None
        if not within:
            self.require(verb, kind, namespace)
            return None
        return within

    def require_manage(self) -> None:
        """Let tokens through that may use the API.

        Raises
        ------
        Forbidden
            The token may only call models.
        """
        if SCOPE_MANAGE not in self.caller.scopes:
            raise Forbidden(f"This token lacks the scope {SCOPE_MANAGE}. Make one that has it on the Hub's token page.")

    def require_admin(self, what: str) -> None:
        """Let admins through, with a token that may use the API.

        Parameters
        ----------
        what
            Completes "Only admins may …".

        Raises
        ------
        Forbidden
            With the reason.
        """
        self.require_manage()
        if not self.caller.admin:
            raise Forbidden(f"Only admins may {what}.")

    def owner_of(self, namespace: str) -> NamespaceOwner:
        """Return the owner of a namespace that the caller may use, from its name; admins may use any.

        Raises
        ------
        Forbidden
            The namespace isn't the caller's.
        NotFound
            The owner can't be derived from the name.
        """
        self.require_manage()
        if namespace == self.caller.namespace:
            return "user", self.caller.name
        for group in self.caller.groups:
            if namespace == group_namespace(group):
                return "group", group
        if not self.caller.admin:
            raise Forbidden(f"The namespace {namespace[:80]} is not yours. Yours is {self.caller.namespace}.")
        if namespace == PUBLIC_NAMESPACE:
            return "platform", PUBLIC_NAMESPACE
        kind, _, name = namespace.partition("-")
        if kind == "user" and user_namespace(name) == namespace:
            return "user", name
        if kind == "group" and group_namespace(name) == namespace:
            return "group", name
        raise NotFound(
            f'There is no namespace "{namespace[:80]}" yet, and its name does not tell whose it would be. '
            "It is made when its owner first starts a server or creates something."
        )
