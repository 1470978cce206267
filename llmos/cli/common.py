"""What several verbs share: kinds and names from words, namespaces, suggestions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmos.errors import Forbidden, LLMOSError, NotFound, UsageError
from llmos.present.text import did_you_mean
from llmos.resources import KINDS, ModelService, Resource, kind_named

if TYPE_CHECKING:
    from llmos.client._sync.client import Client  # loads the HTTP library, which `explain` can do without

__all__ = [
    "Target",
    "add_namespace",
    "find_kind",
    "list_everywhere",
    "suggesting",
    "targets",
    "targets_or_service",
]

PUBLIC = "public"


class Target:
    """A kind and a name in it."""

    def __init__(self, kind: type[Resource], name: str) -> None:
        self.kind = kind
        self.name = name

    def __str__(self) -> str:
        return f"{self.kind.singular}/{self.name}"


def add_namespace(parser: argparse.ArgumentParser, *, everywhere: bool = False) -> None:
    """``-n``, and with `everywhere` ``-A``."""
    parser.add_argument("-n", "--namespace", metavar="NS", help="in this namespace; unset, your own")
    if everywhere:
        parser.add_argument("-A", "--all-namespaces", action="store_true", help="in all that you may see")


def find_kind(word: str) -> type[Resource]:
    """The kind that a word means.

    Raises
    ------
    UsageError
        There is none; the message suggests one.
    """
    try:
        return kind_named(word)
    except NotFound as error:
        known = [name for cls in KINDS.values() for name in (cls.plural, cls.singular, *cls.short_names)]
        raise UsageError(error.message + did_you_mean(word.lower(), known)) from None


def targets(kind: str, names: Sequence[str]) -> list[Target]:
    """What ``KIND NAME…`` or ``KIND/NAME …`` means.

    Raises
    ------
    UsageError
        There is no such kind, or no name.
    """
    words = [kind, *names]
    if "/" in kind:
        found = []
        for word in words:
            kind_word, _, name = word.partition("/")
            if not name:
                message = f'"{word[:80]}" should read KIND/NAME, as the words beside it do.'
                raise UsageError(message)
            found.append(Target(find_kind(kind_word), name))
        return found
    cls = find_kind(kind)
    return [Target(cls, name) for name in names]


def targets_or_service(kind: str, names: Sequence[str]) -> list[Target]:
    """As `targets`, but a lone word may be the name of a model service: they are what people mostly mean.

    Raises
    ------
    UsageError
        There is no such kind, or no name.
    """
    if not names and "/" not in kind:
        try:
            find_kind(kind)
        except UsageError:
            return [Target(ModelService, kind)]
        message = f"Which {kind}? Write its name after it."
        raise UsageError(message)
    return targets(kind, names)


def _names_of(client: Client, kind: type[Resource], namespace: str | None) -> list[str]:
    """The names that the caller may see; none where even that is refused."""
    try:
        return [resource.metadata.name for resource in client.collection(kind).list(namespace=namespace)]
    except LLMOSError:
        return []


@contextmanager
def suggesting(client: Client, name: str, namespace: str | None, kind: type[Resource] = ModelService) -> Iterator[None]:
    """Make "not found" helpful: what there is that the caller may see, and which of it was probably meant."""
    try:
        yield
    except NotFound as error:
        if "Did you mean" in error.message or "You can use" in error.message:
            raise
        names = _names_of(client, kind, namespace)
        if name in names:
            raise
        listed = f" There are: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}." if names else ""
        hint = did_you_mean(name, names)
        message = f"{error.message.rstrip('.')}.{listed}{hint}"
        raise type(error)(message, causes=error.causes, request_id=error.request_id) from None


def list_everywhere(client: Client, kind: type[Resource], labels: str | None = None) -> Sequence[Any]:
    """Everything of a kind that the caller may see, in whichever namespaces."""
    collection = client.collection(kind)
    if kind.scope == "Cluster":
        return collection.list(labels=labels)
    try:
        return collection.list(namespace="*", labels=labels)
    except Forbidden:
        found: list[Any] = []
        for namespace in (client.namespace(), PUBLIC):
            try:
                found += collection.list(namespace=namespace, labels=labels)
            except (Forbidden, NotFound):
                continue
        return found
