"""A reader of GGUF headers, which does not trust their contents.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3,
little-endian: magic, version, counts, key-value pairs, one record per tensor, then the weights. Only what
`Header` needs is kept. Token lists are skipped without being built, and every count and length has a limit, so
that an untrusted file can use neither much memory nor much time: the result is a `Header` or `Invalid`.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from llmos.errors import Invalid
from llmos_hub.sources.base import Header
from llmos_hub.sources.not_gguf import BEGINNING, why_not_gguf

__all__ = ["MAGIC", "Outline", "read_header", "read_outline"]

MAGIC: Final = b"GGUF"

# The largest real headers (256 thousand tokens with their merges) have about 30 MB.
_MAX_KEYS = 65_536
_MAX_TENSORS = 131_072
_MAX_KEY_LENGTH = 65_535  # the format's own limit
_MAX_TEXT_LENGTH = 4 * 2**20
_MAX_LISTED_TEXTS = 4_000_000
_MAX_DIMENSIONS = 4
_MAX_PARTS = 1_000
_MAX_KEPT_ITEMS = 4_096
_MAX_KEPT = 64 * 2**20
_BUFFER = 2**18

_TEXT, _LIST = 8, 9
_NUMBERS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]

_POOLING: Final = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
# general.file_type: how the file was quantized (llama.h, enum llama_ftype)
_FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
# type of a tensor: name, weights in a block, bytes of a block (ggml.h, enum ggml_type)
_TENSOR_TYPES: Final = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip


@dataclass(slots=True)
class _Contents:
    """The values kept of one file's header."""

    values: dict[str, Any] = field(default_factory=dict)
    list_lengths: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    weights_by_type: Counter[str] = field(default_factory=Counter)
    classifier: bool = False
    data_end: int = 0
    """End of the last tensor, in bytes from the beginning of the tensors' data."""


class _HeaderReader:
    """A reader of values from a file, which refuses values over a limit and reads beyond the file's end."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self._file = file
        self._name = name
        self.size = size
        self._buffer = b""
        self._start = 0  # position of the buffer in the file
        self._at = 0  # position of the next byte in the buffer
        self._texts_left = _MAX_LISTED_TEXTS
        self._bytes_left = _MAX_KEPT

    @property
    def position(self) -> int:
        return self._start + self._at

    def invalid(self, what: str) -> Invalid:
        return Invalid(
            f"{self._name} is not a GGUF model that can be read: {what}" + ("" if what.endswith("?") else ".")
        )

    def check_magic(self) -> None:
        """Take the first four bytes; if they aren't GGUF's, raise an error that says what the file is instead."""
        beginning = self._file.read(BEGINNING)
        self._file.seek(0)
        if not beginning.startswith(MAGIC):
            raise Invalid(f"{self._name} is {why_not_gguf(beginning)}")
        self.take(len(MAGIC))

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._buffer):
            self._fill(count)
        piece = self._buffer[self._at : self._at + count]
        self._at += count
        return piece

    def _fill(self, count: int) -> None:
        position = self.position
        self._check_end(position + count)
        self._file.seek(position)
        self._buffer = self._file.read(max(count, _BUFFER))
        self._start, self._at = position, 0
        if len(self._buffer) < count:
            raise self.invalid("it became shorter while it was read")

    def _check_end(self, position: int) -> None:
        if position > self.size:
            raise self.invalid(f"it ends within its header, at byte {self.size:,}. Was it copied or downloaded whole?")

    def skip(self, count: int) -> None:
        if count <= len(self._buffer) - self._at:
            self._at += count
            return
        position = self.position + count
        self._check_end(position)
        self._buffer, self._start, self._at = b"", position, 0

    def number(self, kind: struct.Struct) -> Any:
        return kind.unpack(self.take(kind.size))[0]

    def text(self, limit: int) -> str:
        length = self.number(_U64)
        if length > limit:
            raise self.invalid(f"a text in its header claims {length:,} bytes")
        return self.keep(length).decode("utf-8", "replace")

    def keep(self, count: int) -> bytes:
        """Take bytes that will stay in memory, and count them towards the limit."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise self.invalid(f"its header holds over {_MAX_KEPT:,} bytes of texts and numbers")
        return self.take(count)

    def skip_texts(self, count: int) -> None:
        """Skip a list of texts, item by item, since each has its own length."""
        self._texts_left -= count
        if self._texts_left < 0:
            raise self.invalid(f"a list in its header claims {count:,} texts")
        unpack, size = _U64.unpack_from, _U64.size
        while count:
            buffer, at, end = self._buffer, self._at, len(self._buffer) - size
            while count and at <= end:
                at += size + unpack(buffer, at)[0]
                count -= 1
                if at > len(buffer):
                    break
            over = at - len(buffer)
            if over > 0:
                if over > _MAX_TEXT_LENGTH:
                    raise self.invalid("a text in a list of its header is too long")
                self._at = len(buffer)
                self.skip(over)
            else:
                self._at = at
            if count:
                self._fill(size)


