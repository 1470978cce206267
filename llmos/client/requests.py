"""How the API is asked: paths, bodies, what to repeat, and which error an answer stands for. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from llmos.errors import Invalid, LLMOSError, NotFound, Unauthorized, Unavailable, from_status
from llmos.resources import API_VERSION, Resource

__all__ = [
    "APPLY",
    "HEADER_REQUEST_ID",
    "JSON",
    "MERGE",
    "Body",
    "Service",
    "answer_error",
    "delays",
    "from_hub",
    "is_loopback",
    "label_selector",
    "make_body",
    "new_request_id",
    "resource_path",
]

APPLY = "application/apply-patch+yaml"
"""PATCH with this type is *apply*; JSON is YAML, so JSON is what is sent."""
MERGE = "application/merge-patch+json"
JSON = "application/json"
HEADER_REQUEST_ID = "x-request-id"
HEADER_HUB = "x-jupyterhub-version"
"""On everything that the Hub itself answers, the pages that its proxy shows for it among them."""

_RETRY_DELAYS = (0.1, 0.3, 0.8)


@dataclass(frozen=True)
class Service:
    """What is being asked, for messages.

    Attributes
    ----------
    noun
        ``API`` or ``gateway``.
    url
        Its address.
    """

    noun: str
    url: str

    def away(self) -> Unavailable:
        """The error of a service that nobody reaches."""
        message = f"The {self.noun} at {self.url} does not answer. Is LLMOS running? Start it with: make up"
        return Unavailable(message)

    def slow(self, seconds: float) -> Unavailable:
        """The error of a service that took too long."""
        message = f"The {self.noun} at {self.url} took longer than {seconds:.0f} s to answer. What runs is shown by: llmos status"
        return Unavailable(message)

    def broke_off(self) -> Unavailable:
        """The error of a connection that ended in the middle."""
        message = f"The connection to the {self.noun} at {self.url} broke off."
        return Unavailable(message)

    def starting(self) -> Unavailable:
        """The error of a service in whose place the Hub answers: it isn't there yet, or not again."""
        message = (
            f"The {self.noun} at {self.url} is being started: the Hub answers there, LLMOS's {self.noun} not yet. Try again "
            "in some seconds. If it goes on, what runs is shown by: llmos status"
        )
        return Unavailable(message)

    def behind_proxy(self, status: int) -> Unavailable:
        """The error of a service that a proxy on the way doesn't reach."""
        message = (
            f"The {self.noun} at {self.url} is not reached by the proxy before it (HTTP {status}): it may be starting. Try "
            "again in some seconds. If it goes on, what runs is shown by: llmos status"
        )
        return Unavailable(message)

    def strange(self, status: int) -> Unavailable:
        """The error of something else that answers at the address."""
        message = f"Something answers at {self.url}, but not LLMOS's {self.noun} (HTTP {status}). Is the address right?"
        return Unavailable(message)


@dataclass(frozen=True)
class Body:
    """What is sent.

    Attributes
    ----------
    content
        JSON, encoded.
    type
        Its content type.
    """

    content: bytes
    type: str = JSON


def make_body(data: Any, type_: str = JSON) -> Body:
    """Encode `data`; of a resource everything but its status, which isn't the caller's to write."""
    if isinstance(data, Resource):
        data = {key: value for key, value in data.document().items() if key != "status"}
    return Body(json.dumps(data, ensure_ascii=False).encode(), type_)


def resource_path(
    kind: type[Resource], namespace: str | None, name: str | None = None, subresource: str | None = None
) -> str:
    """Kubernetes' URL layout below the API's address.

    Raises
    ------
    Invalid
        The name or namespace can't be one: without this check an empty name would mean the whole collection.
    """
    parts = ["apis", *API_VERSION.split("/")]
    if kind.scope == "Namespaced" and namespace is not None:
        parts += ["namespaces", _segment(namespace, "namespace")]
    parts.append(kind.plural)
    if name is not None:
        parts.append(_segment(name, "name"))
    if subresource is not None:
        parts.append(subresource)
    return "/" + "/".join(parts)


def _segment(text: str, what: str) -> str:
    if not text or text in {".", ".."} or "/" in text:
        message = f'"{text[:80]}" is not a {what}.'
        raise Invalid(message)
    return quote(text, safe="")


def label_selector(labels: Mapping[str, str] | str | None) -> str | None:
    """``a=1,b=2``, from a mapping or as it is."""
    if not labels:
        return None
    return labels if isinstance(labels, str) else ",".join(f"{key}={value}" for key, value in labels.items())


def new_request_id() -> str:
    """An id under which every log of the platform will know the request."""
    return secrets.token_hex(8)


def delays(retries: int) -> list[float]:
    """Seconds to wait before each repetition."""
    return [_RETRY_DELAYS[min(n, len(_RETRY_DELAYS) - 1)] for n in range(retries)]


def is_loopback(url: str) -> bool:
    """Whether the address is of this machine, so that no proxy of the environment can reach it."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def from_hub(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the Hub answered for a service that its proxy has no way to.

    To an address that is nobody's the Hub answers with the way to one of its own pages (302), and that is not found.
    """
    path = urlsplit(headers.get("location", "")).path
    return (status in {301, 302, 303, 307, 308} and "/hub/" in path) or (status == 404 and HEADER_HUB in headers)


def answer_error(
    service: Service, status: int, body: bytes, request_id: str | None, headers: Mapping[str, str] | None = None
) -> LLMOSError:
    """The error that an answer stands for, whoever gave it: LLMOS, the Hub, or a proxy on the way."""
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    if isinstance(data, dict) and (data.get("kind") == "Status" or "error" in data or "message" in data):
        return from_status(data, status=status, request_id=request_id)
    headers = headers or {}
    if from_hub(status, headers) or (status in {502, 503, 504} and HEADER_HUB in headers):
        return service.starting()
    if status in {502, 503, 504}:
        return service.behind_proxy(status)
    if status in {401, 403}:
        message = f"The token is not accepted at {service.url}. Make one on the Hub's token page or with: llmos token"
        return Unauthorized(message, request_id=request_id)
    if status == 404 and isinstance(data, dict):
        return NotFound(f"There is no such thing at {service.url}.", request_id=request_id)
    return service.strange(status)
