"""An estimate of the memory that llama.cpp needs for a model, from the model's header.

There are four parts: the weights, which are as large as the file; keys and values for every token of context; compute
buffers; and the prompt cache. The factors for the buffers were fitted to what llama.cpp reports for models of
different sizes; tests compare the sum with measured memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llmos.errors import Cause, Insufficient
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.quantities import format_bytes
from llmos_hub.engines.base import Machine
from llmos_hub.sources.base import Header

__all__ = ["MIB", "Estimate", "MemorySettings", "at_least", "check_limit", "estimate"]

MIB: Final = 2**20
_PROCESS: Final = 32 * MIB
"""Memory of the interpreter, llama.cpp's code and its vocabulary."""
_BUFFER_PER_VALUE: Final = 52
"""Bytes of compute buffer per token of a batch and per value of its embedding."""
_BYTES_OF_TYPE: Final = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32,
    "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """The settings of llama.cpp that affect memory.

    Attributes
    ----------
    context
        Context size in tokens, of all slots together.
    slots
        Number of concurrent requests.
    batch
        Number of tokens computed at once.
    key_type, value_type
        Data types of keys and values in the context: ``f16``, ``q8_0``.
    prompt_cache
        Size of the prompt cache in bytes.
    embeddings
        True if it computes embeddings, which needs an output for each token.
    """

    context: int
    slots: int = 1
    batch: int = 512
    key_type: str = "f16"
    value_type: str = "f16"
    prompt_cache: int = 0
    embeddings: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate in bytes, by purpose."""

    weights: int
    context: int
    compute: int
    prompt_cache: int
    process: int = _PROCESS

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.process + self.weights + self.context + self.compute + self.prompt_cache


def bytes_per_token(header: Header, key_type: str = "f16", value_type: str = "f16") -> int:
    """Return the bytes that a token of context takes in all layers; 0 for an encoder, which has no context.

    With grouped-query attention there are fewer heads of keys and values than of queries.
    """
    if not header.causal:
        return 0
    heads = header.head_count_kv or header.head_count
    per_head = header.embedding_length // header.head_count if header.head_count else 0
    keys = (header.key_length or per_head) * _BYTES_OF_TYPE.get(key_type, 2.0)
    values = (header.value_length or per_head) * _BYTES_OF_TYPE.get(value_type, 2.0)
    return round(header.block_count * heads * (keys + values))


def estimate(header: Header, file_size: int, settings: MemorySettings) -> Estimate:
    """Return the peak memory of a process with these settings."""
    per_slot = settings.context // max(1, settings.slots)
    compute = settings.batch * (_BUFFER_PER_VALUE * header.embedding_length + 2 * per_slot)
    outputs = settings.batch if settings.embeddings else settings.slots
    compute += outputs * header.vocabulary * 4
    context = settings.context * bytes_per_token(header, settings.key_type, settings.value_type)
    return Estimate(weights=file_size, context=context, compute=compute, prompt_cache=settings.prompt_cache)


def check_limit(spec: ModelServiceSpec, machine: Machine) -> None:
    """Refuse a memory limit above the machine's memory, since it would have no effect.

    Raises
    ------
    Insufficient
        The limit is too large; the message says how much memory there is.
    """
    wanted = spec.resources.memory
    if (spec.resources.memory_bytes or 0) > machine.memory:
        there = format_bytes(machine.memory)
        most = _rounded(machine.memory, math.floor)
        raise Insufficient(
            f"spec.resources.memory: {wanted} asked for, this machine has {there}. Give it {most} at most, or leave memory out.",
            causes=[Cause("spec.resources.memory", f"more than the {there} there are")],
        )


def at_least(count: int) -> str:
    """Return a short quantity of at least `count` bytes, such as ``384Mi`` or ``2.5Gi``.

    >>> at_least(250 * 2**20), at_least(2**31 + 1)
    ('256Mi', '2.25Gi')
    """
    return _rounded(count, math.ceil)


def _rounded(count: int, towards: Callable[[float], int]) -> str:
    if count < 2**30:
        return f"{max(1, towards(count / 2**20 / 64)) * 64}Mi"
    return f"{towards(count / 2**30 * 4) / 4:g}Gi"
