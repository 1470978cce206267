# Made from ../_async/collection.py by tools/unasync.py. Change that file, then run: python tools/unasync.py
"""The resources of one kind, as the API keeps them."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

from llmos.client._sync.transport import Transport
from llmos.client._sync.watching import fetch_listing, steps
from llmos.client.messages import Event, Listing, Step, WatchEvent, read_event, read_resource
from llmos.client.requests import APPLY, MERGE, Body, label_selector, make_body, resource_path
from llmos.client.timing import Text, sleep
from llmos.errors import NotFound, Unavailable
from llmos.resources import Resource

__all__ = ["Collection"]

R = TypeVar("R", bound=Resource)
_ALL = "*"


class Collection(Generic[R]):
    """The resources of one kind; made by `Client.collection`.

    ``namespace`` is everywhere the caller's own where it isn't given.

    Parameters
    ----------
    kind
        The type of resource.
    transport
        Asks the API.
    own_namespace
        Finds the caller's own namespace.
    """

    def __init__(self, kind: type[R], transport: Transport, own_namespace: Text) -> None:
        self.kind = kind
        self._transport = transport
        self._own_namespace = own_namespace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind.plural} at {self._transport.service.url}>"

    def _namespace(self, namespace: str | None, resource: Any = None) -> str | None:
        """The namespace to ask in: given, in the resource, or the caller's own; None for kinds without."""
        if self.kind.scope == "Cluster":
            return None
        if namespace is not None:
            return None if namespace == _ALL else namespace
        if isinstance(resource, Resource) and resource.metadata.namespace:
            return resource.metadata.namespace
        if isinstance(resource, Mapping):
            metadata = resource.get("metadata")
            if isinstance(metadata, Mapping) and metadata.get("namespace"):
                return str(metadata["namespace"])
        return self._own_namespace()

    def list(self, *, namespace: str | None = None, labels: Mapping[str, str] | str | None = None) -> Listing[R]:
        """Read all of a namespace.

        Parameters
        ----------
        namespace
            Where; ``"*"`` for all namespaces, which only admins may.
        labels
            Labels that must be there with that value, as a mapping or as ``a=1,b=2``.
        """
        where = self._namespace(namespace)
        return fetch_listing(self._transport, self.kind, where, label_selector(labels))

    def get(self, name: str, *, namespace: str | None = None) -> R:
        """Read one.

        Raises
        ------
        NotFound
            There is none of that name.
        """
        path = resource_path(self.kind, self._namespace(namespace), name)
        return read_resource(self.kind, self._transport.request("GET", path))

    def create(
        self, resource: R | Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False
    ) -> R:
        """Make a new one.

        Parameters
        ----------
        resource
            The resource, or the manifest of one.
        namespace
            Where; else where the resource says.
        dry_run
            Check everything and store nothing.

        Raises
        ------
        AlreadyExists
            There is one of that name.
        Invalid
            With the path of every field at fault.
        """
        path = resource_path(self.kind, self._namespace(namespace, resource))
        return self._write("POST", path, make_body(self._checked(resource)), dry_run=dry_run)

    def update(
        self, resource: R | Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False
    ) -> R:
        """Replace an existing one whole.

        Raises
        ------
        NotFound
            There is none of that name.
        Conflict
            It was changed since it was read.
        """
        path = resource_path(self.kind, self._namespace(namespace, resource), _name_of(resource))
        return self._write("PUT", path, make_body(self._checked(resource)), dry_run=dry_run)

    def apply(self, resource: R | Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False) -> R:
        """Make it, or replace its ``spec`` and merge its labels and annotations.

        Raises
        ------
        Conflict
            It is being deleted, or was changed since it was read.
        Invalid
            With the path of every field at fault.
        """
        path = resource_path(self.kind, self._namespace(namespace, resource), _name_of(resource))
        return self._write("PATCH", path, make_body(self._checked(resource), APPLY), dry_run=dry_run)

    def patch(
        self, name: str, patch: Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False
    ) -> R:
        """Change some fields (RFC 7396): what is left out stays, ``None`` removes.

        Parameters
        ----------
        name
            Whose.
        patch
            Such as ``{"spec": {"replicas": 2}}``.
        namespace, dry_run
            As for `create`.
        """
        path = resource_path(self.kind, self._namespace(namespace), name)
        return self._write("PATCH", path, make_body(dict(patch), MERGE), dry_run=dry_run)

    def delete(self, name: str, *, namespace: str | None = None, dry_run: bool = False) -> None:
        """Ask for deletion; see `wait_deleted` for when it is gone.

        Raises
        ------
        NotFound
            There is none of that name.
        """
        path = resource_path(self.kind, self._namespace(namespace), name)
        params = {"dryRun": "All"} if dry_run else None
        self._transport.request("DELETE", path, params=params, repeatable=False)

    def wait_deleted(self, name: str, *, namespace: str | None = None, timeout: float = 60.0) -> None:
        """Wait until there is none of that name any more.

        Raises
        ------
        Unavailable
            It is still there after `timeout` seconds.
        """
        where = self._namespace(namespace)
        key = f"{where}/{name}" if where else name
        deadline = time.monotonic() + timeout
        watch = steps(self._transport, self.kind, where, deadline=deadline)
        with closing(watch) as states:
            for step in states:
                if not step.away and key not in step.items:
                    return
                if time.monotonic() >= deadline:
                    break
        message = f"{name} is still being deleted after {timeout:.0f} s. It goes on; look with: llmos get {self.kind.singular} {name}"
        raise Unavailable(message)

    def exists(self, name: str, *, namespace: str | None = None) -> bool:
        """Whether there is one of that name."""
        try:
            self.get(name, namespace=namespace)
        except NotFound:
            return False
        return True

    def steps(
        self,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | str | None = None,
        patience: float = 60.0,
        quiet: float = 45.0,
        deadline: float = math.inf,
    ) -> Generator[Step[R]]:
        """Everything there is, again after each change, without end; for displays.

        Parameters
        ----------
        namespace, labels
            As for `list`.
        patience
            Seconds that the API may be away; meanwhile `Step.away` says so.
        quiet
            Seconds after which a step comes although nothing happened.
        deadline
            A moment of ``time.monotonic`` at which a step comes in any case.
        """
        where = self._namespace(namespace)
        watch = steps(
            self._transport,
            self.kind,
            where,
            label_selector(labels),
            patience=patience,
            quiet=quiet,
            deadline=deadline,
        )
        with closing(watch) as states:
            for step in states:
                yield step

    def watch(
        self,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | str | None = None,
        patience: float = 60.0,
        on_away: Callable[[str], None] | None = None,
    ) -> Generator[WatchEvent[R]]:
        """Every change, without end, beginning with an ``ADDED`` for each that is there.

        Parameters
        ----------
        namespace, labels
            As for `list`.
        patience
            Seconds that the API may be away; what changed meanwhile is found by comparing.
        on_away
            Told in a sentence when the API doesn't answer.

        Raises
        ------
        Unavailable
            The API was away for longer than `patience`.
        """
        with closing(self.steps(namespace=namespace, labels=labels, patience=patience)) as states:
            for step in states:
                if step.away and on_away is not None:
                    on_away(step.away)
                for event in step.events:
                    yield event

    def events(self, name: str, *, namespace: str | None = None) -> Sequence[Event]:
        """What happened to a resource, oldest first."""
        path = resource_path(self.kind, self._namespace(namespace), name, "events")
        data = self._transport.request("GET", path)
        items = data.get("items") if isinstance(data, dict) else data
        return [read_event(item) for item in items or () if isinstance(item, dict)]

    def logs(
        self,
        name: str,
        *,
        namespace: str | None = None,
        tail: int | None = None,
        follow: bool = False,
        replica: str | None = None,
    ) -> Generator[str]:
        """The log of a resource's processes, piece by piece as it comes.

        Parameters
        ----------
        name, namespace
            Whose.
        tail
            Only so many lines from the end.
        follow
            Go on as more is written, without end; the API's own limit of a stream's life is bridged.
        replica
            Of this replica alone.
        """
        path = resource_path(self.kind, self._namespace(namespace), name, "logs")
        while True:
            with closing(self._log_stream(path, tail, follow, replica)) as pieces:
                for text in pieces:
                    yield text
            if not follow:
                return
            # the API ends every stream after a while, so that a forgotten one doesn't stay for ever
            tail = 0
            sleep(1.0)

    def _log_stream(self, path: str, tail: int | None, follow: bool, replica: str | None) -> Generator[str]:
        params = {}
        if tail is not None:
            params["tailLines"] = str(tail)
        if follow:
            params["follow"] = "1"
        if replica is not None:
            params["replica"] = replica
        read_timeout = None if follow else 30.0
        with self._transport.stream("GET", path, params=params, read_timeout=read_timeout) as response:
            for text in response.iter_text():
                yield text

    def _checked(self, resource: R | Mapping[str, Any]) -> R | Mapping[str, Any]:
        """A manifest with its kind, validated here first, so that a mistake costs no request."""
        if isinstance(resource, Resource):
            return resource
        manifest = {"kind": self.kind.kind_name(), **resource}
        return self.kind.parse(manifest)

    def _write(self, method: str, path: str, body: Body, *, dry_run: bool) -> R:
        params = {"dryRun": "All"} if dry_run else None
        data = self._transport.request(method, path, params=params, body=body, repeatable=method != "POST")
        return read_resource(self.kind, data)


def _name_of(resource: Any) -> str:
    if isinstance(resource, Resource):
        return resource.metadata.name
    metadata = resource.get("metadata") if isinstance(resource, Mapping) else None
    return str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
