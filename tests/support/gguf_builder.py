"""Small GGUF files for tests, written byte by byte, so that invalid ones are possible too."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DEFAULT_KEYS", "build_gguf"]

DEFAULT_KEYS: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.name": "test",
    "general.file_type": 15,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "b"],
}


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def build_gguf(
    keys: Mapping[str, Any] = DEFAULT_KEYS,
    tensors: Sequence[tuple[str, Sequence[int], int]] = (("token_embd.weight", (256, 4), 12),),
    *,
    version: int = 3,
    data: bytes | None = None,
) -> bytes:
    """Return the content of a GGUF file.

    Parameters
    ----------
    keys
        Keys and values; integers are written as uint32, lists of them as int32.
    tensors
        Name, dimensions and type number (12 is Q4_K).
    version
        Version of the format.
    data
        Content after the header; by default zeros, as many as Q4_K needs.
    """
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    body = b"".join(_text(key) + _value(value) for key, value in keys.items())
    offset = 0
    for name, dimensions, kind in tensors:
        body += _text(name) + struct.pack("<I", len(dimensions))
        body += struct.pack(f"<{len(dimensions)}Q", *dimensions) + struct.pack("<IQ", kind, offset)
    content = head + body
    content += b"\0" * (-len(content) % 32)
    if data is None:
        weights = 0
        for _, dimensions, _ in tensors:
            count = 1
            for each in dimensions:
                count *= each
            weights += count
        data = b"\0" * (weights // 256 * 144)
    return content + data
