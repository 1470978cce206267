"""All errors that LLMOS raises; servers and clients use the same classes.

Each class has a stable ``code`` for programs and an HTTP ``status``. The message is for people and says what was wrong,
where, and what to do. Errors are raised where they are detected and rendered once, at the edge: as a Kubernetes
``Status`` object by the API (`to_status`, see
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/), in OpenAI's format by the gateway
(`to_openai`), and as one line by the CLI and the magics (`str`).
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
    "NotReady",
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
    "add_sentence",
    "from_status",
]

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    502: "ServiceUnavailable",
    503: "ServiceUnavailable",
}
"""Kubernetes' ``reason`` by HTTP status, so that its clients work unchanged."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One mistake in a request.

    Attributes
    ----------
    field
        Path of the field in the user's spelling: ``spec.resources.memory``.
    message
        The mistake and, if possible, a suggestion.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class LLMOSError(Exception):
    """Base of all errors; only subclasses are raised.

    Parameters
    ----------
    message
        One sentence for people: what, where, why, what to do.
    causes
        The invalid fields, if any.
    request_id
        Id of the request in the logs of all parts of the platform.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    reason: ClassVar[str] = ""
    """Kubernetes' ``reason`` for the same error if it isn't the one of its status."""

    def __init_subclass__(cls, *, code: str, status: int, reason: str = "") -> None:
        """Require every class to name its stable code and its HTTP status."""
        cls.code, cls.status, cls.reason = code, status, reason

    def __init__(self, message: str, *, causes: Iterable[Cause] = (), request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.request_id = request_id

    def __str__(self) -> str:
        tail = f"({self.code} · req {self.request_id})" if self.request_id else f"({self.code})"
        return f"{self.message} {tail}"

    def to_status(self) -> dict[str, Any]:
        """Return the error as a Kubernetes ``Status`` object, the body of every API error."""
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
            "reason": self.reason or _REASONS[self.status],
            "details": details,
            "code": self.status,
        }

    def to_openai(self) -> dict[str, Any]:
        """Return the error in OpenAI's format, with the request's id added.

        Source: https://platform.openai.com/docs/guides/error-codes
        """
        own = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = own.get(self.status, "invalid_request_error" if 400 <= self.status < 500 else "server_error")
        error: dict[str, Any] = {
            "message": self.message,
            "type": kind,
            "param": self.causes[0].field if self.causes else None,
            "code": self.code,
        }
        if self.request_id:
            error["request_id"] = self.request_id
        return {"error": error}


class UsageError(LLMOSError, code="usage", status=400):
    """A command line can't be parsed (exit code 2 in a terminal)."""


class NotConfigured(LLMOSError, code="not_configured", status=400):
    """The platform's address or a token isn't configured; raised by clients, never sent."""


class Invalid(LLMOSError, code="invalid", status=422):
    """A resource doesn't match its schema; `causes` has every invalid field."""


class BadRequest(LLMOSError, code="bad_request", status=400):
    """A request can't be decoded or lacks a parameter such as the model; `causes` has the parameter."""


class Unsupported(LLMOSError, code="unsupported", status=400):
    """The object exists but doesn't support the operation, such as chat with an embedding model."""


class RequestTimeout(LLMOSError, code="request_timeout", status=408):
    """The rest of a request didn't arrive in time."""


class PayloadTooLarge(LLMOSError, code="payload_too_large", status=413):
    """A request's body is larger than the limit."""


class Unauthorized(LLMOSError, code="unauthorized", status=401):
    """The token is missing, unknown or expired."""


class Forbidden(LLMOSError, code="forbidden", status=403):
    """The caller's identity is known but lacks the permission."""


class NotFound(LLMOSError, code="not_found", status=404):
    """The object doesn't exist, or the caller may not know of it."""


class ModelNotFound(NotFound, code="model_not_found", status=404):
    """The caller may use no model of that name."""


class AlreadyExists(LLMOSError, code="already_exists", status=409, reason="AlreadyExists"):
    """An object of that name exists."""


class Conflict(LLMOSError, code="conflict", status=409):
    """The object was changed after it was read; read it again and repeat the change."""


class MethodNotAllowed(LLMOSError, code="method_not_allowed", status=405):
    """The path exists but doesn't support the HTTP method."""


class UnsupportedMediaType(LLMOSError, code="unsupported_media_type", status=415):
    """The body's content type isn't supported."""


class Expired(LLMOSError, code="expired", status=410):
    """The resourceVersion to watch from is too old; the list must be read again."""


class TooManyRequests(LLMOSError, code="rate_limited", status=429):
    """A rate limit of the caller is exceeded."""


class Insufficient(LLMOSError, code="insufficient_resources", status=409):
    """The machine or the quota lacks the requested resources."""


class SourceFailed(LLMOSError, code="source_failed", status=502):
    """A model's files can't be downloaded from its source."""


class BackendFailed(LLMOSError, code="backend_failed", status=500):
    """A workload can't be started or its state can't be read."""


class NotReady(LLMOSError, code="not_ready", status=503):
    """The resource exists but isn't ready; the message has the reason."""


class ModelNotReady(NotReady, code="model_not_ready", status=503):
    """The model exists but has no ready replica; the message has the reason."""


class UpstreamFailed(LLMOSError, code="upstream_failed", status=502):
    """An engine or the gateway closed the connection early or sent an answer that can't be decoded."""


class Unavailable(LLMOSError, code="unavailable", status=503):
    """A part of the platform doesn't respond."""


class Internal(LLMOSError, code="internal", status=500):
    """A bug in LLMOS; the log has more under the request's id."""


def add_sentence(message: str, sentence: str) -> str:
    """Return the message with one more sentence, set apart from a command that the message ends with.

    >>> add_sentence("It crashed.", "Next try in 2 s."), add_sentence("See: llmos logs chat", "Next try in 2 s.")
    ('It crashed. Next try in 2 s.', 'See: llmos logs chat · Next try in 2 s.')
    """
    if not message:
        return sentence
    return f"{message}{' ' if message.endswith(('.', '!', '?')) else ' · '}{sentence}"


def _subclasses(cls: type[LLMOSError]) -> Iterable[type[LLMOSError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def from_status(body: Mapping[str, Any], *, status: int, request_id: str | None = None) -> LLMOSError:
    """Return the error that a ``Status`` object or OpenAI's error body describes.

    Parameters
    ----------
    body
        The decoded body; it may be anything, because a proxy may have answered.
    status
        The HTTP status, which determines the class if the body doesn't.
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
