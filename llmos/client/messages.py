"""What the API and the gateway answer, as Python objects; pure, shared by the async and the sync client."""

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
    "changes",
    "error_in",
    "read_event",
    "read_models",
    "read_resource",
    "read_whoami",
]

R = TypeVar("R", bound=Resource)
_MODEL_FIELDS = frozenset({"id", "object", "owned_by", "created", "root", "task", "phase", "ready"})


class Listing(list[R], Generic[R]):
    """The resources that a list request found, ordered by namespace and name.

    Attributes
    ----------
    resource_version
        From where a watch goes on without missing anything.
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
        What happened.
    resource
        The resource after it; for ``DELETED`` as it last was.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: R


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """Where a watch stands after something happened, or after nothing happened for a while.

    Attributes
    ----------
    events
        What changed since the step before; empty where only time passed.
    items
        Everything there is now, by `Resource.key`.
    away
        A sentence while the API doesn't answer, else empty.
    """

    events: tuple[WatchEvent[R], ...]
    items: Mapping[str, R]
    away: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a resource.

    Attributes
    ----------
    type
        ``Normal`` or ``Warning``.
    reason
        One word for programs.
    message
        A sentence for people.
    first, last
        When it happened first and last.
    count
        How often in a row.
    """

    type: str
    reason: str
    message: str
    first: datetime | None
    last: datetime | None
    count: int = 1


@dataclass(frozen=True, slots=True)
class WhoAmI:
    """Who a token speaks for.

    Attributes
    ----------
    name
        The Hub's user name.
    namespace
        The namespace that is theirs.
    admin
        Whether they may everything.
    groups
        The Hub's groups they are in.
    scopes
        What the token may.
    gateway_url, public_url
        The gateway's and the Hub's address for people.
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
    """A model that the gateway answers for.

    Attributes
    ----------
    id
        What to ask for: ``chat`` or ``public/tiny``.
    owned_by
        The namespace it is in.
    created
        When it was made, in seconds since 1970.
    root
        The name it has itself; another than `id` where that is an alias.
    task
        ``generate``, ``embed`` or ``rerank``; empty while it isn't known.
    phase, ready
        How the service is, and whether a replica answers.
    extra
        Whatever else the gateway says of it.
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
    """A piece of an answer.

    Attributes
    ----------
    text
        What to append to the answer.
    reasoning
        What to append to the model's thinking, where it shows that.
    finish_reason
        Why it ended, on the last piece that has text.
    completion_tokens, prompt_tokens
        On the last piece of all, where the engine counts them.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    completion_tokens: int | None = None
    prompt_tokens: int | None = None


def read_resource(cls: type[R], data: Any) -> R:
    """A resource as the API sent it; fields that this version doesn't know are left out.

    Raises
    ------
    Unsupported
        The API sends values that this version doesn't know.
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
    """An event as the API sent it."""
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
    """The answer of ``/whoami``."""
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
    """The answer of ``/v1/models``."""
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


def changes(before: Mapping[str, R], after: Mapping[str, R]) -> tuple[WatchEvent[R], ...]:
    """What must have happened between two listings; a name that was used again counts as gone and new."""
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
    """The error that a line of a stream stands for, if it does."""
    if isinstance(data, Mapping) and isinstance(data.get("error"), Mapping):
        return from_status(data, status=502)
    return None
