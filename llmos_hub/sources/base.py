"""The interface of model sources, which turn a URI into files on disk and describe them.

A source runs in a separate process (``llmos-hub fetch URI DIR``: a child of the backend on a workstation, a job in a
cluster) and reports on its standard output, one JSON object a line:

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

__all__ = ["FetchProgress", "Header", "ModelFiles", "Reporter", "Source"]


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata in the header of a model's file, as far as the platform needs it.

    Attributes
    ----------
    architecture
        ``general.architecture``: ``llama``, ``qwen3``, ``bert``.
    type
        ``general.type`` if the file isn't a model: ``adapter``, ``mmproj``.
    name
        ``general.name``, for people.
    quantization
        The quantization of most of the weights: ``Q4_K_M``, ``F16``.
    parameters
        Number of weights.
    context_length, embedding_length, block_count, head_count, head_count_kv, key_length, value_length
        The sizes that determine the memory of a context; 0 if not in the header.
    vocabulary
        Number of tokens in the vocabulary; 0 if not in the header.
    pooling
        The pooling type in the header (``mean``, ``cls``, ``last``, ``rank``, ``none``), or None.
    causal
        False if the header says that attention is not causal, as in an encoder.
    classifier
        True if there is a classification head, as in rerankers.
    chat_template
        True if there is a chat template; `tools` is true if the template supports tools.
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
    """The files of a fetched model.

    Attributes
    ----------
    uri
        The requested URI.
    revision
        The exact revision: a commit, or ``sha256:…`` of the file.
    path
        The path that an engine is given: a GGUF file (of several parts the first), or a directory.
    format
        ``gguf`` or ``safetensors``.
    size
        Size of all files in bytes.
    header
        The metadata in the file's header.
    label
        An explanation for people, such as that ``demo://tiny`` is for tests; may be empty.
    note
        The file that was chosen of a repository, and why; may be empty.
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
        """Return the data as for JSON."""
        return asdict(self)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> ModelFiles:
        """Return the object from data of `dump`; unknown fields of a newer version are ignored."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        header = {k: v for k, v in dict(known.pop("header", {})).items() if k in Header.__dataclass_fields__}
        return cls(**known, header=Header(**header))


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """The progress of a download, in bytes and bytes per second.

    Attributes
    ----------
    message
        The current activity if it is not a download, such as waiting for another fetch of the same model. Then the
        other fields are not used.
    """

    file: str
    done: int
    total: int | None = None
    rate: float | None = None
    message: str = ""


Reporter = Callable[[FetchProgress], None]
"""A function that shows the progress of a fetch."""


class Source(Protocol):
    """A source of models, for one URI scheme: a module of this package with a function `fetch`."""

    def fetch(self, uri: str, directory: Path, report: Reporter) -> ModelFiles:
        """Fetch the files into `directory`, the content-addressed cache, and read their header.

        Complete files are not fetched again, partial ones are resumed, and concurrent fetches of the same file
        fetch it once.

        Raises
        ------
        SourceFailed
            It can't be fetched; the message says what was requested where, why it failed and what to do.
        Invalid
            The files are not a model that an engine here can read.
        """
        ...