def _read_keys(reader: _HeaderReader, count: int, contents: _Contents) -> None:
    for _ in range(count):
        key = reader.text(_MAX_KEY_LENGTH)
        _read_value(reader, reader.number(_U32), key, contents)


def _read_value(reader: _HeaderReader, kind: int, key: str, contents: _Contents) -> None:
    if kind in _NUMBERS:
        contents.values[key] = reader.number(_NUMBERS[kind])
    elif kind == _TEXT:
        contents.values[key] = reader.text(_MAX_TEXT_LENGTH)
    elif kind == _LIST:
        of, count = reader.number(_U32), reader.number(_U64)
        contents.list_lengths[key] = count
        if of == _TEXT:
            reader.skip_texts(count)
        elif of not in _NUMBERS:
            raise reader.invalid(f'a list in its header ("{key[:60]}") holds things of the unknown type {of}')
        elif count <= _MAX_KEPT_ITEMS:
            number = _NUMBERS[of]
            contents.values[key] = [item for (item,) in number.iter_unpack(reader.keep(count * number.size))]
        else:
            reader.skip(count * _NUMBERS[of].size)
    else:
        raise reader.invalid(f'a value in its header ("{key[:60]}") has the unknown type {kind}')


def _read_tensor(reader: _HeaderReader, contents: _Contents) -> None:
    name = reader.text(_MAX_KEY_LENGTH)
    dimensions = reader.number(_U32)
    if dimensions > _MAX_DIMENSIONS:
        raise reader.invalid(f'its tensor "{name[:60]}" claims {dimensions} dimensions')
    weights = 1
    for _ in range(dimensions):
        weights *= reader.number(_U64)
    if weights >= 2**63:
        raise reader.invalid(f'its tensor "{name[:60]}" claims {weights:,} weights')
    kind, offset = reader.number(_U32), reader.number(_U64)
    known = _TENSOR_TYPES.get(kind)
    contents.parameters += weights
    contents.weights_by_type[known[0] if known else f"type {kind}"] += weights
    contents.classifier = contents.classifier or name.startswith("cls.")
    if known:
        contents.data_end = max(contents.data_end, offset + weights // known[1] * known[2])


def _read_counts(reader: _HeaderReader) -> tuple[int, int]:
    """Check magic and version; return the numbers of tensors and of keys."""
    reader.check_magic()
    version = reader.number(_U32)
    if version not in (2, 3):
        raise reader.invalid(
            "it is big-endian" if version in (2 << 24, 3 << 24) else f"version {version} of the format is not known"
        )
    tensors, keys = reader.number(_U64), reader.number(_U64)
    if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
        raise reader.invalid(f"it claims {tensors:,} tensors and {keys:,} keys")
    return tensors, keys


def _read_file(path: Path) -> _Contents:
    with path.open("rb") as file:
        reader, contents = _HeaderReader(file, path.name, os.fstat(file.fileno()).st_size), _Contents()
        tensors, keys = _read_counts(reader)
        _read_keys(reader, keys, contents)
        for _ in range(tensors):
            _read_tensor(reader, contents)
        _check_length(reader, contents)
        return contents


def _check_length(reader: _HeaderReader, contents: _Contents) -> None:
    alignment = contents.values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
        raise reader.invalid(f"it claims an alignment of {str(alignment)[:40]}")
    begin = -(-reader.position // alignment) * alignment
    if contents.data_end and begin + contents.data_end > reader.size:
        missing = begin + contents.data_end - reader.size
        raise reader.invalid(f"{missing:,} bytes are missing at its end. Was it copied or downloaded whole?")


def _whole(value: Any) -> int:
    """Return a size from the header; if it is given per layer (a list), the mean, rounded up."""
    if isinstance(value, list):
        numbers = [v for v in value if isinstance(v, int)]
        value = -(-sum(numbers) // len(numbers)) if numbers else 0
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48 else 0


def _quantization(file_type: Any, weights_by_type: Counter[str]) -> str:
    """Return the header's name of the quantization, unless the tensors say otherwise."""
    if not weights_by_type:
        return ""
    most = weights_by_type.most_common(1)[0][0]
    named = _FILE_TYPES.get(file_type) if isinstance(file_type, int) else None
    return named if named and named.startswith(most) else most


@dataclass(frozen=True, slots=True)
class Outline:
    """The metadata in the first bytes of a GGUF file.

    Attributes
    ----------
    type
        ``general.type``: ``model``, ``adapter``, ``mmproj``, ``imatrix``; empty if it isn't in those bytes.
    architecture
        ``general.architecture``; empty if it isn't in those bytes.
    tensors
        Number of tensors in the file.
    blocks
        The model's ``block_count``; 0 if it isn't in those bytes.
    """

    type: str
    architecture: str
    tensors: int
    blocks: int


def read_outline(beginning: bytes, name: str) -> Outline | None:
    """Read the metadata in the first bytes of a file; return None if it isn't GGUF.

    Parameters
    ----------
    beginning
        The first bytes: the sizes are in the first few thousand, before the long lists of tokens.
    name
        The file's name, for messages.
    """
    reader, contents = _HeaderReader(io.BytesIO(beginning), name, len(beginning)), _Contents()
    try:
        tensors, keys = _read_counts(reader)
    except Invalid:
        return None
    with contextlib.suppress(Invalid):  # the header is longer than these bytes
        _read_keys(reader, keys, contents)
    architecture = str(contents.values.get("general.architecture", ""))[:64]
    return Outline(
        type=str(contents.values.get("general.type", ""))[:64],
        architecture=architecture,
        tensors=tensors,
        blocks=_whole(contents.values.get(f"{architecture}.block_count", 0)),
    )


def read_header(path: Path, *more: Path) -> Header:
    """Read the header of a model's file, or of all its parts.

    Parameters
    ----------
    path
        The file, or the first part.
    more
        The other parts, whose tensors are included in the result.

    Raises
    ------
    Invalid
        It is not a GGUF model, or it is damaged; the message says how.
    OSError
        It can't be opened or read.
    """
    if len(more) >= _MAX_PARTS:
        raise Invalid(f"{path.name} has {len(more) + 1} parts, more than any model.")
    contents = _read_file(path)
    values = contents.values
    architecture = values.get("general.architecture")
    kind = values.get("general.type")
    kind = kind[:64] if isinstance(kind, str) and kind != "model" else ""
    if kind == "imatrix":
        raise Invalid(f"{path.name} holds importance data, which is for quantizing a model, and no model.")
    if not isinstance(architecture, str) or not architecture:
        raise Invalid(f"{path.name} doesn't say what architecture its model has. Is it the first part of several?")
    _add_parts(contents, more)

    def size(key: str) -> int:
        return _whole(values.get(f"{architecture}.{key}"))

    template = values.get("tokenizer.chat_template")
    template = template if isinstance(template, str) else ""
    pooling = values.get(f"{architecture}.pooling_type")
    name = values.get("general.name")
    return Header(
        architecture="clip" if kind == "mmproj" else architecture[:64],
        type=kind,
        name=name[:200] if isinstance(name, str) else "",
        quantization=_quantization(values.get("general.file_type"), contents.weights_by_type),
        parameters=contents.parameters,
        context_length=size("context_length"),
        embedding_length=size("embedding_length"),
        block_count=size("block_count"),
        head_count=size("attention.head_count"),
        head_count_kv=size("attention.head_count_kv"),
        key_length=size("attention.key_length"),
        value_length=size("attention.value_length"),
        vocabulary=contents.list_lengths.get("tokenizer.ggml.tokens", 0),
        pooling=_POOLING.get(pooling) if isinstance(pooling, int) else None,
        causal=values.get(f"{architecture}.attention.causal") is not False,
        classifier=contents.classifier or f"{architecture}.classifier.output_labels" in contents.list_lengths,
        chat_template=bool(template),
        tools="tools" in template,
    )


def _add_parts(contents: _Contents, parts: Sequence[Path]) -> None:
    for part in parts:
        other = _read_file(part)
        contents.parameters += other.parameters
        contents.weights_by_type.update(other.weights_by_type)
        contents.classifier = contents.classifier or other.classifier
