"""Translation of the API server's errors to the platform's, with the same messages as the other store's."""

from __future__ import annotations

import re
from typing import Final

from llmos.errors import (
    BadRequest,
    Cause,
    Conflict,
    Expired,
    Forbidden,
    Insufficient,
    Internal,
    Invalid,
    LLMOSError,
    NotFound,
    PayloadTooLarge,
    Unavailable,
)
from llmos.resources.base import Resource
from llmos_hub.kubernetes.connection import APIError
from llmos_hub.stores import writes

__all__ = ["translate"]

_TOO_LARGE: Final = ("request is too large", "larger than max", "limit is")  # etcd, gRPC, the API server
_INVALID_VALUE: Final = re.compile(r'^(?:Invalid value|Forbidden|Required value)(?:: (?:"(?:[^"\\]|\\.)*"|[^": ]*))?: ')
"""The prefix of the API server's messages: the messages of our validation rules name the value themselves."""


def translate(error: APIError, kind: type[Resource], namespace: str | None, name: str) -> LLMOSError:
    """Return the platform's error for an error of the API server.

    Parameters
    ----------
    error
        The API server's error.
    kind, namespace, name
        The resource it is about; the name is empty for a list or a watch.
    """
    match error.status:
        case 404:
            return _not_found(error, kind, namespace, name)
        case 409:
            if error.reason == "AlreadyExists":
                return writes.already_exists(kind, namespace, name)
            why = "was deleted and created again" if "the UID in the precondition" in error.message else "was changed"
            return writes.conflict(kind, namespace, name, f"{why} since it was read")
        case 410:
            return Expired(f"{kind.kind_name()}: {error.message}. List again.")
        case 422:
            return _invalid(error, kind, namespace, name)
        case 403:
            return _forbidden(error, kind, namespace)
        case 401:
            return Unavailable("The cluster does not accept this process's credentials.")
        case 413:
            return _too_large(kind, namespace, name)
        case 400:
            return BadRequest(f"The cluster can't read the request: {error.message}")
        case status if status >= 500:
            if any(words in error.message for words in _TOO_LARGE):
                return _too_large(kind, namespace, name)
            return Unavailable(f"The cluster can't do it now: {error.message}.")
    return Internal(f"The cluster answered {error}.")


def _not_found(error: APIError, kind: type[Resource], namespace: str | None, name: str) -> LLMOSError:
    about = error.details.get("kind")
    if about == "namespaces":
        return NotFound(f'There is no namespace "{namespace}" in the cluster.')
    if not about or not name:  # the path itself is unknown: the kind is not installed
        return _no_such_kind(kind)
    return writes.not_found(kind, namespace, name)


def _no_such_kind(kind: type[Resource]) -> Unavailable:
    return Unavailable(
        f"The cluster knows no {kind.plural}.llmos.ai. Install the chart's custom resource definitions: "
        "kubectl apply --server-side -f helm/llmos/crds"
    )


def _invalid(error: APIError, kind: type[Resource], namespace: str | None, name: str) -> LLMOSError:
    if not error.causes:  # without causes it is not about the object: the patch's test of the uid failed
        return writes.conflict(kind, namespace, name, "was deleted and created again since it was read")
    causes: dict[str, Cause] = {}
    for cause in error.causes:  # a subresource reports the same field a second time
        field = cause.field.removeprefix(".")
        causes.setdefault(field, Cause(field, _INVALID_VALUE.sub("", cause.message)))
    found = list(causes.values())
    return Invalid("; ".join(map(str, found[:3])) + (" …" if len(found) > 3 else ""), causes=found)


def _forbidden(error: APIError, kind: type[Resource], namespace: str | None) -> LLMOSError:
    if error.because("NamespaceTerminating"):
        return Conflict(f'The namespace "{namespace}" is being deleted. Try again when it is gone.')
    if "exceeded quota" in error.message:
        return Insufficient(f'The quota of the namespace "{namespace}" is used up: {error.message}.')
    return Forbidden(f"The cluster doesn't let this process touch {kind.plural}: {error.message}.")


def _too_large(kind: type[Resource], namespace: str | None, name: str) -> PayloadTooLarge:
    return PayloadTooLarge(f'{kind.kind_name()} "{namespace}/{name}" is larger than the cluster takes.')
