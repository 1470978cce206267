"""Operations on the resources of one kind."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from llmos.client._async.files import AsyncFiles
from llmos.client._async.transport import AsyncTransport
from llmos.client._async.watching import fetch_listing, steps
from llmos.client.messages import Event, Listing, Step, WatchEvent, read
from llmos.client.progress import Progress, ProgressTracker, failure, too_slow
from llmos.client.requests import APPLY, JSON, MERGE, label_selector, resource_path
from llmos.client.timing import AsyncText, asleep
from llmos.errors import NotFound, Unavailable, Unsupported
from llmos.resources import Resource
from llmos.resources.base import utcnow

__all__ = ["AsyncCollection"]

R = TypeVar("R", bound=Resource)
_ALL = "*"


class AsyncCollection(Generic[R]):
    """The resources of one kind; created by `AsyncClient.collection`.

    In all methods ``namespace`` is by default the caller's own.

    Parameters
    ----------
    kind
        The type of resource.
    transport
        The connection to the API.
    own_namespace
        Returns the caller's own namespace.
    """

    def __init__(self, kind: type[R], transport: AsyncTransport, own_namespace: AsyncText) -> None:
        self.kind = kind
        self._transport = transport
        self._own_namespace = own_namespace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind.plural} at {self._transport.service.url}>"

    async def _namespace(self, namespace: str | None) -> str | None:
        """Return the given namespace or the caller's own; None for cluster-scoped kinds."""
        if self.kind.scope == "Cluster":
            return None
        if namespace is not None:
            return None if namespace == _ALL else namespace
        return await self._own_namespace()

    async def list(self, *, namespace: str | None = None, labels: Mapping[str, str] | str | None = None) -> Listing[R]:
        """Return the resources of a namespace.

        Parameters
        ----------
        namespace
            The namespace; ``"*"`` for all namespaces that the caller may see.
        labels
            Labels that the resources must have, as a mapping or as ``a=1,b=2``.
        """
        where = await self._namespace(namespace)
        return await fetch_listing(self._transport, self.kind, where, label_selector(labels))

    async def get(self, name: str, *, namespace: str | None = None) -> R:
        """Return one resource.

        Raises
        ------
        NotFound
            No resource has that name.
        """
        path = resource_path(self.kind, await self._namespace(namespace), name)
        return read(self.kind, await self._transport.request("GET", path))

    async def create(
        self, resource: R | Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False
    ) -> R:
        """Create a resource.

        Parameters
        ----------
        resource
            The resource or its manifest.
        namespace
            The namespace; by default that of the resource.
        dry_run
            Check everything, but store nothing.

        Raises
        ------
        AlreadyExists
            A resource of that name exists.
        Invalid
            The resource is invalid; the error has the path of each invalid field.
        """
        return await self._submit("POST", resource, namespace, dry_run=dry_run)

    async def update(
        self, resource: R | Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False
    ) -> R:
        """Replace an existing resource completely.

        Raises
        ------
        NotFound
            No resource has that name.
        Conflict
            The resource was changed after it was read.
        """
        return await self._submit("PUT", resource, namespace, dry_run=dry_run)

    async def apply(self, resource: R | Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False) -> R:
        """Create the resource, or replace its ``spec`` and merge its labels and annotations.

        Raises
        ------
        Conflict
            The resource is being deleted, or was changed after it was read.
        Invalid
            The resource is invalid; the error has the path of each invalid field.
        """
        return await self._submit("PATCH", resource, namespace, dry_run=dry_run, content_type=APPLY)

    async def patch(
        self, name: str, patch: Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False
    ) -> R:
        """Change some fields by a JSON merge patch (RFC 7396): omitted fields stay, ``None`` removes a field.

        Parameters
        ----------
        name
            Name of the resource.
        patch
            The patch, such as ``{"spec": {"replicas": 2}}``.
        namespace, dry_run
            As for `create`.
        """
        path = resource_path(self.kind, await self._namespace(namespace), name)
        return await self._write("PATCH", path, dict(patch), MERGE, dry_run=dry_run)

    async def delete(self, name: str, *, namespace: str | None = None, dry_run: bool = False) -> R:
        """Request the deletion of a resource; `wait_deleted` waits until it is gone.

        Returns
        -------
        Resource
            Its last state. If `rests_until` is set, it rests until then, and its deletion can be undone.

        Raises
        ------
        NotFound
            No resource has that name.
        """
        path = resource_path(self.kind, await self._namespace(namespace), name)
        params = {"dryRun": "All"} if dry_run else None
        return read(self.kind, await self._transport.request("DELETE", path, params=params, repeatable=False))

    async def wait_deleted(self, name: str, *, namespace: str | None = None, timeout: float = 60.0) -> None:
        """Wait until a resource is deleted.

        Raises
        ------
        Unavailable
            The resource still exists after `timeout` seconds.
        """
        where = await self._namespace(namespace)
        key = f"{where}/{name}" if where else name
        deadline = time.monotonic() + timeout
        watch = steps(self._transport, self.kind, where, deadline=deadline)
        async with aclosing(watch) as states:
            async for step in states:
                if not step.away and key not in step.items:
                    return
                if time.monotonic() >= deadline:
                    break
        message = f"{name} is still being deleted after {timeout:.0f} s. The deletion continues; look with: llmos get {self.kind.singular} {name}"
        raise Unavailable(message)

    def files(self, name: str, *, namespace: str | None = None) -> AsyncFiles:
        """Return the files of a resource, to list, upload and download.

        Raises
        ------
        Unsupported
            Resources of this kind have no files.
        """
        self._require(self.kind.has_files, "have no files")

        async def where() -> str:
            return await self._namespace(namespace) or ""

        return AsyncFiles(self.kind, name, self._transport, where)

    async def exists(self, name: str, *, namespace: str | None = None) -> bool:
        """Return whether a resource of that name exists."""
        try:
            await self.get(name, namespace=namespace)
        except NotFound:
            return False
        return True

    async def steps(
        self,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | str | None = None,
        patience: float = 60.0,
        quiet: float = 45.0,
        deadline: float = math.inf,
    ) -> AsyncGenerator[Step[R]]:
        """Yield all resources, again after each change, without end; made for displays.

        Parameters
        ----------
        namespace, labels
            As for `list`.
        patience
            Maximum time in seconds that the API may be unreachable; meanwhile `Step.away` says so.
        quiet
            Time in seconds without a change after which a step is yielded anyway.
        deadline
            Moment of ``time.monotonic`` at which a step is yielded in any case.
        """
        where = await self._namespace(namespace)
        watch = steps(
            self._transport,
            self.kind,
            where,
            label_selector(labels),
            patience=patience,
            quiet=quiet,
            deadline=deadline,
        )
        async with aclosing(watch) as states:
            async for step in states:
                yield step

    async def watch(
        self,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | str | None = None,
        patience: float = 60.0,
        on_away: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[WatchEvent[R]]:
        """Yield all changes, without end, beginning with an ``ADDED`` event for each existing resource.

        Parameters
        ----------
        namespace, labels
            As for `list`.
        patience
            Maximum time in seconds that the API may be unreachable; changes of that time are found by comparison.
        on_away
            Called with a sentence when the API doesn't respond.

        Raises
        ------
        Unavailable
            The API was unreachable for longer than `patience`.
        """
        async with aclosing(self.steps(namespace=namespace, labels=labels, patience=patience)) as states:
            async for step in states:
                if step.away and on_away is not None:
                    on_away(step.away)
                for event in step.events:
                    yield event

    async def progress(
        self,
        name: str,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        patience: float = 60.0,
    ) -> AsyncGenerator[Progress]:
        """Follow a resource until it is ready; each item is its current progress, the last one is ready.

        Ending the iteration ends the watch, not the resource's way. While the API is unreachable, `Progress.away` says
        so; the watch continues when the API is back.

        Parameters
        ----------
        name, namespace
            The resource to follow.
        timeout
            Maximum time to wait in seconds; by default unlimited.
        patience
            Maximum time in seconds that the API may be unreachable.

        Raises
        ------
        NotFound
            The resource doesn't exist, or was deleted meanwhile.
        NotReady
            It failed, is stopped, or is not ready after `timeout`; for a model its subclass ModelNotReady.
        Unavailable
            The API was unreachable for longer than `patience`.
        Unsupported
            Resources of this kind have no phases to wait for.
        """
        self._require(bool(self.kind.phases), "have no phases to wait for")
        where = await self._namespace(namespace)
        key = f"{where}/{name}" if where else name
        deadline = time.monotonic() + timeout if timeout is not None else math.inf
        tracker = ProgressTracker(self.kind, name, where or "", utcnow())
        last: Progress | None = None
        watch = self.steps(namespace=where, patience=patience, quiet=10.0, deadline=deadline)
        async with aclosing(watch) as states:
            async for step in states:
                resource = step.items.get(key)
                if resource is None and not step.away:
                    if last is not None:
                        raise NotFound(f"{name} was deleted meanwhile.")
                    resource = await self.get(name, namespace=where)  # the API's error has similar names
                progress = tracker.see(resource, utcnow(), away=step.away)
                if not progress.same_as(last):
                    yield progress
                last = progress
                if not step.away and progress.ready:
                    return
                if not step.away and progress.failed:
                    raise failure(progress)
                if time.monotonic() >= deadline:
                    raise too_slow(progress, timeout or 0.0)
        raise self.kind.not_ready(f"The watch of {name} ended.")

    async def wait_ready(
        self,
        name: str,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        patience: float = 60.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> R:
        """Wait until a resource is ready, and return it.

        Parameters
        ----------
        name, namespace, timeout, patience
            As for `progress`, which also has the errors.
        on_progress
            Called after each change.
        """
        last: Progress | None = None
        watch = self.progress(name, namespace=namespace, timeout=timeout, patience=patience)
        async with aclosing(watch) as states:
            async for last in states:
                if on_progress is not None:
                    on_progress(last)
        if last is None or not isinstance(last.resource, self.kind):  # a watch that ends without an error is ready
            return await self.get(name, namespace=namespace)
        return last.resource

    async def stop(self, name: str, *, namespace: str | None = None) -> R:
        """End all processes of a resource, and keep it.

        Raises
        ------
        Unsupported
            Resources of this kind can't be stopped.
        """
        self._require(self.kind.pausable, "can't be stopped")
        return await self.patch(name, {"spec": {"paused": True}}, namespace=namespace)

    async def start(self, name: str, *, namespace: str | None = None) -> R:
        """Start a stopped resource again; `wait_ready` waits until it is ready.

        Raises
        ------
        Unsupported
            Resources of this kind can't be started.
        """
        self._require(self.kind.pausable, "can't be started")
        return await self.patch(name, {"spec": {"paused": False}}, namespace=namespace)

    async def scale(self, name: str, replicas: int, *, namespace: str | None = None) -> R:
        """Set the number of replicas.

        Raises
        ------
        Unsupported
            Resources of this kind have no replicas.
        """
        self._require(self.kind.scalable, "have no replicas")
        return await self.patch(name, {"spec": {"replicas": replicas}}, namespace=namespace)

    def _require(self, able: bool, otherwise: str) -> None:
        if not able:
            raise Unsupported(f"{self.kind.plural[:1].upper()}{self.kind.plural[1:]} {otherwise}.")

    async def events(self, name: str, *, namespace: str | None = None) -> Sequence[Event]:
        """Return the events of a resource, oldest first."""
        path = resource_path(self.kind, await self._namespace(namespace), name, "events")
        data = await self._transport.request("GET", path)
        items = data.get("items") if isinstance(data, dict) else None
        return [read(Event, item) for item in items or ()]

    async def logs(
        self,
        name: str,
        *,
        namespace: str | None = None,
        tail: int | None = None,
        follow: bool = False,
        replica: str | None = None,
    ) -> AsyncGenerator[str]:
        """Yield the log of a resource's processes, piece by piece.

        Parameters
        ----------
        name, namespace
            The resource.
        tail
            Number of lines from the end to begin with; by default all.
        follow
            Continue with new lines, without end. A stream that the API ends after its maximum time is opened again.
        replica
            Only the log of this replica.

        Raises
        ------
        Unsupported
            No processes run for resources of this kind.
        """
        self._require(self.kind.has_logs, "have no logs")
        path = resource_path(self.kind, await self._namespace(namespace), name, "logs")
        read_timeout = None if follow else 30.0
        while True:
            given = {"tailLines": tail, "follow": "1" if follow else None, "replica": replica}
            params = {key: str(value) for key, value in given.items() if value is not None}
            async with self._transport.stream("GET", path, params=params, read_timeout=read_timeout) as response:
                async for text in response.aiter_text():
                    yield text
            if not follow:
                return
            # the API ends every stream after a while, so that a forgotten one doesn't stay open for ever
            tail = 0
            await asleep(1.0)

    async def _submit(
        self,
        method: str,
        resource: R | Mapping[str, Any],
        namespace: str | None,
        *,
        dry_run: bool,
        content_type: str = JSON,
    ) -> R:
        """Send a resource without its status, which clients don't write."""
        if not isinstance(resource, Resource):  # validated here, so that a mistake costs no request
            resource = self.kind.parse({"kind": self.kind.kind_name(), **resource})
        metadata = resource.metadata
        where = await self._namespace(metadata.namespace or None if namespace is None else namespace)
        path = resource_path(self.kind, where, None if method == "POST" else metadata.name)
        data = {key: value for key, value in resource.document().items() if key != "status"}
        return await self._write(method, path, data, content_type, dry_run=dry_run)

    async def _write(self, method: str, path: str, data: Any, content_type: str, *, dry_run: bool) -> R:
        params = {"dryRun": "All"} if dry_run else None
        repeatable = method != "POST"
        data = await self._transport.request(
            method, path, params=params, data=data, content_type=content_type, repeatable=repeatable
        )
        return read(self.kind, data)
