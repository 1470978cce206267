"""Every error that LLMOS raises, the same on both sides of the wire.

One tree. A class has a stable ``code`` for programs and an HTTP ``status``; the message is for
people and says what was wrong, where, and what to do. Errors are raised deep, and rendered once,
at the edge: as a Kubernetes ``Status`` object by the API (`to_status`, after
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/), in OpenAI's
format by the gateway (`to_openai`), as one line by the CLI and the magics (`str`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AlreadyExists",
    "BackendFailed",
    "BadRequest",
    "Cause",
    "Conflict",
    "Expired",
    "Forbidden",
    "Insufficient",
    "Internal",
    "Invalid",
    "LLMOSError",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelNotReady",
    "NotConfigured",
    "NotFound",
    "PayloadTooLarge",
    "RequestTimeout",
    "SourceFailed",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "UnsupportedMediaType",
    "UpstreamFailed",
    "UsageError",
    "from_status",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong with what was sent.

    Attributes
    ----------
    field
        The path of the field, as the user wrote it: ``spec.resources.memory``.
    message
        What is wrong with it and, where that can be guessed, what was meant.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class LLMOSError(Exception):
    """The root of the tree; never raised itself.

    Parameters
    ----------
    message
        One sentence for people: what, where, why, what to do.
    causes
        The fields at fault, where there are any.
    request_id
        The id under which every log of the platform knows the request.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    """Kubernetes' ``reason`` for the same thing, so that its client code works unchanged."""

    def __init__(self, message: str, *, causes: Iterable[Cause] = (), request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.request_id = request_id

    def __str__(self) -> str:
        tail = f"({self.code} · req {self.request_id})" if self.request_id else f"({self.code})"
        return f"{self.message} {tail}"

    def to_status(self) -> dict[str, Any]:
        """The error as a Kubernetes ``Status`` object, the body of every API error."""
        details: dict[str, Any] = {"code": self.code}
        if self.request_id:
            details["requestID"] = self.request_id
        if self.causes:
            details["causes"] = [{"field": c.field, "message": c.message} for c in self.causes]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.status,
        }

    def to_openai(self) -> dict[str, Any]:
        """The error as an OpenAI client expects it, with the request id beside it.

        Source: https://platform.openai.com/docs/guides/error-codes
        """
        kind = "invalid_request_error" if 400 <= self.status < 500 else "server_error"
        if self.status == 401:
            kind = "authentication_error"
        elif self.status == 403:
            kind = "permission_error"
        elif self.status == 429:
            kind = "rate_limit_error"
        error: dict[str, Any] = {
            "message": self.message,
            "type": kind,
            "param": self.causes[0].field if self.causes else None,
            "code": self.code,
        }
        if self.request_id:
            error["request_id"] = self.request_id
        return {"error": error}


class UsageError(LLMOSError):
    """A command was given words it doesn't know (exit code 2 in a terminal)."""

    code = "usage"
    status = 400
    reason = "BadRequest"


class NotConfigured(LLMOSError):
    """No address or no token of the platform is known here; raised by clients, never sent."""

    code = "not_configured"
    status = 400
    reason = "BadRequest"


class Invalid(LLMOSError):
    """What was sent doesn't fit its type; `causes` names every field at fault."""

    code = "invalid"
    status = 422
    reason = "Invalid"


class BadRequest(LLMOSError):
    """A request that can't be read: no JSON, no model named; `causes` names the parameter at fault."""

    code = "bad_request"
    status = 400
    reason = "BadRequest"


class Unsupported(LLMOSError):
    """The thing exists but can't do this: an embedding model asked to chat."""

    code = "unsupported"
    status = 400
    reason = "BadRequest"


class RequestTimeout(LLMOSError):
    """The rest of a request did not come in time."""

    code = "request_timeout"
    status = 408
    reason = "Timeout"


class PayloadTooLarge(LLMOSError):
    """A request body is over the limit."""

    code = "payload_too_large"
    status = 413
    reason = "RequestEntityTooLarge"


