"""The responses of the API and the gateway as Python objects, shared by both clients. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from llmos.errors import LLMOSError, Unsupported, from_status
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
    "error_in",
    "events_between",
    "read_event",
    "read_models",
    "read_resource",
    "read_whoami",
]

R = TypeVar("R", bound=Resource)
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

    type: str
    reason: str
    message: str
    first: datetime | None
    last: datetime | None
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
    gateway_url: str = ""
    public_url: str = ""


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


def read_resource(cls: type[R], data: Any) -> R:
    """Return a resource from the API's response; fields unknown to this version are left out.

    Raises
    ------
    Unsupported
        The response has values unknown to this version.
    """
    try:
        return cls.model_validate(data, extra="ignore")
    except ValidationError as error:
        message = f"The platform speaks another version than this llmos: {invalid(error, cls).message}. Upgrade it with: pip install -U llmos"
        raise Unsupported(message) from None


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def read_event(data: Mapping[str, Any]) -> Event:
    """Return an event from the API's response."""
    first = _moment(data.get("firstTimestamp", data.get("first")))
    last = _moment(data.get("lastTimestamp", data.get("last")))
    count = data.get("count")
    return Event(
        type=str(data.get("type", "Normal")),
        reason=str(data.get("reason", "")),
        message=str(data.get("message", "")),
        first=first,
        last=last or first,
        count=count if isinstance(count, int) else 1,
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def read_whoami(data: Mapping[str, Any]) -> WhoAmI:
    """Return the identity in the response of ``/whoami``."""
    return WhoAmI(
        name=str(data.get("name", "")),
        namespace=str(data.get("namespace", "")),
        admin=bool(data.get("admin", False)),
        groups=_texts(data.get("groups")),
        scopes=_texts(data.get("scopes")),
        gateway_url=str(data.get("gatewayURL") or ""),
        public_url=str(data.get("publicURL") or ""),
    )


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


def error_in(data: Any) -> LLMOSError | None:
    """Return the error that a line of a stream contains; None if it contains none."""
    if isinstance(data, Mapping) and isinstance(data.get("error"), Mapping):
        return from_status(data, status=502)
    return None
