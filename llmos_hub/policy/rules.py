"""The authorization rules.

People have full access to their own namespace and to those of their groups, and read access to `public`; admins
have access to everything. A caller may do what both the *token* (by its Hub scopes) and its *owner* (by the rules
below) may do. Whatever isn't allowed explicitly is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self, get_args

from llmos.names import group_namespace, user_namespace
from llmos.resources import KINDS, Resource
from llmos_hub.names import PUBLIC_NAMESPACE, SCOPE_INVOKE, SCOPE_MANAGE

__all__ = ["VERBS", "Caller", "Ref", "Rule", "Verb", "lacks_scope", "refusal", "rules_of", "scope_of"]

Verb = Literal["get", "list", "watch", "create", "update", "delete", "logs", "invoke", "connect", "spawn", "approve"]
VERBS: Final[frozenset[Verb]] = frozenset(get_args(Verb))
_READING: Final[frozenset[Verb]] = frozenset({"get", "list", "watch", "logs"})
_USING: Final[frozenset[Verb]] = frozenset({"get", "list", "watch", "invoke"})
_ADMINS_ONLY: Final[frozenset[Verb]] = frozenset({"approve"})
_IN_A_SENTENCE: Final[Mapping[str, str]] = {"logs": "read the logs of", "connect": "connect to"}


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
class Ref:
    """A reference to the resources that a right is about: one of them, or all that it doesn't tell apart.

    Attributes
    ----------
    kind
        Their kind.
    namespace
        Their namespace; None for cluster-scoped kinds, and for all namespaces together.
    name
        The name; None for all of them, and as long as it isn't known.
    labels
        The labels; None for all of them, and as long as they aren't known.
    """

    kind: type[Resource]
    namespace: str | None = None
    name: str | None = None
    labels: Mapping[str, str] | None = None

    @classmethod
    def of(cls, resource: Resource) -> Self:
        """Return the reference to a resource."""
        meta = resource.metadata
        return cls(type(resource), meta.namespace, meta.name, meta.labels)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that allows something; what no rule allows is refused.

    Attributes
    ----------
    verbs
        The verbs that it allows.
    kinds
        Plurals of the kinds; None for all kinds.
    namespaces
        The namespaces; None for all of them, and for cluster-scoped kinds.
    names
        Names of the resources; empty for all names.
    labels
        Labels that a resource must have; empty for all resources.
    """

    verbs: frozenset[Verb]
    kinds: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    names: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)

    def concerns(self, verb: Verb, ref: Ref) -> bool:
        """Return whether it allows the verb for some of the resources."""
        return (
            verb in self.verbs
            and (self.kinds is None or ref.kind.plural in self.kinds)
            and (self.namespaces is None or ref.namespace is None or ref.namespace in self.namespaces)
            and (not self.names or ref.name is None or ref.name in self.names)
            and (not self.labels or ref.labels is None or self.labels.items() <= ref.labels.items())
        )

    def covers(self, verb: Verb, ref: Ref) -> bool:
        """Return whether it allows the verb for all of the resources."""
        return (
            self.concerns(verb, ref)
            and (self.namespaces is None or ref.namespace is not None)
            and (not self.names or ref.name is not None)
            and (not self.labels or ref.labels is not None)
        )


def scope_of(verb: Verb) -> str:
    """Return the Hub scope that a token needs for a verb."""
    return SCOPE_INVOKE if verb == "invoke" else SCOPE_MANAGE


def rules_of(caller: Caller) -> tuple[Rule, ...]:
    """Return the rules that hold for everybody, for a caller; the caller's token is not taken into account."""
    if caller.admin:
        return (Rule(VERBS),)
    kinds = KINDS.values()
    namespaced = frozenset(kind.plural for kind in kinds if kind.scope == "Namespaced")
    of_platform = frozenset(kind.plural for kind in kinds if kind.scope == "Cluster")
    readable = frozenset(kind.plural for kind in kinds if kind.plural in namespaced and not kind.write_only)
    full = VERBS - _ADMINS_ONLY
    own, groups = frozenset({caller.namespace}), frozenset(caller.group_namespaces)
    rules = (
        Rule(full, namespaced, own),
        Rule(_USING, readable, frozenset({PUBLIC_NAMESPACE})),
        Rule(full, namespaced, groups),
        Rule(_READING, of_platform),
    )
    return tuple(rule for rule in rules if rule.namespaces is None or rule.namespaces)


def refusal(caller: Caller, verb: Verb, ref: Ref) -> str:
    """Return the reason for which no rule allows it, in a sentence for people."""
    if scope_of(verb) not in caller.scopes:
        return lacks_scope(scope_of(verb))
    kind, namespace, do = ref.kind, ref.namespace, _IN_A_SENTENCE.get(verb, verb)
    if verb in _ADMINS_ONLY or kind.scope == "Cluster":
        return f"Only admins may {do} {kind.plural}."
    if namespace is None:
        return f"Only admins may {do} {kind.plural} of all namespaces. {_yours(caller)}"
    if namespace == PUBLIC_NAMESPACE and verb == "logs":
        return f"Only admins may read the logs of what is in {PUBLIC_NAMESPACE}: others' prompts may be in them."
    if namespace == PUBLIC_NAMESPACE:
        return f"Only admins may {do} {kind.plural} in {PUBLIC_NAMESPACE}."
    return f"You may not {do} {kind.plural} in {namespace}. {_yours(caller)}"


def lacks_scope(scope: str) -> str:
    """Return the reason for which a token without the scope is refused."""
    return f"This token lacks the scope {scope}. Make one that has it on the Hub's token page."


def _yours(caller: Caller) -> str:
    """Return a sentence with the caller's namespaces."""
    groups = caller.group_namespaces
    return f"Yours are {', '.join((caller.namespace, *groups))}." if groups else f"Yours is {caller.namespace}."
