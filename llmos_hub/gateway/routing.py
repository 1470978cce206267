"""The routing table: the known models, and the one that a caller means by a name.

The table is a copy of the store's ModelServices, kept by `llmos_hub.gateway.discovery`. A lookup never
waits. For a caller, a model that they may not invoke is not found, as if it did not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

from llmos.errors import ModelNotFound, ModelNotReady, Unsupported
from llmos.resources import ModelService
from llmos_hub.engine_keys import engine_key
from llmos_hub.gateway.balancers import Balancer, LeastOutstanding
from llmos_hub.gateway.hanging import HEALTH_PATHS
from llmos_hub.gateway.metrics import GatewayMetrics, ModelMetrics
from llmos_hub.gateway.upstream import UpstreamReplica, Upstreams
from llmos_hub.names import PUBLIC_NAMESPACE
from llmos_hub.policy import Ref, Rights

__all__ = ["SOON_READY", "RoutingTable", "ServedModel", "not_ready", "wrong_task"]

_NAMES_SHOWN: Final = 20
_NAME_SHOWN: Final = 128
_NAMES_COMPARED: Final = 50
_NAME_COMPARED: Final = 64
"""Maximum number and length of the names that are compared to suggest the one that was meant. The time for a comparison
grows with the square of the length: 20,000 aliases chosen for it would block the gateway for a minute."""

_TASKS: Final = {"generate": "generates text", "embed": "makes embeddings", "rerank": "ranks documents"}
_ENDPOINTS: Final = {
    "generate": "/v1/chat/completions or /v1/completions",
    "embed": "/v1/embeddings",
    "rerank": "none of this gateway's endpoints yet",
}


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model service as the gateway needs it.

    Attributes
    ----------
    ref
        Reference to the resource, to ask for the right to invoke it.
    namespace, name, uid
        Namespace, name and uid of the resource.
    names
        All names by which it can be addressed in its namespace, its own first.
    served_name
        The name under which the engine knows its model.
    task
        ``generate``, ``embed``, ``rerank``; empty while unknown.
    phase, message
        Phase and message of its status.
    created
        Its creation, in Unix time.
    replicas
        The ready replicas.
    engine
        The engine that serves it, from its status; empty while unknown.
    media_hosts
        Hosts from which the engine may fetch media that a request refers to by URL.
    parts_prompts
        True if the engine's prompt cache is separated by caller.
    authorization
        The header line that authenticates the gateway to its engine; empty if the engine needs none.
    """

    ref: Ref
    namespace: str
    name: str
    uid: str
    names: tuple[str, ...]
    served_name: str
    task: str
    phase: str
    message: str
    created: int
    replicas: tuple[UpstreamReplica, ...]
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


