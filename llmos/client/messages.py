"""The responses of the API and the gateway as Python objects, shared by both clients. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from llmos.errors import Unsupported, UpstreamFailed, from_status
from llmos.resources import Resource
from llmos.resources.base import invalid

__all__ = [
    "AvailableModel",
    "ChatChunk",
    "Event",
    "Listing",
    "Step",
    "WatchEvent",
    "WhoAmI",
    "events_between",
    "read",
    "read_chunk",
    "read_models",
]

R = TypeVar("R", bound=Resource)
T = TypeVar("T")
_MODEL_FIELDS = frozenset({"id", "object", "owned_by", "created", "root", "task", "phase", "ready"})


class Listing(list[R], Generic[R]):
    """The resources in the response to a list request, ordered by namespace and name.

    Attributes
    ----------
    resource_version
        The version from which a watch continues without missing a change.
    """

    def __init__(self, items: Iterable[R] = (), *, resource_version: str = "") -> None:
        super().__init__(items)
        self.resource_version = resource_version


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[R]):
    """One change.

    Attributes
    ----------
    type
        The type of change.
    resource
        The resource after the change; for ``DELETED`` its last state.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: R


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """The state of a watch after a change, or after some time without one.

    Attributes
    ----------
    events
        The changes since the previous step; empty if only time passed.
    items
        All current resources, by `Resource.key`.
    away
        A sentence while the API doesn't respond, else empty.
    """

    events: tuple[WatchEvent[R], ...]
    items: Mapping[str, R]
    away: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a resource.

    Attributes
    ----------
    type
        ``Normal`` or ``Warning``.
    reason
        One word for programs.
    message
        A sentence for people.
    first, last
        Time of its first and its last occurrence.
    count
        Number of consecutive occurrences.
    """

    type: str = "Normal"
    reason: str = ""
    message: str = ""
    first: Annotated[datetime | None, Field(validation_alias="firstTimestamp")] = None
    last: Annotated[datetime | None, Field(validation_alias="lastTimestamp")] = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class WhoAmI:
    """The identity that a token belongs to.

    Attributes
    ----------
    name
        User name in the Hub.
    namespace
        The user's own namespace.
    admin
        Whether the user is an admin.
    groups
        Groups of the user in the Hub.
    scopes
        Scopes of the token.
    gateway_url, public_url
        Public addresses of the gateway and the Hub.
    """

    name: str
    namespace: str
    admin: bool = False
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    gateway_url: Annotated[str, Field(validation_alias="gatewayURL")] = ""
    public_url: Annotated[str, Field(validation_alias="publicURL")] = ""


@dataclass(frozen=True, slots=True)
class AvailableModel:
    """A model that the gateway lists.

    Attributes
    ----------
    id
        Name for requests: ``chat`` or ``public/tiny``.
    owned_by
        Namespace of the model's service.
    created
        Creation time in seconds since 1970.
    root
        The service's own name; differs from `id` for an alias.
    task
        ``generate``, ``embed`` or ``rerank``; empty while unknown.
    phase, ready
        Phase of the service, and whether a replica is ready.
    extra
        All other fields of the gateway's response.
    """

    id: str
    owned_by: str = ""
    created: int = 0
    root: str = ""
    task: str = ""
    phase: str = ""
    ready: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """A piece of a streamed answer.

    Attributes
    ----------
    text
        Text to append to the answer.
    reasoning
        Text to append to the model's reasoning, if it sends one.
    finish_reason
        Reason why the answer ended, on the last piece that has text.
    completion_tokens, prompt_tokens
        Token counts on the very last piece, if the engine sends them.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    completion_tokens: int | None = None
    prompt_tokens: int | None = None


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read(cls: type[T], data: Any) -> T:
    """Return an object from the API's response; fields unknown to this version are left out.

    Raises
    ------
    Unsupported
        The response has values unknown to this version.
    """
    try:
        found: T = _adapter(cls).validate_python(data, extra="ignore")
    except ValidationError as error:
        message = f"The platform speaks another version than this llmos: {invalid(error, cls).message}. Upgrade it with: pip install -U llmos"
        raise Unsupported(message) from None
    return found


def read_models(data: Any) -> list[AvailableModel]:
    """Return the models in the response of ``/v1/models``; skip unreadable entries."""
    items = data.get("data") if isinstance(data, Mapping) else None
    models = []
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, Mapping) or "id" not in item:
            continue
        created = item.get("created")
        models.append(
            AvailableModel(
                id=str(item["id"]),
                owned_by=str(item.get("owned_by", "")),
                created=created if isinstance(created, int) else 0,
                root=str(item.get("root") or item["id"]),
                task=str(item.get("task") or ""),
                phase=str(item.get("phase") or ""),
                ready=bool(item.get("ready", False)),
                extra={key: value for key, value in item.items() if key not in _MODEL_FIELDS},
            )
        )
    return models


def events_between(before: Mapping[str, R], after: Mapping[str, R]) -> tuple[WatchEvent[R], ...]:
    """Return the events between two listings; a new resource of an old name counts as deleted and added."""
    events: list[WatchEvent[R]] = []
    for key, old in before.items():
        new = after.get(key)
        if new is None or new.metadata.uid != old.metadata.uid:
            events.append(WatchEvent("DELETED", old))
    for key, new in after.items():
        known = before.get(key)
        if known is None or known.metadata.uid != new.metadata.uid:
            events.append(WatchEvent("ADDED", new))
        elif known.metadata.resource_version != new.metadata.resource_version:
            events.append(WatchEvent("MODIFIED", new))
    return tuple(events)


def read_chunk(data: str) -> ChatChunk:
    """Return a piece of a streamed answer.

    Raises
    ------
    UpstreamFailed
        It can't be decoded.
    LLMOSError
        It is an error of the gateway or the engine.
    """
    try:
        chunk: Any = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise UpstreamFailed("The gateway sent a piece of an answer that can't be read.")
    if isinstance(chunk.get("error"), Mapping):
        raise from_status(chunk, status=502)
    choices = chunk.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
    delta, usage = _object(choice.get("delta")), _object(chunk.get("usage"))
    return ChatChunk(
        text=delta.get("content") or "",
        reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
        finish_reason=choice.get("finish_reason") or "",
        completion_tokens=usage.get("completion_tokens"),
        prompt_tokens=usage.get("prompt_tokens"),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
