"""Which models there are, and which of them a caller means.

The table is a copy of the store's ModelServices, kept by `llmos_hub.gateway.discovery`. Looking up never
waits. A model that the caller may not invoke is as unknown to them as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

from llmos.errors import Forbidden, ModelNotFound, ModelNotReady, Unsupported
from llmos.resources import ModelService
from llmos_hub.engine_keys import engine_key
from llmos_hub.gateway.balancers import Balancer, LeastOutstanding
from llmos_hub.gateway.hanging import HEALTH_PATHS
from llmos_hub.gateway.metrics import Metrics, ModelMetrics
from llmos_hub.gateway.upstream import Replica, Upstreams
from llmos_hub.names import PUBLIC_NAMESPACE
from llmos_hub.policy import Caller, may

__all__ = ["Route", "Table", "not_ready", "wrong_task"]

_NAMES_SHOWN: Final = 20
_NAME_SHOWN: Final = 128
_NAMES_COMPARED: Final = 50
_NAME_COMPARED: Final = 64
"""How many names, and names of what length, are looked through for the one that was meant. Comparing takes time with the
square of the length: 20,000 aliases chosen for it would hold the gateway for a minute."""

_TASKS: Final = {"generate": "generates text", "embed": "makes embeddings", "rerank": "ranks documents"}
_ENDPOINTS: Final = {
    "generate": "/v1/chat/completions or /v1/completions",
    "embed": "/v1/embeddings",
    "rerank": "none of this gateway's endpoints yet",
}


@dataclass(slots=True, eq=False)
class Route:
    """A model service as the gateway needs it.

    Attributes
    ----------
    namespace, name, uid
        Of the resource.
    names
        Every name it answers to in its namespace, its own first.
    served_name
        The name under which the engine knows its model.
    task
        ``generate``, ``embed``, ``rerank``; empty while nobody knows.
    phase, message
        As its status has them.
    created
        Unix time.
    replicas
        The ready ones.
    engine
        What serves it, as its status has it; empty while nobody knows.
    media_hosts
        From where the engine may fetch what a request names by address.
    parts_prompts
        Whether what the engine remembers of prompts is kept apart by caller.
    authorization
        The header line by which its engine knows the gateway; empty where it asks for none.
    """

    namespace: str
    name: str
    uid: str
    names: tuple[str, ...]
    served_name: str
    task: str
    phase: str
    message: str
    created: int
    replicas: tuple[Replica, ...]
    balancer: Balancer
    metrics: ModelMetrics
    engine: str = ""
    parts_prompts: bool = True
    media_hosts: frozenset[str] = frozenset()
    authorization: bytes = b""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


class Table:
    """All model services, by namespace and by the names they answer to."""

    def __init__(self, upstreams: Upstreams, metrics: Metrics, engine_secret: str = "") -> None:
        self._upstreams = upstreams
        self._engine_secret = engine_secret
        self._metrics = metrics
        self._routes: dict[tuple[str, str], Route] = {}
        self._index: dict[str, dict[str, Route]] = {}

    # kept up to date by discovery

    def replace(self, services: Iterable[ModelService]) -> None:
        """Take these and no others."""
        routes = {(s.metadata.namespace or "", s.metadata.name): self._route(s) for s in services}
        self._routes = routes
        self._index = {}
        for namespace in {namespace for namespace, _ in routes}:
            self._reindex(namespace)
        self._retain()

    def put(self, service: ModelService) -> None:
        """Add one, or take over how it is now."""
        key = (service.metadata.namespace or "", service.metadata.name)
        old, new = self._routes.get(key), self._route(service)
        self._routes[key] = new
        if old is not None and (old.uid, old.names) == (new.uid, new.names):
            # Most changes are of the status alone, such as a download's progress: no name moves.
            index = self._index[new.namespace]
            index.update({name: new for name in new.names if index[name] is old})
            if old.replicas == new.replicas:
                return
        else:
            self._reindex(new.namespace)
        self._retain()

    def remove(self, service: ModelService) -> None:
        """Forget one."""
        namespace = service.metadata.namespace or ""
        self._routes.pop((namespace, service.metadata.name), None)
        self._reindex(namespace)
        self._retain()

    def _route(self, service: ModelService) -> Route:
        meta, status = service.metadata, service.status
        namespace, uid = meta.namespace or "", meta.uid or service.key
        old = self._routes.get((namespace, meta.name))
        health = HEALTH_PATHS.get(status.engine, b"")
        label = service.key if namespace == PUBLIC_NAMESPACE else uid
        return Route(
            namespace=namespace,
            name=meta.name,
            uid=uid,
            names=service.model_names,
            served_name=service.served_name,
            task=status.task,
            phase="Deleting" if meta.deletion_timestamp else status.phase,
            message=status.message,
            created=int(meta.creation_timestamp.timestamp()) if meta.creation_timestamp else 0,
            replicas=tuple(self._upstreams.replica(e.replica, e.url, health) for e in status.endpoints),
            balancer=old.balancer if old is not None and old.uid == uid else LeastOutstanding(),
            metrics=self._metrics.model(uid, label),
            engine=status.engine,
            parts_prompts=service.parts_prompts,
            media_hosts=frozenset(service.spec.media_hosts),
            authorization=self._authorization(uid) if status.engine == "custom" else b"",
        )

    def _authorization(self, uid: str) -> bytes:
        key = engine_key(self._engine_secret, uid)
        return b"authorization: Bearer %s\r\n" % key.encode() if key else b""

    def _reindex(self, namespace: str) -> None:
        """A resource's own name wins over a served name or alias of another, else the older resource does."""
        routes = [r for (ns, _), r in self._routes.items() if ns == namespace]
        index: dict[str, Route] = {}
        for route in sorted(routes, key=lambda r: (r.created, r.name)):
            for name in route.names:
                index.setdefault(name, route)
        index.update({r.name: r for r in routes})
        if index:
            self._index[namespace] = index
        else:
            self._index.pop(namespace, None)

    def _retain(self) -> None:
        self._upstreams.retain(replica for route in self._routes.values() for replica in route.replicas)
        self._metrics.retain(route.uid for route in self._routes.values())

    # asked for every request

    def resolve(self, caller: Caller, model: str) -> Route:
        """The model that `caller` means by `model`: ``namespace/name``, or a name on their search path.

        Raises
        ------
        Forbidden
            The token may invoke nothing at all.
        ModelNotFound
            There is none of that name that they may invoke.
        """
        require_invoke(caller)
        if "/" in model:
            namespace, _, name = model.partition("/")
            route = self._index.get(namespace, {}).get(name)
            if route is not None and may(caller, "invoke", ModelService, namespace).allowed:
                return route
            if namespace == PUBLIC_NAMESPACE or namespace.startswith(("user-", "group-")):
                raise self._not_found(caller, model)  # never an alias of that name elsewhere
        found = [
            route
            for namespace in caller.search_path
            if (route := self._index.get(namespace, {}).get(model)) is not None
            and may(caller, "invoke", ModelService, namespace).allowed
        ]
        if not found:
            raise self._not_found(caller, model)
        if found[0].namespace in caller.group_namespaces and len(found) > 1:
            raise self._ambiguous(model, found)
        return found[0]

    def visible(self, caller: Caller, *, everywhere: bool = False) -> Iterator[Route]:
        """What `caller` may invoke: on their search path, or in every namespace."""
        path = caller.search_path
        others = sorted(set(self._index) - set(path)) if everywhere else []
        for namespace in (*path, *others):
            if namespace in self._index and may(caller, "invoke", ModelService, namespace).allowed:
                own = (r for (ns, _), r in self._routes.items() if ns == namespace)
                yield from sorted(own, key=lambda r: r.name)

    def suggestions(self, caller: Caller) -> str:
        """What `caller` can use, as a sentence."""
        names = [display_name(caller, route, route.name) for route in self.visible(caller)]
        if not names:
            return "You have no model yet. Start one in a notebook: %llmos serve demo://smollm2 --name chat"
        more = f" and {len(names) - _NAMES_SHOWN} more (GET /v1/models)" if len(names) > _NAMES_SHOWN else ""
        return f"You can use: {', '.join(names[:_NAMES_SHOWN])}{more}."

    def _ambiguous(self, model: str, routes: Sequence[Route]) -> ModelNotFound:
        """No group goes before another: each of its members can make a model of any name there."""
        names = " or ".join(f"{route.namespace}/{printable(model)}" for route in routes)
        return ModelNotFound(f'Several of your groups have a model "{printable(model)}". Say which: {names}.')

    def _not_found(self, caller: Caller, model: str) -> ModelNotFound:
        meant: dict[str, str] = {}
        for route in self.visible(caller):
            for name in route.names:
                shown = display_name(caller, route, name)
                meant.setdefault(name, shown)
                meant.setdefault(shown, shown)
        compared = islice((name for name in meant if len(name) <= _NAME_COMPARED), _NAMES_COMPARED)
        close = get_close_matches(model[:_NAME_COMPARED], compared, n=1)
        hint = f' Did you mean "{meant[close[0]]}"?' if close else ""
        return ModelNotFound(
            f'No model "{printable(model)}" that you may use. {self.suggestions(caller)}{hint}',
        )


