# Made from ../_async/gateway.py by `make generate`; don't edit it.
"""Calls of the gateway that don't need the openai package."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from llmos.client._sync.transport import Transport, response_lines
from llmos.client.messages import AvailableModel, ChatChunk, error_in, read_models
from llmos.client.requests import make_body
from llmos.errors import UpstreamFailed

__all__ = ["fetch_models", "stream_chat"]


def fetch_models(transport: Transport) -> list[AvailableModel]:
    """Return the models that the caller may use."""
    return read_models(transport.request("GET", "/models"))


def stream_chat(
    transport: Transport,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    timeout: float,
) -> Generator[ChatChunk]:
    """Yield the chunks of a chat completion.

    The gateway sends them as server-sent events (https://platform.openai.com/docs/api-reference/chat-streaming).

    Raises
    ------
    UpstreamFailed
        The stream ended early or can't be decoded.
    LLMOSError
        The gateway or the engine returned an error.
    """
    body = {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **options,
    }
    with transport.stream("POST", "/chat/completions", body=make_body(body), read_timeout=timeout) as response:
        for line in response_lines(response):
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield _read_chunk(data)
    raise UpstreamFailed(f"The answer of {model} broke off before its end.")


def _read_chunk(data: str) -> ChatChunk:
    try:
        chunk: Any = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise UpstreamFailed("The gateway sent a piece of an answer that can't be read.")
    if error := error_in(chunk):
        raise error
    choices = chunk.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
    delta, usage = _object(choice.get("delta")), _object(chunk.get("usage"))
    return ChatChunk(
        text=delta.get("content") or "",
        reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
        finish_reason=choice.get("finish_reason") or "",
        completion_tokens=usage.get("completion_tokens"),
        prompt_tokens=usage.get("prompt_tokens"),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
