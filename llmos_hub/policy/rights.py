"""The rights of a caller, in one object that API and gateway ask."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from llmos.errors import Forbidden, NotFound
from llmos.names import group_namespace, user_namespace
from llmos.resources import Resource
from llmos_hub.names import PUBLIC_NAMESPACE, SCOPE_INVOKE, SCOPE_MANAGE
from llmos_hub.policy.rules import VERBS, Caller, Ref, Rule, Verb, lacks_scope, refusal, rules_of, scope_of

__all__ = ["NamespaceOwner", "Rights", "Within"]


@dataclass(frozen=True, slots=True)
class NamespaceOwner:
    """The owner of a namespace.

    Attributes
    ----------
    kind
        ``user``, ``group``, or ``platform`` for a shared namespace.
    name
        The name in the Hub.
    created
        Time the Hub created the user, in the Hub's format; empty if unknown.
    """

    kind: Literal["user", "group", "platform"]
    name: str
    created: str = ""


@dataclass(frozen=True, slots=True)
class Within:
    """The resources of a kind to which a request for many of them is restricted.

    Attributes
    ----------
    verb
        The verb that the request needs.
    namespaces
        The namespaces in which they are; None for all namespaces.
    rules
        The rules that allow it, each for some of the resources.
    """

    verb: Verb
    namespaces: frozenset[str] | None
    rules: tuple[Rule, ...]

    def keeps(self, resource: Resource) -> bool:
        """Return whether a resource is among them."""
        ref = Ref.of(resource)
        return any(rule.covers(self.verb, ref) for rule in self.rules)

    def __le__(self, other: Within) -> bool:
        """Return whether the others include all of these."""
        return all(rule in other.rules for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of a caller; immutable, made once for an identity and cached with it.

    Attributes
    ----------
    caller
        The caller, with their groups and the scopes of their token.
    granted
        Rules that allow this caller more than everybody.
    search_path
        As `Caller.search_path`.
    """

    caller: Caller
    granted: tuple[Rule, ...] = ()
    search_path: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _rules: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the rules that hold for the caller with this token."""
        verbs = frozenset(verb for verb in VERBS if scope_of(verb) in self.caller.scopes)
        rules = (replace(rule, verbs=rule.verbs & verbs) for rule in (*rules_of(self.caller), *self.granted))
        object.__setattr__(self, "_rules", tuple(rule for rule in rules if rule.verbs))
        object.__setattr__(self, "search_path", self.caller.search_path)

    def may(self, verb: Verb, ref: Ref) -> bool:
        """Return whether the caller may do `verb` to all of the resources."""
        # called several times for each request to a model: a loop, which makes no object
        for rule in self._rules:  # noqa: SIM110
            if rule.covers(verb, ref):
                return True
        return False

    def owner_may(self, verb: Verb, ref: Ref) -> bool:
        """Return whether the caller may do it with a token that has the scope: notebooks ask models with a narrower one."""
        return any(rule.covers(verb, ref) for rule in (*rules_of(self.caller), *self.granted))

    def require(self, verb: Verb, ref: Ref) -> None:
        """Raise an error unless the caller may do it.

        Raises
        ------
        Forbidden
            With the reason.
        """
        if not self.may(verb, ref):
            raise Forbidden(refusal(self.caller, verb, ref))

    def needs_labels(self, verb: Verb, ref: Ref) -> bool:
        """Return whether the answer depends on the resource's labels, which are not known."""
        if ref.labels is not None or self.may(verb, ref):
            return False
        return any(rule.covers(verb, replace(ref, labels=rule.labels)) for rule in self._rules)

    def namespaces(self, verb: Verb, kind: type[Resource]) -> frozenset[str] | None:
        """Return the namespaces in which the caller may do it to some resources of `kind`; None for all of them."""
        ref = Ref(kind)
        found: set[str] = set()
        for rule in self._rules:
            if rule.concerns(verb, ref):
                if rule.namespaces is None:
                    return None
                found |= rule.namespaces
        return frozenset(found)

    def require_some(self, verb: Verb, ref: Ref) -> Within | None:
        """Return those of the resources to which a request is restricted: all for which the caller may do it.

        Returns
        -------
        Within, or None
            None if the request needs no restriction.

        Raises
        ------
        Forbidden
            The caller may do it to none of them.
        """
        if self.may(verb, ref):
            return None
        rules = tuple(rule for rule in self._rules if rule.concerns(verb, ref))
        if not rules:
            raise Forbidden(refusal(self.caller, verb, ref))
        namespaces = self.namespaces(verb, ref.kind) if ref.namespace is None else frozenset({ref.namespace})
        return Within(verb, namespaces, rules)

    # without a kind of resources

    def require_manage(self) -> None:
        """Let tokens through that may use the API.

        Raises
        ------
        Forbidden
            The token may only call models.
        """
        self._require_scope(SCOPE_MANAGE)

    def require_invoke(self) -> None:
        """Let tokens through that may call models.

        Raises
        ------
        Forbidden
            The token may call none at all.
        """
        self._require_scope(SCOPE_INVOKE)

    def _require_scope(self, scope: str) -> None:
        if scope not in self.caller.scopes:
            raise Forbidden(lacks_scope(scope))

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

    def may_set_reserved(self, namespace: str | None) -> bool:
        """Return whether the caller may set values there that are reserved for admins: at home everybody may."""
        return self.caller.admin or namespace == self.caller.namespace

    def may_use_any(self, namespace: str) -> bool:
        """Return whether the caller may use an existing namespace whoever its owner is."""
        return self.caller.admin and namespace != self.caller.namespace

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
            return NamespaceOwner("user", self.caller.name)
        for group in self.caller.groups:
            if namespace == group_namespace(group):
                return NamespaceOwner("group", group)
        if not self.caller.admin:
            raise Forbidden(f"The namespace {namespace[:80]} is not yours. Yours is {self.caller.namespace}.")
        if namespace == PUBLIC_NAMESPACE:
            return NamespaceOwner("platform", PUBLIC_NAMESPACE)
        kind, _, name = namespace.partition("-")
        if kind == "user" and user_namespace(name) == namespace:
            return NamespaceOwner("user", name)
        if kind == "group" and group_namespace(name) == namespace:
            return NamespaceOwner("group", name)
        raise NotFound(
            f'There is no namespace "{namespace[:80]}" yet, and its name does not tell whose it would be. '
            "It is made when its owner first starts a server or creates something."
        )
