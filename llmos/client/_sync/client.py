# Made from ../_async/client.py by tools/unasync.py. Change that file, then run: python tools/unasync.py
"""The client: collections of resources, serving models, and the way to call them."""

from __future__ import annotations

import time
from collections.abc import Generator, Callable, Mapping, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from llmos.client._sync.collection import Collection
from llmos.client._sync.gateway import fetch_models, stream_chat
from llmos.client._sync.hub import search_hub
from llmos.client._sync.transport import Transport
from llmos.client.addresses import address_of, no_address
from llmos.client.messages import AvailableModel, ChatChunk, WhoAmI, read_whoami
from llmos.client.progress import Progress, ProgressTracker
from llmos.client.requests import Service, is_loopback
from llmos.client.serving import Submitted, failure, make_change, make_modelservice, too_slow
from llmos.configuration import Configuration, load
from llmos.errors import LLMOSError, ModelNotReady, NotFound, Unavailable, Unsupported
from llmos.resources import API_VERSION, KINDS, ModelService, Resource, kind_named
from llmos.resources.base import utcnow
from llmos.resources.node import Node, NodeList

if TYPE_CHECKING:
    import openai

__all__ = ["Client"]

R = TypeVar("R", bound=Resource)


class Client:
    """LLMOS from Python.

    With no argument it finds the platform as `llmos.configuration` says: in a server the Hub spawned and
    beside ``llmos up`` nothing needs to be set. Nothing is asked before the first call.

    Every kind of resource is an attribute by its plural: ``client.modelservices``, ``client.credentials``,
    ``client.settings`` (see `Collection`).

    Parameters
    ----------
    url, token
        The API's address (``https://hub.example.org/services/llmos``) and a token for it.
    gateway_url, gateway_token
        The gateway's address with ``/v1``, and a token for it.
    timeout
        Seconds an answer of the API may take.
    retries
        How often a request is repeated when nobody answers, over about a second.

    Raises
    ------
    NotConfigured
        What is set can't be right; that nothing is set is only said at the first call.

    Examples
    --------
    >>> with Client() as client:  # doctest: +SKIP
    ...     client.serve("demo://smollm2", name="chat")
    ...     for service in client.modelservices.list():
    ...         print(service.metadata.name, service.status.phase)
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        gateway_url: str | None = None,
        gateway_token: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        self.configuration: Configuration = load(
            url=url, token=token, gateway_url=gateway_url, gateway_token=gateway_token
        )
        self._timeout = timeout
        self._retries = retries
        self._api: Transport | None = None
        self._gateway: Transport | None = None
        self._whoami: WhoAmI | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.configuration.url or self.configuration.gateway_url or 'not configured'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections; the client can still be used and then makes new ones."""
        for transport in (self._api, self._gateway):
            if transport is not None:
                transport.close()
        self._api = self._gateway = None

    def _api_transport(self) -> Transport:
        if self._api is None:
            self.configuration.require_api()
            service = Service("API", self.configuration.url)
            self._api = Transport(service, self.configuration.token, timeout=self._timeout, retries=self._retries)
        return self._api

    def _gateway_transport(self) -> Transport:
        if self._gateway is None:
            self.configuration.require_gateway()
            service = Service("gateway", self.configuration.gateway_url)
            self._gateway = Transport(
                service, self.configuration.gateway_token, timeout=self._timeout, retries=self._retries
            )
        return self._gateway

    # Resources

    @overload
    def collection(self, kind: type[R]) -> Collection[R]: ...
    @overload
    def collection(self, kind: str) -> Collection[Any]: ...
    def collection(self, kind: type[R] | str) -> Collection[Any]:
        """The resources of a kind, by its type or by any of its names.

        Raises
        ------
        NotFound
            There is no such kind; the message names those there are.
        """
        cls = kind_named(kind) if isinstance(kind, str) else kind
        return Collection(cls, self._api_transport(), self.namespace)

    def __getattr__(self, name: str) -> Collection[Any]:
        cls = next((cls for cls in KINDS.values() if cls.plural == name), None)
        if cls is None:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)
        return self.collection(cls)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(cls.plural for cls in KINDS.values())})

    def whoami(self) -> WhoAmI:
        """Who the token speaks for; asked once and remembered."""
        if self._whoami is None:
            data = self._api_transport().request("GET", f"/apis/{API_VERSION}/whoami")
            self._whoami = read_whoami(data if isinstance(data, dict) else {})
        return self._whoami

    def namespace(self) -> str:
        """The caller's own namespace, which is meant wherever none is given."""
        return (self.whoami()).namespace

    def nodes(self) -> list[Node]:
        """The machines, with what of them is free; what runs there as far as the caller may know."""
        data = self._api_transport().request("GET", f"/apis/{API_VERSION}/nodes")
        return NodeList.model_validate(data, extra="ignore").items  # a newer API may tell more

    # Model services

    def serve(
        self,
        model: str | None,
        name: str | None = None,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        wait: bool = True,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        dry_run: bool = False,
        **spec: Any,
    ) -> ModelService:
        """Make a model answer: make a ModelService, or change the one of that name, and wait until it is Ready.

        What isn't named stays as it is where there is one already.

        Parameters
        ----------
        model
            Where it comes from: ``hf://org/repo``, ``file:///path/model.gguf``, ``demo://smollm2``, or what
            `address_of` takes for such; None for engine ``custom``.
        name
            What clients ask for; unset, made from `model`: ``hf://Qwen/Qwen3-4B-GGUF`` is ``qwen3-4b``.
        namespace, labels
            Where, and labels to select by.
        wait
            Whether to wait; without, it goes on by itself.
        timeout
            Seconds to wait at most; unset, as long as it goes on, since a download may take hours.
        on_progress
            Told each time something changed.
        dry_run
            Check everything, store nothing, don't wait.
        **spec
            More fields of the spec, such as ``replicas=2``, ``engine="llamacpp"``, ``args=["--ctx-size", "4096"]``,
            and those of its resources: ``memory="4Gi"``, ``cpu=2``, ``gpus=1``.

        Returns
        -------
        ModelService
            As it is now.

        Raises
        ------
        Invalid
            With the path of every field at fault.
        ModelNotReady
            It failed, or `timeout` is over; the message says why.
        """
        submitted = self.submit(model, name, namespace=namespace, labels=labels, dry_run=dry_run, **spec)
        service = submitted.service
        if not wait or dry_run:
            return service
        progress: Progress | None = None
        watch = self.wait_ready(service.metadata.name, namespace=service.metadata.namespace, timeout=timeout)
        with closing(watch) as states:
            for progress in states:
                if on_progress is not None:
                    on_progress(progress)
        return progress.resource if progress is not None and progress.resource is not None else service

    def submit(
        self,
        model: str | None,
        name: str | None = None,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        dry_run: bool = False,
        **spec: Any,
    ) -> Submitted:
        """Make a ModelService, or change the one of that name, and don't wait; the parameters are those of `serve`.

        Returns
        -------
        Submitted
            As it was before, and as it is now; see `llmos.client.serving.changes`.

        Raises
        ------
        Invalid
            With the path of every field at fault.
        """
        address = self.address_of(model) if model is not None else None
        wanted = make_modelservice(address, name, namespace, labels, spec)
        collection = self.collection(ModelService)
        try:
            before = collection.get(wanted.metadata.name, namespace=namespace)
        except NotFound:
            before = None
        if before is None or before.metadata.deletion_timestamp is not None:
            service = collection.apply(wanted, namespace=namespace, dry_run=dry_run)
            return Submitted(None, service)
        patch = make_change(before, wanted, spec)
        service = collection.patch(wanted.metadata.name, patch, namespace=namespace, dry_run=dry_run)
        return Submitted(before, service)

    def address_of(self, model: str) -> str:
        """The address that is meant by what people type.

        Parameters
        ----------
        model
            An address; ``org/repo`` (of the hub), a path, the name of a demo model.

        Raises
        ------
        Invalid
            It is none; for a short name such as ``llama3`` the message names the repositories that may be meant
            and whether they fit, as far as the hub can be asked.
        """
        address = address_of(model)
        if address is not None:
            return address
        found, problem, memory = [], "", None
        try:
            found = search_hub(model)
        except Unavailable as error:
            problem = error.message
        with suppress(LLMOSError):  # it is only for advice
            memory = max((node.memory for node in self.nodes()), default=None) if found else None
        raise no_address(model, found, memory, problem)

    def wait_ready(
        self,
        name: str,
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        patience: float = 60.0,
    ) -> Generator[Progress]:
        """Follow a service until it is Ready; every item says where it stands, the last that it is.

        Stopping to iterate stops the watching, never the service. While the API is away `Progress.away` says
        so, and watching goes on when it is back.

        Parameters
        ----------
        name, namespace
            Which service.
        timeout
            Seconds to wait at most; unset, as long as it goes on.
        patience
            Seconds that the API may be away.

        Raises
        ------
        NotFound
            There is none of that name, or it was deleted meanwhile.
        ModelNotReady
            It failed, is paused, or `timeout` is over.
        Unavailable
            The API was away for longer than `patience`.
        """
        where = namespace if namespace is not None else self.namespace()
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        tracker = ProgressTracker(name, where, utcnow())
        last: Progress | None = None
        watch = self.collection(ModelService).steps(namespace=where, patience=patience, quiet=10.0, deadline=deadline)
        with closing(watch) as states:
            for step in states:
                service = step.items.get(f"{where}/{name}")
                if service is None and not step.away:
                    message = (
                        f'No model service "{name}" in {where}.' if last is None else f"{name} was deleted meanwhile."
                    )
                    raise NotFound(message)
                progress = tracker.see(service, utcnow(), away=step.away)
                if not progress.same_as(last):
                    yield progress
                last = progress
                if step.away:
                    pass
                elif progress.ready:
                    return
                elif progress.failed:
                    raise failure(progress)
                if time.monotonic() >= deadline:
                    raise too_slow(progress, timeout or 0.0)
        raise ModelNotReady(f"The watch of {name} ended.")

    def pause(self, name: str, *, namespace: str | None = None) -> ModelService:
        """Keep the service but run nothing."""
        return self._change(name, {"paused": True}, namespace)

    def resume(self, name: str, *, namespace: str | None = None) -> ModelService:
        """Run a paused service again; see `wait_ready` for when it answers."""
        return self._change(name, {"paused": False}, namespace)

    def scale(self, name: str, replicas: int, *, namespace: str | None = None) -> ModelService:
        """Set how many replicas serve it at once."""
        return self._change(name, {"replicas": replicas}, namespace)

    def _change(self, name: str, spec: Mapping[str, Any], namespace: str | None) -> ModelService:
        return self.collection(ModelService).patch(name, {"spec": dict(spec)}, namespace=namespace)

    # Calling models

    def models(self) -> list[AvailableModel]:
        """The models that the caller may use, as the gateway names them."""
        return fetch_models(self._gateway_transport())

    def stream_chat(
        self, model: str, messages: Sequence[Mapping[str, Any]], *, timeout: float = 600.0, **options: Any
    ) -> Generator[ChatChunk]:
        """An answer, piece by piece, without the openai package.

        Parameters
        ----------
        model
            A name that `models` lists.
        messages
            ``[{"role": "user", "content": "…"}]``
        timeout
            Seconds that may pass without a piece: a long prompt takes a while to be read.
        **options
            More fields of the request, such as ``temperature=0``, ``max_tokens=100``.

        Raises
        ------
        ModelNotFound
            No model of that name that the caller may use.
        ModelNotReady
            No replica is ready; the message says why.
        """
        chunks = stream_chat(self._gateway_transport(), model, messages, options, timeout)
        with closing(chunks) as pieces:
            for chunk in pieces:
                yield chunk

    def openai(self, **options: Any) -> openai.OpenAI:
        """An ``openai.OpenAI`` that calls this platform's models.

        A gateway on this machine is asked directly, past a web proxy of the environment.

        Parameters
        ----------
        **options
            Passed on, such as ``timeout=60``.

        Raises
        ------
        Unsupported
            The package openai isn't installed.
        """
        self.configuration.require_gateway()
        try:
            from openai import OpenAI, DefaultHttpxClient
        except ImportError:
            raise Unsupported("The package openai is not installed here. Install it with: pip install openai") from None
        settings: dict[str, Any] = {
            "base_url": self.configuration.gateway_url,
            "api_key": self.configuration.gateway_token,
            **options,
        }
        if "http_client" not in settings and is_loopback(str(settings["base_url"])):
            settings["http_client"] = DefaultHttpxClient(trust_env=False)
        return OpenAI(**settings)
