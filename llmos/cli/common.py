"""Functions that several verbs share: kinds and names from words, namespaces, suggestions."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmos.client.progress import spelled
from llmos.errors import LLMOSError, NotFound, UsageError
from llmos.names import GROUPS, PERSONAL, group_namespace
from llmos.present.text import did_you_mean
from llmos.resources import KINDS, MAIN_KIND, Resource, kind_named

if TYPE_CHECKING:
    from llmos.client._sync.client import Client  # loads the HTTP library, which `explain` can do without

__all__ = [
    "Target",
    "add_chat_options",
    "add_namespace",
    "add_target",
    "add_wait",
    "chat_options",
    "examples_of_kinds",
    "find_kind",
    "shared_namespaces",
    "suggesting",
    "target_of",
    "targets",
    "targets_or_main",
]

PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Target:
    """A resource given on the command line by kind and name."""

    kind: type[Resource]
    name: str

    def __str__(self) -> str:
        return f"{self.kind.singular}/{self.name}"

    @property
    def words(self) -> str:
        """The resource as one gives it on the command line, without its kind if that is the one meant anyway."""
        return spelled(self.kind, self.name)


def add_namespace(parser: argparse.ArgumentParser, *, everywhere: bool = False) -> None:
    """Add the option ``-n`` and, with `everywhere`, ``-A``."""
    parser.add_argument("-n", "--namespace", metavar="NS", help="namespace (default: your own)")
    if everywhere:
        parser.add_argument("-A", "--all-namespaces", action="store_true", help="in all namespaces that you may see")


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a conversation with a model."""
    parser.add_argument("--system", metavar="TEXT", help="the system message, which tells the model how to behave")
    parser.add_argument(
        "--temperature", metavar="T", type=float, help="0 for the most likely answer, higher for variety"
    )
    parser.add_argument("--max-tokens", metavar="N", type=int, help="the longest answer, in tokens")


def chat_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a chat request that were given as options."""
    options = {"temperature": args.temperature, "max_tokens": args.max_tokens}
    return {name: value for name, value in options.items() if value is not None}


def add_target(parser: argparse.ArgumentParser, able: Callable[[type[Resource]], bool]) -> None:
    """Add the argument for a resource of a kind that is `able`."""
    kinds = [kind for kind in KINDS.values() if able(kind)]
    others = "".join(f", or {kind.singular}/NAME" for kind in kinds if kind is not MAIN_KIND)
    main = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", MAIN_KIND.kind_name()).lower()
    parser.add_argument("name", metavar="NAME", help=f"name of the {main}{others}")


def examples_of_kinds() -> str:
    """Return the kinds as a help text lists them, with commas."""
    return ", ".join(kind.singular for kind in KINDS.values())


def add_wait(parser: argparse.ArgumentParser, *, until: str, default: bool = True) -> None:
    """Add the options ``--wait`` and ``--no-wait``, one of which is the default."""
    words = f"wait until it is {until} (default), or not" if default else f"wait until it is {until}, or not (default)"
    parser.add_argument("--wait", action=argparse.BooleanOptionalAction, default=default, help=words)


def find_kind(word: str) -> type[Resource]:
    """Return the kind that a word names.

    Raises
    ------
    UsageError
        The kind is unknown; the message suggests one.
    """
    try:
        return kind_named(word)
    except NotFound as error:
        known = [name for cls in KINDS.values() for name in (cls.plural, cls.singular, *cls.short_names)]
        raise UsageError(error.message + did_you_mean(word.lower(), known)) from None


def targets(kind: str, names: Sequence[str]) -> list[Target]:
    """Return the resources that ``KIND NAME…`` or ``KIND/NAME …`` names.

    Raises
    ------
    UsageError
        The kind is unknown, or a name is missing.
    """
    words = [kind, *names]
    if "/" in kind:
        found = []
        for word in words:
            kind_word, _, name = word.partition("/")
            if not name:
                raise UsageError(f'"{word[:80]}" should read KIND/NAME, as the words beside it do.')
            if kind_word == PUBLIC or kind_word.startswith((PERSONAL, GROUPS)):
                raise UsageError(
                    f'"{word[:80]}" should read KIND/NAME. The namespace goes into -n: {name} -n {kind_word}'
                )
            found.append(Target(find_kind(kind_word), name))
        return found
    cls = find_kind(kind)
    return [Target(cls, name) for name in names]


def target_of(word: str, able: Callable[[type[Resource]], bool], otherwise: str) -> Target:
    """Return the resource that ``NAME`` or ``KIND/NAME`` names.

    Parameters
    ----------
    word
        The word of the command line.
    able
        Returns whether a kind can do what is asked for.
    otherwise
        What others of the kind can't, as the end of a sentence: "have no logs".

    Raises
    ------
    UsageError
        The kind is unknown or not able, or the name is missing.
    """
    target = targets(word, ())[0] if "/" in word else Target(MAIN_KIND, word)
    if not able(target.kind):
        kinds = ", ".join(kind.plural for kind in KINDS.values() if able(kind))
        raise UsageError(f"{target.kind.plural[:1].upper()}{target.kind.plural[1:]} {otherwise}; these do: {kinds}.")
    return target


def targets_or_main(kind: str, names: Sequence[str]) -> list[Target]:
    """Return the same as `targets`, but take a single word that isn't a kind for a name of the main kind.

    Raises
    ------
    UsageError
        A kind was given without a name.
    """
    if not names and "/" not in kind:
        try:
            find_kind(kind)
        except UsageError:
            return [Target(MAIN_KIND, kind)]
        raise UsageError(f"Which {kind}? Write its name after it.")
    return targets(kind, names)


def shared_namespaces(client: Client) -> list[str]:
    """Return the namespaces that others share with the caller: ``public`` and those of the caller's groups."""
    who = client.whoami()
    return [name for name in (PUBLIC, *map(group_namespace, who.groups)) if name != who.namespace]


def _namespace_with(client: Client, target: Target) -> str | None:
    """Return the shared namespace with a resource of that name; None if none has it or the API doesn't respond."""
    try:
        for namespace in shared_namespaces(client):
            if client.collection(target.kind).exists(target.name, namespace=namespace):
                return namespace
    except LLMOSError:
        return None
    return None


@contextmanager
def suggesting(client: Client, target: Target, namespace: str | None) -> Iterator[None]:
    """Extend "not found" errors in the block by the shared namespace in which the resource exists."""
    try:
        yield
    except NotFound as error:
        own = namespace is None and target.kind.scope == "Namespaced"
        elsewhere = _namespace_with(client, target) if own else None
        if elsewhere is None:
            raise  # the API's message has similar names
        message = f"{error.message.partition('. ')[0].rstrip('.')}, but in {elsewhere}: add -n {elsewhere}"
        raise type(error)(message, causes=error.causes, request_id=error.request_id) from None