def require_invoke(caller: Caller) -> None:
    """Refuse a token that may invoke nothing, with the reason, before anything else is said.

    Raises
    ------
    Forbidden
        Not even in the caller's own namespace.
    """
    decision = may(caller, "invoke", ModelService, caller.namespace)
    if not decision.allowed:
        raise Forbidden(decision.reason)


def display_name(caller: Caller, route: Route, name: str) -> str:
    """How `caller` may call it: bare in their own namespace, with the namespace elsewhere."""
    return name if route.namespace == caller.namespace else f"{route.namespace}/{name}"


def printable(text: str) -> str:
    """A client's own words, short and without control characters, to be shown or logged."""
    return "".join(c if c.isprintable() else "?" for c in text[:_NAME_SHOWN]) + ("…" if len(text) > _NAME_SHOWN else "")


_HINTS: Final = {
    "Pending": (3, "It waits to be started"),
    "Downloading": (10, "Its files are being downloaded"),
    "Starting": (2, "It is starting"),
    "Ready": (1, "Its replicas are being replaced"),
    "Degraded": (2, "None of its replicas answers at the moment"),
    "Paused": (60, "It is paused; start it with: %llmos start {name}"),
    "Failed": (30, "It failed; the reason and its last log lines: %llmos describe {name}"),
    "Deleting": (60, "It is being deleted"),
}


def not_ready(route: Route) -> tuple[ModelNotReady, int]:
    """The error for a model without a ready replica, and after how many seconds to try again."""
    seconds, hint = _HINTS.get(route.phase, (5, "It is not running"))
    message = f'Model "{route.name}" is not ready ({route.phase}). {hint.format(name=route.name)}.'
    if route.message:
        message = f"{message} {route.message.rstrip('.')}."
    return ModelNotReady(message), seconds


def wrong_task(route: Route, path: str) -> Unsupported:
    """The error for a model that is asked for what it is not made for."""
    does = _TASKS.get(route.task, f"is for {route.task}")
    return Unsupported(
        f'Model "{route.name}" {does} and can\'t answer {path}. Use {_ENDPOINTS.get(route.task, "another endpoint")}.'
    )
