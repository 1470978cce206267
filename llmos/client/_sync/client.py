# Made from ../_async/client.py by `make generate`; don't edit it.
"""The client: collections of resources, starting models, and calling them."""

from __future__ import annotations

from collections.abc import Generator, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from llmos.client._sync.collection import Collection
from llmos.client._sync.hub import search_hub
from llmos.client._sync.transport import Transport, response_lines
from llmos.client.addresses import address_error, address_of
from llmos.client.messages import AvailableModel, ChatChunk, WhoAmI, read, read_chunk, read_models
from llmos.client.progress import Progress
from llmos.client.requests import Service, is_loopback
from llmos.client.serving import Submitted, make_change, make_modelservice
from llmos.configuration import Configuration, load
from llmos.errors import LLMOSError, NotFound, Unavailable, Unsupported, UpstreamFailed
from llmos.resources import API_VERSION, KINDS, ModelService, Resource, kind_named
from llmos.resources.node import Node, NodeList

if TYPE_CHECKING:
    import openai

__all__ = ["Client"]

R = TypeVar("R", bound=Resource)


class Client:
    """A client for LLMOS.

    With no argument it finds the platform as `llmos.configuration` says: in a server that the Hub spawned and
    next to ``llmos up`` nothing has to be set. The client makes no request before the first call.

    Every kind of resource is an attribute by its plural: ``client.credentials``, ``client.settings`` (see `Collection`).

    Parameters
    ----------
    url, token
        The API's address (``https://hub.example.org/services/llmos``) and a token for it.
    gateway_url, gateway_token
        The gateway's address with ``/v1``, and a token for it.
    timeout
        Maximum time in seconds for a response of the API.
    retries
        How often a request is repeated when there is no response; all repetitions take about a second.

    Raises
    ------
    NotConfigured
        A setting is invalid. Missing settings are reported at the first call only.

    Examples
    --------
    >>> with Client() as client:  # doctest: +SKIP
    ...     client.serve("demo://smollm2", name="chat")
    ...     for credential in client.credentials.list():
    ...         print(credential.metadata.name)
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
        self._transports: dict[str, Transport] = {}
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
        """Close all connections; a later call opens new ones."""
        while self._transports:
            self._transports.popitem()[1].close()

    def _api_transport(self) -> Transport:
        self.configuration.require_api()
        return self._transport("API", self.configuration.url, self.configuration.token)

    def _gateway_transport(self) -> Transport:
        self.configuration.require_gateway()
        return self._transport("gateway", self.configuration.gateway_url, self.configuration.gateway_token)

    def _transport(self, noun: str, url: str, token: str) -> Transport:
        if noun not in self._transports:
            service = Service(noun, url)
            self._transports[noun] = Transport(service, token, timeout=self._timeout, retries=self._retries)
        return self._transports[noun]

    # Resources

    @overload
    def collection(self, kind: type[R]) -> Collection[R]: ...
    @overload
    def collection(self, kind: str) -> Collection[Any]: ...
    def collection(self, kind: type[R] | str) -> Collection[Any]:
        """Return the collection of a kind, given its type or any of its names.

        Raises
        ------
        NotFound
            The kind is unknown; the message lists the known kinds.
        """
        cls = kind_named(kind) if isinstance(kind, str) else kind
        return Collection(cls, self._api_transport(), self.namespace)

    def __getattr__(self, name: str) -> Collection[Any]:
        cls = next((cls for cls in KINDS.values() if cls.plural == name), None)
        if cls is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.collection(cls)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(cls.plural for cls in KINDS.values())})

    def whoami(self) -> WhoAmI:
        """Return the identity that the token belongs to; it is requested once and cached."""
        if self._whoami is None:
            data = self._api_transport().request("GET", f"/apis/{API_VERSION}/whoami")
            self._whoami = read(WhoAmI, data)
        return self._whoami

    def namespace(self) -> str:
        """Return the caller's own namespace, the default wherever a method takes a namespace."""
        return (self.whoami()).namespace

    def nodes(self) -> list[Node]:
        """Return the nodes with their free capacity, and what runs there as far as the caller may see it."""
        data = self._api_transport().request("GET", f"/apis/{API_VERSION}/nodes")
        return read(NodeList, data).items

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
        """Create or change a ModelService and wait until it is Ready.

        Fields of an existing service that aren't given stay as they are.

        Parameters
        ----------
        model
            Address of the model: ``hf://org/repo``, ``file:///path/model.gguf``, ``demo://smollm2``, or a short form
            that `address_of` accepts; None for engine ``custom``.
        name
            Name of the service, which clients ask for; by default derived from `model`: ``hf://Qwen/Qwen3-4B-GGUF``
            becomes ``qwen3-4b``.
        namespace, labels
            Namespace of the service, and labels to select it by.
        wait
            Whether to wait; the service starts in any case.
        timeout
            Maximum time to wait in seconds; by default unlimited, since a download may take hours.
        on_progress
            Called after each change.
        dry_run
            Check everything, but store nothing and don't wait.
        **spec
            More fields of the spec, such as ``replicas=2``, ``engine="llamacpp"``, ``args=["--ctx-size", "4096"]``,
            and those of its resources: ``memory="4Gi"``, ``cpu=2``, ``gpus=1``.

        Returns
        -------
        ModelService
            The service as last read.

        Raises
        ------
        Invalid
            The spec is invalid; the error has the path of each invalid field.
        ModelNotReady
            The service failed, or is not ready after `timeout`; the message has the reason.
        """
        submitted = self.submit(model, name, namespace=namespace, labels=labels, dry_run=dry_run, **spec)
        service = submitted.service
        if not wait or dry_run:
            return service
        name, namespace = service.metadata.name, service.metadata.namespace
        services = self.collection(ModelService)
        return services.wait_ready(name, namespace=namespace, timeout=timeout, on_progress=on_progress)

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
        """Create or change a ModelService without waiting; the parameters are those of `serve`.

        Returns
        -------
        Submitted
            The service before and after the call; see `llmos.client.serving.changed_fields`.

        Raises
        ------
        Invalid
            The spec is invalid; the error has the path of each invalid field.
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
        """Return the full address of a model given in a short form.

        Parameters
        ----------
        model
            An address, ``org/repo`` on the hub, a path, or the name of a demo model.

        Raises
        ------
        Invalid
            The address can't be determined. For a short name such as ``llama3`` the message lists matching
            repositories and whether they fit into memory, if the hub can be reached.
        """
        address = address_of(model)
        if address is not None:
            return address
        found, problem, memory = [], "", None
        try:
            found = search_hub(model)
        except Unavailable as error:
            problem = error.message
        with suppress(LLMOSError):  # the memory is needed only for advice in the error message
            memory = max((node.memory for node in self.nodes()), default=None) if found else None
        raise address_error(model, found, memory, problem)

    # Calling models

    def models(self) -> list[AvailableModel]:
        """Return the models that the caller may use, as the gateway lists them."""
        return read_models(self._gateway_transport().request("GET", "/models"))

    def stream_chat(
        self, model: str, messages: Sequence[Mapping[str, Any]], *, timeout: float = 600.0, **options: Any
    ) -> Generator[ChatChunk]:
        """Yield the chunks of a chat completion; the openai package isn't needed.

        Parameters
        ----------
        model
            A model that `models` lists.
        messages
            ``[{"role": "user", "content": "…"}]``
        timeout
            Maximum time in seconds between two chunks; a long prompt takes a while until the first.
        **options
            Further fields of the request, such as ``temperature=0``, ``max_tokens=100``.

        Raises
        ------
        ModelNotFound
            The caller may use no model of that name.
        ModelNotReady
            No replica is ready; the message says why.
        UpstreamFailed
            The stream ended early or can't be decoded.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        transport = self._gateway_transport()
        with transport.stream("POST", "/chat/completions", data=body, read_timeout=timeout) as response:
            # server-sent events, see https://platform.openai.com/docs/api-reference/chat-streaming
            for line in response_lines(response):
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                yield read_chunk(data)
        raise UpstreamFailed(f"The answer of {model} broke off before its end.")

    def openai(self, **options: Any) -> openai.OpenAI:
        """Return an ``openai.OpenAI`` that is configured for this platform's gateway.

        A gateway on this machine is asked directly, past a web proxy of the environment.

        Parameters
        ----------
        **options
            Further arguments of the constructor, such as ``timeout=60``.

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