class Unauthorized(LLMOSError):
    """No token, or one that nobody knows (any more)."""

    code = "unauthorized"
    status = 401
    reason = "Unauthorized"


class Forbidden(LLMOSError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403
    reason = "Forbidden"


class NotFound(LLMOSError):
    """There is no such thing, or none that the caller may know of."""

    code = "not_found"
    status = 404
    reason = "NotFound"


class ModelNotFound(NotFound):
    """No model of that name that the caller may use."""

    code = "model_not_found"


class AlreadyExists(LLMOSError):
    """A thing of that name is there already."""

    code = "already_exists"
    status = 409
    reason = "AlreadyExists"


class Conflict(LLMOSError):
    """Somebody else changed it since it was read: read it again and repeat the change."""

    code = "conflict"
    status = 409
    reason = "Conflict"


class MethodNotAllowed(LLMOSError):
    """The address exists, the verb doesn't there."""

    code = "method_not_allowed"
    status = 405
    reason = "MethodNotAllowed"


class UnsupportedMediaType(LLMOSError):
    """A body in a format that isn't read here."""

    code = "unsupported_media_type"
    status = 415
    reason = "UnsupportedMediaType"


class Expired(LLMOSError):
    """The resourceVersion to watch from is too old: list again."""

    code = "expired"
    status = 410
    reason = "Expired"


class TooManyRequests(LLMOSError):
    """A limit of the caller's is used up."""

    code = "rate_limited"
    status = 429
    reason = "TooManyRequests"


class Insufficient(LLMOSError):
    """The machine or the quota doesn't have what was asked for."""

    code = "insufficient_resources"
    status = 409
    reason = "Conflict"


class SourceFailed(LLMOSError):
    """A model's files can't be had from where its URI points."""

    code = "source_failed"
    status = 502
    reason = "ServiceUnavailable"


class BackendFailed(LLMOSError):
    """A workload can't be started or read."""

    code = "backend_failed"
    status = 500


class ModelNotReady(LLMOSError):
    """The model exists but no replica is ready to answer; the message says why."""

    code = "model_not_ready"
    status = 503
    reason = "ServiceUnavailable"


class UpstreamFailed(LLMOSError):
    """Every replica that was tried broke off before its first byte."""

    code = "upstream_failed"
    status = 502
    reason = "ServiceUnavailable"


class Unavailable(LLMOSError):
    """A part of the platform doesn't answer."""

    code = "unavailable"
    status = 503
    reason = "ServiceUnavailable"


class Internal(LLMOSError):
    """A mistake of ours; the log knows more under the request id."""

    code = "internal"
    status = 500


def _subclasses(cls: type[LLMOSError]) -> Iterable[type[LLMOSError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def from_status(body: Mapping[str, Any], *, status: int, request_id: str | None = None) -> LLMOSError:
    """The error that a ``Status`` object (or OpenAI's error body) stands for.

    Parameters
    ----------
    body
        The decoded body of the response; anything at all, since a proxy may have answered.
    status
        The HTTP status, which decides where the body doesn't.
    request_id
        The id from the response's header.
    """
    classes = {cls.code: cls for cls in _subclasses(LLMOSError)}
    raw = body.get("details") if isinstance(body.get("details"), Mapping) else body.get("error")
    details: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
    message = body.get("message") or details.get("message") or f"HTTP {status}"
    by_status = {
        401: Unauthorized,
        403: Forbidden,
        404: NotFound,
        405: MethodNotAllowed,
        409: Conflict,
        410: Expired,
        413: PayloadTooLarge,
        415: UnsupportedMediaType,
        422: Invalid,
        429: TooManyRequests,
        502: Unavailable,
        503: Unavailable,
        504: Unavailable,
    }
    fallback = by_status.get(status, UsageError if status == 400 else Internal)
    cls = classes.get(str(details.get("code")), fallback)
    causes = [
        Cause(str(c.get("field", "")), str(c.get("message", "")))
        for c in details.get("causes") or ()
        if isinstance(c, Mapping)
    ]
    request_id = details.get("requestID") or details.get("request_id") or request_id
    return cls(str(message), causes=causes, request_id=request_id)