class RoutingTable:
    """A table of all model services, by namespace and by the names by which they can be addressed."""

    def __init__(self, upstreams: Upstreams, metrics: GatewayMetrics, engine_secret: str = "") -> None:
        self._upstreams = upstreams
        self._engine_secret = engine_secret
        self._metrics = metrics
        self._models: dict[tuple[str, str], ServedModel] = {}
        self._index: dict[str, dict[str, ServedModel]] = {}
        self._awaited: dict[str, asyncio.Event] = {}  # by uid

    # kept up to date by discovery

    def replace(self, services: Iterable[ModelService]) -> None:
        """Replace all services by these."""
        models = {(s.metadata.namespace or "", s.metadata.name): self._model(s) for s in services}
        self._models = models
        self._index = {}
        for namespace in {namespace for namespace, _ in models}:
            self._reindex(namespace)
        self._retain()

    def put(self, service: ModelService) -> None:
        """Add or update a service."""
        key = (service.metadata.namespace or "", service.metadata.name)
        old, new = self._models.get(key), self._model(service)
        self._models[key] = new
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
        """Remove a service."""
        namespace = service.metadata.namespace or ""
        self._models.pop((namespace, service.metadata.name), None)
        self._reindex(namespace)
        self._retain()

    def _model(self, service: ModelService) -> ServedModel:
        meta, status = service.metadata, service.status
        namespace, uid = meta.namespace or "", meta.uid or service.key
        old = self._models.get((namespace, meta.name))
        health = HEALTH_PATHS.get(status.engine, b"")
        label = service.key if namespace == PUBLIC_NAMESPACE else uid
        return ServedModel(
            ref=Ref.of(service),
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
        """Rebuild the index of names of a namespace.

        A resource's own name takes precedence over a served name or alias of another; otherwise the older one does.
        """
        models = [m for (ns, _), m in self._models.items() if ns == namespace]
        index: dict[str, ServedModel] = {}
        for model in sorted(models, key=lambda m: (m.created, m.name)):
            for name in model.names:
                index.setdefault(name, model)
        index.update({m.name: m for m in models})
        if index:
            self._index[namespace] = index
        else:
            self._index.pop(namespace, None)

    def _retain(self) -> None:
        models = {model.uid: model for model in self._models.values()}
        self._upstreams.retain(replica for model in models.values() for replica in model.replicas)
        self._metrics.retain(models)
        for uid in [uid for uid in self._awaited if uid not in models or models[uid].replicas]:
            self._awaited.pop(uid).set()

    # used for requests

    async def wait_for_replica(self, model: ServedModel, seconds: float) -> None:
        """Wait until a model without a replica has one, is deleted, or `seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awaited.setdefault(model.uid, asyncio.Event()).wait(), seconds)

    def resolve(self, rights: Rights, asked: str) -> ServedModel:
        """Return the model that a caller means by `asked`: ``namespace/name``, or a name on their search path.

        Raises
        ------
        ModelNotFound
            There is no model of that name that they may invoke.
        """
        if "/" in asked:
            namespace, _, name = asked.partition("/")
            model = self._index.get(namespace, {}).get(name)
            if model is not None and rights.may("invoke", model.ref):
                return model
            if namespace == PUBLIC_NAMESPACE or namespace.startswith(("user-", "group-")):
                raise self._not_found(rights, asked)  # never an alias of that name elsewhere
        found = [
            model
            for namespace in rights.search_path
            if (model := self._index.get(namespace, {}).get(asked)) is not None and rights.may("invoke", model.ref)
        ]
        if not found:
            raise self._not_found(rights, asked)
        if len(found) > 1 and found[0].namespace in rights.caller.group_namespaces:
            raise self._ambiguous(asked, found)
        return found[0]

    def visible(self, rights: Rights, *, everywhere: bool = False) -> Iterator[ServedModel]:
        """Yield the models that a caller may invoke: those on their search path, or in all namespaces."""
        path = rights.search_path
        others = sorted(set(self._index) - set(path)) if everywhere else []
        for namespace in (*path, *others):
            if namespace in self._index:
                own = (m for (ns, _), m in self._models.items() if ns == namespace and rights.may("invoke", m.ref))
                yield from sorted(own, key=lambda m: m.name)

    def suggestions(self, rights: Rights) -> str:
        """Return a sentence with the models that a caller can use."""
        names = [display_name(rights, model, model.name) for model in self.visible(rights)]
        if not names:
            return "You have no model yet. Start one: llmos serve demo://smollm2 --name chat"
        more = f" and {len(names) - _NAMES_SHOWN} more (GET /v1/models)" if len(names) > _NAMES_SHOWN else ""
        return f"You can use: {', '.join(names[:_NAMES_SHOWN])}{more}."

    def _ambiguous(self, asked: str, models: Sequence[ServedModel]) -> ModelNotFound:
        """Return the error for a name that several groups have."""
        # No group takes precedence: each of its members can create a model of any name there.
        names = " or ".join(f"{model.namespace}/{printable(asked)}" for model in models)
        return ModelNotFound(f'Several of your groups have a model "{printable(asked)}". Say which: {names}.')

    def _not_found(self, rights: Rights, asked: str) -> ModelNotFound:
        meant: dict[str, str] = {}
        for model in self.visible(rights):
            for name in model.names:
                shown = display_name(rights, model, name)
                meant.setdefault(name, shown)
                meant.setdefault(shown, shown)
        compared = islice((name for name in meant if len(name) <= _NAME_COMPARED), _NAMES_COMPARED)
        close = get_close_matches(asked[:_NAME_COMPARED], compared, n=1)
        hint = f' Did you mean "{meant[close[0]]}"?' if close else ""
        return ModelNotFound(
            f'No model "{printable(asked)}" that you may use. {self.suggestions(rights)}{hint}',
        )


def display_name(rights: Rights, model: ServedModel, name: str) -> str:
    """Return the name by which a caller can address the model: without the namespace if it is their own."""
    return name if model.namespace == rights.search_path[0] else f"{model.namespace}/{name}"


def printable(text: str) -> str:
    """Return text from a client, shortened and without control characters, to be shown or logged."""
    return "".join(c if c.isprintable() else "?" for c in text[:_NAME_SHOWN]) + ("…" if len(text) > _NAME_SHOWN else "")


SOON_READY: Final = frozenset({"Pending", "Starting", "Ready", "Degraded"})
"""The phases of a model that may have a replica within a moment."""
_HINTS: Final = {
    "Pending": (3, "It waits to be started"),
    "Downloading": (10, "Its files are being downloaded"),
    "Starting": (2, "It is starting"),
    "Ready": (1, "Its replicas are being replaced"),
    "Degraded": (2, "None of its replicas answers at the moment"),
    "Paused": (60, "It is paused; start it with: llmos start {name}"),
    "Failed": (30, "It failed; the reason and its last log lines: llmos describe {name}"),
    "Deleting": (60, "It is being deleted"),
}


def not_ready(model: ServedModel, rights: Rights) -> tuple[ModelNotReady, int]:
    """Return the error for a model without a ready replica, and the seconds after which to retry.

    It names commands as the caller can type them, and none that would be refused: a public model's log is for admins.
    """
    seconds, hint = _HINTS.get(model.phase, (5, "It is not running"))
    name = model.name if model.namespace == rights.search_path[0] else f"{model.name} -n {model.namespace}"
    message, see = model.message, f"See why: llmos logs {model.name}"
    if rights.owner_may("logs", model.ref):
        message = message.replace(see, f"See why: llmos logs {name}")
    else:
        message = message.replace(see, "An admin can see why")
    if model.phase == "Paused" and not rights.owner_may("update", model.ref):
        hint = "It is paused; an admin can start it"
    message = f'Model "{model.name}" is not ready ({model.phase}). {hint.format(name=name)}. {message.rstrip(".")}'
    message = f"{message.rstrip('. ')}."
    return ModelNotReady(message), seconds


def wrong_task(model: ServedModel, path: str) -> Unsupported:
    """Return the error for a model that is not made for the task of an endpoint."""
    does = _TASKS.get(model.task, f"is for {model.task}")
    return Unsupported(
        f'Model "{model.name}" {does} and can\'t answer {path}. Use {_ENDPOINTS.get(model.task, "another endpoint")}.'
    )
