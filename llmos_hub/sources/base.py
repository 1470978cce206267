"""What every source of models does: turn a URI into files on disk and say what they are.

A source runs in a process of its own (``llmos-hub fetch URI DIR``: a child of the backend on a workstation,
a job in a cluster) and reports by JSON lines on its standard output, one object a line:

``{"type": "progress", "file": …, "done": BYTES, "total": BYTES or null, "rate": BYTES/S or null}``
``{"type": "info", "message": …}``
``{"type": "done", "model": {…ModelFiles…}}`` (the last line; exit code 0)
``{"type": "error", "code": …, "message": …}`` (the last line; exit code 1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["Header", "ModelFiles", "Progress", "Source"]


@dataclass(frozen=True, slots=True)
class Header:
    """What a model's file says of itself, as far as anyone here needs it.

    Attributes
    ----------
    architecture
        ``general.architecture``: ``llama``, ``qwen3``, ``bert``.
    type
        ``general.type`` where it isn't that of a model: ``adapter``, ``mmproj``.
    name
        ``general.name``, for people.
    quantization
        Of most of the weights: ``Q4_K_M``, ``F16``.
    parameters
        Number of weights.
    context_length, embedding_length, block_count, head_count, head_count_kv, key_length, value_length
        The sizes that decide how much memory a context needs; 0 where the header doesn't say.
    vocabulary
        Number of tokens it knows; 0 where the header doesn't say.
    pooling
        The header's pooling type where it has one (``mean``, ``cls``, ``last``, ``rank``, ``none``), else None.
    causal
        False where the header says that attention is not causal: an encoder.
    classifier
        Whether there is a classification head, as rerankers have.
    chat_template
        Whether there is one; `tools` whether it speaks of tools.
    """

    architecture: str = ""
    type: str = ""
    name: str = ""
    quantization: str = ""
    parameters: int = 0
    context_length: int = 0
    embedding_length: int = 0
    block_count: int = 0
    head_count: int = 0
    head_count_kv: int = 0
    key_length: int = 0
    value_length: int = 0
    vocabulary: int = 0
    pooling: str | None = None
    causal: bool = True
    classifier: bool = False
    chat_template: bool = False
    tools: bool = False


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Files of a model that are here.

    Attributes
    ----------
    uri
        What was asked for.
    revision
        What exactly it is: a commit, or ``sha256:…`` of the file.
    path
        The file (GGUF; of several parts the first) or directory that an engine is given.
    format
        ``gguf`` or ``safetensors``.
    size
        Bytes of all files.
    header
        What the file says of itself.
    label
        For people, where a model needs explaining: that ``demo://tiny`` is for tests.
    note
        What was chosen and why: which file of a repository.
    """

    uri: str
    revision: str
    path: str
    format: Literal["gguf", "safetensors"]
    size: int
    header: Header = field(default_factory=Header)
    label: str = ""
    note: str = ""

    def dump(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> ModelFiles:
        """The reverse of `dump`; unknown fields of a newer version are passed over."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        header = {k: v for k, v in dict(known.pop("header", {})).items() if k in Header.__dataclass_fields__}
        return cls(**known, header=Header(**header))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is; bytes and bytes a second.

    Attributes
    ----------
    message
        What is being done where it is not a download: waiting for another fetch of the same, say. Then the rest
        doesn't count.
    """

    file: str
    done: int
    total: int | None = None
    rate: float | None = None
    message: str = ""


class Source(Protocol):
    """One URI scheme."""

    scheme: str

    def fetch(self, uri: str, directory: Path, report: Callable[[Progress], None]) -> ModelFiles:
        """Make the files be in `directory`, the content-addressed cache, and read their header.

        What is there whole is not fetched again; what is there in part is gone on with; two that fetch the same
        at once fetch it once.

        Raises
        ------
        SourceFailed
            It can't be had: what was asked where, why not, what to do.
        Invalid
            What is there is not a model that an engine here reads.
        """
        ...
