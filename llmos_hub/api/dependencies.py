"""The dependencies of handlers: the parts of the process, and the request to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from llmos.errors import Forbidden, Invalid, LLMOSError, UsageError
from llmos.resources import Resource
from llmos_hub.api.metrics import APIMetrics
from llmos_hub.api.rates import WriteRates
from llmos_hub.api.streams import Streams
from llmos_hub.api.transfers import Transfers
from llmos_hub.identity.base import Identity
from llmos_hub.managers.logs import ResourceLogReader
from llmos_hub.managers.namespaces import Namespaces
from llmos_hub.managers.nodes import Nodes
from llmos_hub.managers.resources import ResourceManager, Selection
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.policy import Caller, Ref, Rights, Verb, Within
from llmos_hub.stores.base import Store
from llmos_hub.stores.writes import revision_of
from llmos_hub.volumes.files import VolumeFiles

__all__ = ["Addresses", "Call", "Services", "label_selector"]

_LARGEST: Final = 1_000_000_000
"""The largest number in a query."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The platform's addresses, as shown to people and clients.

    Attributes
    ----------
    public
        The Hub's address, without a trailing slash; empty if unknown.
    gateway
        The gateway's address, without ``/v1``.
    """

    public: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the process; made once, in `make_app`."""

    store: Store
    identity: Identity
    resources: ResourceManager
    settings: PlatformSettings
    logs: ResourceLogReader
    streams: Streams
    writes: WriteRates
    metrics: APIMetrics
    namespaces: Namespaces
    nodes: Nodes
    addresses: Addresses
    files: VolumeFiles
    transfers: Transfers


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request.

    Attributes
    ----------
    rights
        The authenticated caller, with their rights.
    token
        Its token; kept only to check later whether it is still valid.
    kind
        The kind of the route.
    within
        The resources to which a request for many is restricted; None if it isn't.
    """

    request: Request
    services: Services
    rights: Rights
    token: str
    kind: type[Resource]
    within: Within | None = None

    @property
    def caller(self) -> Caller:
        """The authenticated caller."""
        return self.rights.caller

    async def authorise(self, verb: Verb) -> Within | None:
        """Require the right to do it to the resource in the path, or to some of the resources.

        Returns
        -------
        Within, or None
            The resources to which the request is restricted, if it is.

        Raises
        ------
        Forbidden
            With the reason.
        NotFound
            The right depends on the labels of the resource, which doesn't exist.
        """
        return await self._authorise(self.rights, verb)

    async def _authorise(self, rights: Rights, verb: Verb) -> Within | None:
        name = self.request.path_params.get("name")
        ref = Ref(self.kind, self.namespace, name)
        if name is None:
            return rights.require_some(verb, ref)
        if rights.needs_labels(verb, ref):
            ref = Ref.of(await self.services.resources.get(self.kind, self.namespace, name))
        rights.require(verb, ref)
        return None

    async def still_may(self, verb: Verb) -> None:
        """Check again, for an answer that takes long, that the token is valid and that its owner may do this.

        Raises
        ------
        Unauthorized, Forbidden
            It isn't, or they may not any more, or for other resources than at the beginning.
        """
        rights = await self.services.identity.authenticate(self.token)
        within = await self._authorise(rights, verb)
        if within is not None and (self.within is None or not self.within <= within):
            raise Forbidden("You may see other resources than when this began. Ask again.")

    @property
    def namespace(self) -> str | None:
        """The namespace in the path."""
        value = self.request.path_params.get("namespace")
        return None if value is None else str(value)

    @property
    def name(self) -> str:
        """The name in the path."""
        return str(self.request.path_params["name"])

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query."""
        return self.request.query_params

    def flag(self, name: str) -> bool:
        """Return a boolean parameter.

        Raises
        ------
        UsageError
            It is neither.
        """
        text = self.query.get(name, "").lower()
        if text in {"1", "true", "t"}:
            return True
        if text in {"", "0", "false", "f"}:
            return False
        raise UsageError(f'{name}: "{text[:40]}" is neither true nor false.')

    def number(self, name: str) -> int | None:
        """Return a whole number of at least 0, or None if it isn't given.

        Raises
        ------
        UsageError
            It is not such a number, or too large.
        """
        text = self.query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _LARGEST):
            raise UsageError(f'{name}: "{text[:40]}" is not a whole number from 0 to {_LARGEST}.')
        return int(text)

    @property
    def resource_version(self) -> str:
        """The version from which a watch goes on; a list is always the newest. Empty if none is given, or 0.

        Raises
        ------
        UsageError
            No store gives out such versions.
        """
        text = self.query.get("resourceVersion", "")
        try:
            return text if text and revision_of(text) else ""
        except Invalid as error:
            raise UsageError(error.message) from None

    def tagged(self, error: LLMOSError) -> LLMOSError:
        """Return the error with the request's id, to be written into an answer that has already begun."""
        error.request_id = self.request.scope["llmos.request_id"]
        return error

    @property
    def dry_run(self) -> bool:
        """True if the request must not be stored.

        Raises
        ------
        UsageError
            ``dryRun`` has a value other than ``All``, the only one in Kubernetes.
        """
        text = self.query.get("dryRun")
        if text not in {None, "All"}:
            raise UsageError(f'dryRun: "{str(text)[:40]}" is not known. Use dryRun=All.')
        return text is not None

    @property
    def selection(self) -> Selection:
        """The resources that a list or watch shows.

        Raises
        ------
        UsageError
            A selector can't be read, or is for another field than the name.
        """
        labels = label_selector(self.query.get("labelSelector", ""))
        return Selection(labels, _only_name(self.query.get("fieldSelector", "")), self.within)


def _only_name(text: str) -> str | None:
    """Return the name in a field selector; None if it is empty."""
    if not text:
        return None
    field_, _, value = text.partition("=")
    if field_ != "metadata.name" or not value or "," in value:
        raise UsageError(f'fieldSelector: "{text[:80]}" is not known. The only one is metadata.name=NAME.')
    return value.removeprefix("=")


def label_selector(text: str) -> dict[str, str] | None:
    """Return the labels in a selector such as ``a=b,c==d``; None if there are none.

    Raises
    ------
    UsageError
        A part is not an equality.
    """
    wanted: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, found, value = part.partition("=")
        value = value.removeprefix("=").strip()
        key = key.strip()
        if not found or not key or key.endswith("!") or " " in key:
            raise UsageError(f'labelSelector: "{part[:80]}" is not known. Use key=value, several with commas.')
        if wanted.setdefault(key, value) != value:
            raise UsageError(f'labelSelector: "{key[:80]}" can\'t have two values at once.')
    return wanted or None
