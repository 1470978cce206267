"""Finding `model` in a request body without building the rest of it.

A small body is decoded whole, which also says exactly what is wrong with it. A large one is only scanned:
`json.loads` of 32 MiB blocks the event loop for 0.1 to 1.5 s and may take twenty times the memory, and
only one field of it is needed here. Bytes are forwarded unchanged; where the engine knows its model by
another name, that one field is replaced in place.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

from llmos.errors import BadRequest, Cause

__all__ = ["add_fields", "parse_body", "replace_model"]

SMALL: Final = 64 * 1024
"""Bodies up to this size are decoded: under a millisecond."""
_YIELD_EVERY: Final = 5_000
"""Brackets scanned before control returns to the event loop: about a millisecond."""

# All groups are atomic and all quantifiers possessive: there is no backtracking, so that no input makes
# matching slower than one pass (and the regular expression engine keeps no stack of alternatives).
_STRING = rb'"(?>[^"\\]++|\\.)*+"'
_FLAT = rb'(?>[^"\[\]{}]++|' + _STRING + rb")*+"
_string = re.compile(_STRING, re.DOTALL)
_skip = re.compile(rb'(?>[^"\[\]{}]++|' + _STRING + rb"|\[" + _FLAT + rb"\]|\{" + _FLAT + rb"\})*+", re.DOTALL)
"""Everything up to the next bracket that is unmatched or has brackets within."""
_key = re.compile(rb"[ \t\r\n]*+(" + _STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.DOTALL)
_scalar = re.compile(rb"[-+.\w]++")
_after = re.compile(rb"[ \t\r\n]*+([,}])")
_open = re.compile(rb"[ \t\r\n]*+\{")
_blank = re.compile(rb"[ \t\r\n]*+")

_MODEL = Cause("model", 'must be the name of a model, such as "chat"')


def _not_json(detail: str) -> BadRequest:
    return BadRequest(f"The request body is not JSON: {detail}. Send a JSON object with at least `model`.")


def _checked(model: object) -> str:
    if not isinstance(model, str):
        raise BadRequest(f"`model` must be a text, not {_TYPES.get(type(model), 'this')}.", causes=[_MODEL])
    if not model:
        raise BadRequest("`model` is empty.", causes=[_MODEL])
    return model


_TYPES = {
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


async def parse_body(body: bytes) -> tuple[str | None, dict[str, Any] | None]:
    """Return the value of the top-level field `model` (None if there is none), and the whole body if it was decoded.

    Raises
    ------
    BadRequest
        The body is not a JSON object, or `model` is not a string. Of a large body only the outline is
        checked; the engine reports what else is wrong with it.
    """
    if len(body) > SMALL:
        spans = await _spans(body)
        if not spans:
            return None, None
        try:
            return _checked(json.loads(body[slice(*spans[-1])])), None
        except (ValueError, RecursionError):
            raise _not_json(f"the value of `model` at byte {spans[-1][0]} is invalid") from None
    try:
        data = json.loads(body)
    except RecursionError:
        raise _not_json("it is nested too deep") from None
    except UnicodeDecodeError:
        raise _not_json("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at line {error.lineno}, column {error.colno}" if body.strip() else "it is empty"
        raise _not_json(detail) from None
    except ValueError as error:  # an integer of thousands of digits
        raise _not_json(str(error).partition(";")[0]) from None
    if not isinstance(data, dict):
        raise BadRequest(f"The request body must be a JSON object, not {_TYPES.get(type(data), 'a text')}.")
    return _checked(data["model"]) if "model" in data else None, data


async def replace_model(body: bytes, name: str) -> bytes:
    """Return the body with another `model` and every other byte unchanged."""
    value = json.dumps(name).encode()
    parts, position = [], 0
    for start, end in await _spans(body):
        parts += [body[position:start], value]
        position = end
    return b"".join([*parts, body[position:]])


def add_fields(body: bytes, fields: bytes) -> bytes:
    """Return the body, which must have a `model`, with `fields` appended: of a repeated field the last one counts."""
    return b"".join((memoryview(body)[: body.rindex(b"}")], b",", fields, b"}"))


async def _spans(body: bytes) -> list[tuple[int, int]]:
    """Return start and end of the value of each top-level `model` field; of a repeated field the last one counts."""
    opened = _open.match(body)
    if opened is None:
        if body.startswith(b"\xef\xbb\xbf") or b"\0" in body[:4]:
            raise _not_json("it is not plain UTF-8")
        raise BadRequest("The request body must be a JSON object.")
    spans: list[tuple[int, int]] = []
    position = opened.end()
    empty = re.compile(rb"[ \t\r\n]*+\}").match(body, position)
    if empty is not None:
        return _complete(body, empty.end(), spans)
    while True:
        key = _key.match(body, position)
        if key is None:
            raise _not_json(f"a field's name is expected at byte {position}")
        start = key.end()
        end = await _value_end(body, start)
        if _is_model(key.group(1)):
            spans.append((start, end))
        after = _after.match(body, end)
        if after is None:
            raise _not_json(f'"," or "}}" is expected at byte {end}')
        position = after.end()
        if after.group(1) == b"}":
            return _complete(body, position, spans)


def _complete(body: bytes, position: int, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    blank = _blank.match(body, position)
    if blank is not None and blank.end() != len(body):
        raise _not_json(f"something follows its end at byte {position}")
    return spans


def _is_model(key: bytes) -> bool:
    if b"\\" not in key:
        return key == b'"model"'
    try:
        return bool(json.loads(key) == "model")
    except ValueError:
        return False


async def _value_end(body: bytes, position: int) -> int:
    first = body[position : position + 1]
    if first == b'"':
        text = _string.match(body, position)
        if text is None:
            raise _not_json(f"the text at byte {position} has no end")
        return text.end()
    if first not in (b"{", b"["):
        scalar = _scalar.match(body, position)
        if scalar is None:
            raise _not_json(f"a value is expected at byte {position}")
        return scalar.end()
    start, position, depth, seen = position, position + 1, 1, 0
    while depth:
        skipped = _skip.match(body, position)
        position = skipped.end() if skipped is not None else position
        bracket = body[position : position + 1]
        if bracket in (b"", b'"'):
            raise _not_json(f"what begins at byte {start} has no end")
        depth += 1 if bracket in (b"{", b"[") else -1
        position += 1
        seen += 1
        if seen % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return position
