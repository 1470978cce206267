"""Request bodies in JSON or YAML, with limits on size, time and depth."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

import yaml
from starlette.requests import ClientDisconnect, Request

from llmos.errors import Cause, Invalid, PayloadTooLarge, Unavailable, UnsupportedMediaType, UsageError

__all__ = ["APPLY_PATCH", "JSON", "MERGE_PATCH", "YAML", "content_type", "decode", "read_body"]

JSON: Final = "application/json"
YAML: Final = "application/yaml"
APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"

_YAML_TYPES: Final = frozenset({YAML, APPLY_PATCH, "application/x-yaml", "text/yaml", "text/x-yaml"})
_JSON_TYPES: Final = frozenset({JSON, MERGE_PATCH})
_TIMEOUT: Final = 30.0
_DEPTH: Final = 64
"""Maximum levels of nesting of a manifest; the deepest kind has seven."""
_NUMBER: Final = 64
"""Maximum characters of a number in YAML: parsing long hexadecimal or base-60 numbers can take minutes."""
_AT_ONCE: Final = 16_384
"""Maximum bytes of YAML parsed in the event loop; more would noticeably delay other requests."""

_HALF: Final = re.compile("[\ud800-\udfff]")
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]  # the base class depends on the installation
    """A safe loader, in C if available, that refuses overlong numbers."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return a value, or raise an error with its place."""
        try:
            # the library's own constructors raise errors without a place on ``!!int ''`` and ``!!bool maybe``
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            text = f'"{node.value[:40]}"' if isinstance(node.value, str) else "this"
            what = f"{text} is no {node.tag.rpartition(':')[2][:40]}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def construct_yaml_int(self, node: Any) -> int:
        """Return an integer."""
        self._check_length(node)
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: Any) -> float:
        """Return a floating-point number."""
        self._check_length(node)
        return float(super().construct_yaml_float(node))

    @staticmethod
    def _check_length(node: Any) -> None:
        if len(str(node.value)) > _NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number is too long", node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def content_type(request: Request, default: str = JSON) -> str:
    """Return the body's media type without parameters."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower() or default


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body.

    Raises
    ------
    PayloadTooLarge
        It is larger than `limit` bytes; no more than that is read.
    UsageError
        It doesn't arrive in time.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise UsageError(f"The request's body did not arrive within {_TIMEOUT:.0f} seconds.") from None
    except ClientDisconnect:
        raise Unavailable("The client went away before its request was complete.") from None
    return b"".join(chunks)


async def decode(body: bytes, media_type: str) -> Any:
    """Return the decoded body.

    Raises
    ------
    UnsupportedMediaType
        The body is neither JSON nor YAML.
    Invalid
        It can't be parsed; the message gives the place.
    """
    if media_type in _JSON_TYPES:
        return _json(body)
    if media_type not in _YAML_TYPES:
        raise UnsupportedMediaType(f'Content-Type "{media_type[:80]}" is not read here. Use {JSON} or {YAML}.')
    if len(body) <= _AT_ONCE:
        return _yaml(body)
    return await asyncio.to_thread(_yaml, body)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request's body is over {limit} bytes, which is the most that is read here.")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json(body: bytes) -> Any:
    try:
        data = json.loads(body, parse_constant=_refuse_constant)
        if b"\\u" in body:
            _refuse_half_characters("", data)
    except json.JSONDecodeError as error:
        raise Invalid(f"The body is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except UnicodeDecodeError:
        raise Invalid("The body is not JSON: it is not UTF-8.") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Invalid(f"The body is not JSON: {reason}.") from None
    return data


def _refuse_half_characters(path: str, value: Any) -> None:
    r"""Refuse half of a UTF-16 surrogate pair, such as ``\ud800``: JSON can express it, but it is no valid Unicode.

    Raises
    ------
    Invalid
        A string has one; the error names the field.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_half_characters(path, key)
            _refuse_half_characters(f"{path}.{key}" if path else key, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_half_characters(f"{path}[{index}]", inner)
    elif isinstance(value, str) and not value.isascii() and (half := _HALF.search(value)):
        cause = Cause(path, f"has half a character in it (\\u{ord(half[0]):04x}), which is no Unicode text")
        raise Invalid(str(cause), causes=[cause])


def _yaml(body: bytes) -> Any:
    """Parse YAML without aliases: a few lines of nested aliases can expand to gigabytes."""
    try:
        depth = 0
        for event in yaml.parse(body, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise Invalid(f"YAML aliases (*{event.anchor}) are not read here. Write the value out.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise Invalid(f"The body is nested more than {_DEPTH} levels deep.")
        return yaml.load(body, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Invalid(f"The body is not YAML: {where}{error.problem or 'it can not be read'}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid(f"The body is not YAML: {str(error).splitlines()[0][:200]}.") from None
