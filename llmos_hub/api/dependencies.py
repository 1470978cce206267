"""What handlers work with: the parts of the process, and the call that is to be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import Request

from llmos.errors import LLMOSError, UsageError
from llmos.resources import Resource
from llmos_hub.api.metrics import Metrics
from llmos_hub.api.rates import WriteRates
from llmos_hub.api.streams import Streams
from llmos_hub.identity.base import Identity
from llmos_hub.managers.logs import LogReader
from llmos_hub.managers.namespaces import Namespaces
from llmos_hub.managers.nodes import Nodes
from llmos_hub.managers.resources import ResourceManager
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.policy import Caller
from llmos_hub.stores.base import Store

__all__ = ["Addresses", "Call", "Services", "label_selector"]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where people find things.

    Attributes
    ----------
    public
        The Hub's address, without a slash at its end; empty where it isn't known.
    gateway
        The gateway's, without ``/v1``.
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
    logs: LogReader
    streams: Streams
    writes: WriteRates
    metrics: Metrics
    namespaces: Namespaces
    nodes: Nodes
    addresses: Addresses = field(default_factory=Addresses)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request.

    Attributes
    ----------
    caller
        Who asks.
    token
        With what; only to ask again later whether it is still good.
    kind
        The kind that the route is for.
    """

    request: Request
    services: Services
    caller: Caller
    token: str
    kind: type[Resource]

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
        """The query's parameters."""
        return self.request.query_params

    def flag(self, name: str) -> bool:
        """A parameter that is on or off.

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

    def number(self, name: str, *, high: int = 1_000_000_000) -> int | None:
        """A whole number from 0 on, or None where it isn't given.

        Raises
        ------
        UsageError
            It is no such number.
        """
        text = self.query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= high):
            raise UsageError(f'{name}: "{text[:40]}" is not a whole number from 0 to {high}.')
        return int(text)

    def tagged(self, error: LLMOSError) -> LLMOSError:
        """The error with the request's id, for where it isn't raised but written into an answer under way."""
        error.request_id = self.request.scope["llmos.request_id"]
        return error

    @property
    def dry_run(self) -> bool:
        """Whether everything but the writing is wanted.

        Raises
        ------
        UsageError
            ``dryRun`` has another value than Kubernetes' only one.
        """
        text = self.query.get("dryRun")
        if text not in {None, "All"}:
            raise UsageError(f'dryRun: "{str(text)[:40]}" is not known. Use dryRun=All.')
        return text is not None

    @property
    def labels(self) -> dict[str, str] | None:
        """The label selector.

        Raises
        ------
        UsageError
            It can't be read.
        """
        return label_selector(self.query.get("labelSelector", ""))

    @property
    def only_name(self) -> str | None:
        """The name that a field selector asks for, the only selection by field there is.

        Raises
        ------
        UsageError
            Another field is asked for.
        """
        text = self.query.get("fieldSelector", "")
        if not text:
            return None
        field_, _, value = text.partition("=")
        if field_ != "metadata.name" or not value or "," in value:
            raise UsageError(f'fieldSelector: "{text[:80]}" is not known. The only one is metadata.name=NAME.')
        return value.removeprefix("=")


def label_selector(text: str) -> dict[str, str] | None:
    """The labels that ``a=b,c==d`` asks for; None where it asks for none.

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
