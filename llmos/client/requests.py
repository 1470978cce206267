"""Building of requests: paths, bodies, retries, and the errors that responses stand for. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from llmos.errors import Invalid, LLMOSError, NotFound, Unauthorized, Unavailable, from_status
from llmos.resources import API_VERSION, Resource

__all__ = [
    "APPLY",
    "BYTES",
    "HEADER_REQUEST_ID",
    "JSON",
    "MERGE",
    "Service",
    "answer_error",
    "from_hub",
    "is_loopback",
    "label_selector",
    "resource_path",
]

APPLY = "application/apply-patch+yaml"
"""Content type of a PATCH that applies. The body is JSON, which is also YAML."""
MERGE = "application/merge-patch+json"
JSON = "application/json"
BYTES = "application/octet-stream"
HEADER_REQUEST_ID = "x-request-id"
HEADER_HUB = "x-jupyterhub-version"
"""Header of every response of the Hub itself, also of the error pages of its proxy."""


@dataclass(frozen=True)
class Service:
    """A service that requests go to, named in error messages.

    Attributes
    ----------
    noun
        ``API`` or ``gateway``.
    url
        Base URL of the service.
    """

    noun: str
    url: str

    def away(self) -> Unavailable:
        """Return the error for a service that can't be reached."""
        return Unavailable(f"The {self.noun} at {self.url} does not answer. Is LLMOS running? Start it with: make up")

    def slow(self, seconds: float) -> Unavailable:
        """Return the error for a service that took too long to respond."""
        message = f"The {self.noun} at {self.url} took longer than {seconds:.0f} s to answer. Look with: llmos status"
        return Unavailable(message)

    def broke_off(self) -> Unavailable:
        """Return the error for a connection that was closed early."""
        return Unavailable(f"The connection to the {self.noun} at {self.url} broke off.")

    def starting(self) -> Unavailable:
        """Return the error for a service that isn't running yet, so that the Hub answers at its address."""
        return Unavailable(
            f"The {self.noun} at {self.url} is being started: the Hub answers there, LLMOS's {self.noun} not yet. Try again "
            "in some seconds. If it stays so, look with: llmos status"
        )

    def behind_proxy(self, status: int) -> Unavailable:
        """Return the error for a service that a proxy in between does not reach."""
        return Unavailable(
            f"The {self.noun} at {self.url} is not reached by the proxy before it (HTTP {status}): it may be starting. Try "
            "again in some seconds. If it continues, see what runs with: llmos status"
        )

    def strange(self, status: int) -> Unavailable:
        """Return the error for an address at which something other than LLMOS answers."""
        message = f"Something answers at {self.url}, but not LLMOS's {self.noun} (HTTP {status}). Is the address right?"
        return Unavailable(message)


def resource_path(
    kind: type[Resource], namespace: str | None, name: str | None = None, subresource: str | None = None
) -> str:
    """Return the path of a resource or collection below the API's address, in Kubernetes' URL layout.

    Raises
    ------
    Invalid
        The name or namespace is invalid: without this check an empty name would address the whole collection.
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
        raise Invalid(f'"{text[:80]}" is not a {what}.')
    return quote(text, safe="")


def label_selector(labels: Mapping[str, str] | str | None) -> str | None:
    """Return labels as a label selector, ``a=1,b=2``; a string is returned unchanged."""
    if not labels:
        return None
    return labels if isinstance(labels, str) else ",".join(f"{key}={value}" for key, value in labels.items())


def is_loopback(url: str) -> bool:
    """Return whether the address is on this machine, so that no proxy from the environment can reach it."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def from_hub(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the Hub answered because its proxy has no route to the service.

    For an address without a route the Hub redirects (302) to one of its own pages, which then isn't found (404).
    """
    path = urlsplit(headers.get("location", "")).path
    return (status in {301, 302, 303, 307, 308} and "/hub/" in path) or (status == 404 and HEADER_HUB in headers)


def answer_error(service: Service, status: int, body: bytes, headers: Mapping[str, str]) -> LLMOSError:
    """Return the error for a response of LLMOS, of the Hub or of a proxy in between."""
    request_id = headers.get(HEADER_REQUEST_ID)
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    if isinstance(data, dict) and (data.get("kind") == "Status" or "error" in data or "message" in data):
        return from_status(data, status=status, request_id=request_id)
    if from_hub(status, headers) or (status in {502, 503, 504} and HEADER_HUB in headers):
        return service.starting()
    if status in {502, 503, 504}:
        return service.behind_proxy(status)
    if status in {401, 403}:
        message = f"The token is not accepted at {service.url}. Make one on the Hub's token page or with: llmos token"
        return Unauthorized(message, request_id=request_id)
    if status == 404 and isinstance(data, dict):
        return NotFound(f"There is no such resource at {service.url}.", request_id=request_id)
    return service.strange(status)
