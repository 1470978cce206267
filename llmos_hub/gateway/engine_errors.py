"""Translation of engines' server errors that are really client errors.

llama.cpp answers 500 for whatever its own code did not expect, also for faults of a request; clients retry a 500 and
don't explain it. Such answers are recognised by their messages (in llama.cpp's tools/server and common/chat.cpp), and
become a 400 that says what to change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from llmos.errors import BadRequest, Cause

__all__ = ["LARGEST_ERROR", "Tokenize", "as_client_error"]

LARGEST_ERROR: Final = 64 * 1024
"""Maximum size in bytes of an error that is read; a longer one is passed on unchanged."""
_LARGEST_REQUEST: Final = 4 * 1024 * 1024
"""Maximum size in bytes of a request that is decoded to find the text that is too long."""
_MOST_TEXTS: Final = 8
"""Number of texts in a batch, the longest ones, whose tokens are counted."""

Tokenize = Callable[[str], Awaitable[int | None]]
"""Returns the number of tokens that the engine makes of a text; None if unknown."""

_TOO_LONG: Final = re.compile(r"input \((\d+) tokens\) is too large to process.*\(current batch size: (\d+)\)")
_NO_MEDIA: Final = re.compile(r"(image|audio|video) input is not supported")
_CLIENTS: Final = re.compile(
    r"Failed to (?:parse (?:tools|messages|tool_choice)|tokenize prompt|load image or audio file|download image)"
    r"|Unknown reasoning format|Invalid (?:base64|url)|uri must be base64|file:// URLs are not allowed"
    r"|logprobs is not supported|number of (?:media|image) markers|' scheme is not supported|too many media files"
    r"|audio must be base64|Error: Jinja Exception"
)


async def as_client_error(model: str, body: bytes, request: bytes, tokenize: Tokenize) -> BadRequest | None:
    """Return the client error that an engine's answer stands for; None if the error is the engine's own.

    Parameters
    ----------
    model
        The model's name, as shown to people.
    body
        The body of the engine's answer, which has a status of 500 or above.
    request
        The body of the request.
    tokenize
        Counts the tokens of a text, by asking the engine.
    """
    message = _message(body)
    if found := _TOO_LONG.search(message):
        return await _too_long(model, int(found[1]), int(found[2]), request, tokenize)
    if found := _NO_MEDIA.search(message):
        what = {"image": "pictures", "audio": "sounds", "video": "films"}[found[1]]
        return BadRequest(
            f'Model "{model}" takes no {what}. Send text, or ask a model that does.',
            causes=[Cause("messages", f"{found[1]} input is not supported")],
        )
    if _CLIENTS.search(message):
        first = message.strip().splitlines()[0][:300]
        return BadRequest(f'Model "{model}" can\'t take this request: {first.rstrip(".")}.')
    return None


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


async def _too_long(model: str, tokens: int, limit: int, request: bytes, tokenize: Tokenize) -> BadRequest:
    places = [f"{field} has {count:,} tokens" for field, count in await _long_texts(request, limit, tokenize)]
    which = ", ".join(places) or f"a text has {tokens:,} tokens"
    return BadRequest(
        f'{which[:1].upper()}{which[1:]}, and model "{model}" takes {limit:,} for a text. Shorten it or split it.',
        causes=[Cause(places[0].partition(" ")[0] if places else "input", f"over {limit} tokens")],
    )


async def _long_texts(request: bytes, limit: int, tokenize: Tokenize) -> list[tuple[str, int]]:
    """Return the fields of an embedding request whose texts are over the limit, with their numbers of tokens.

    Only those that can be found cheaply.
    """
    if len(request) > _LARGEST_REQUEST:
        return []
    try:
        given = json.loads(request).get("input")
    except (ValueError, AttributeError, RecursionError):
        return []
    long: list[tuple[int, int]] = []
    texts: Sequence[Any] = given if isinstance(given, list) and not _is_tokens(given) else [given]
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]) if isinstance(texts[i], (str, list)) else 0)
    for index in by_length[: -_MOST_TEXTS - 1 : -1]:
        text = texts[index]
        count = await tokenize(text) if isinstance(text, str) else len(text) if isinstance(text, list) else 1
        if count is None or count <= limit:
            break
        long.append((index, count))
    single = texts is not given
    return [("input" if single else f"input[{index}]", count) for index, count in sorted(long)]


def _is_tokens(given: list[Any]) -> bool:
    return bool(given) and all(isinstance(item, int) for item in given)
