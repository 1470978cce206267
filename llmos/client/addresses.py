"""Conversion of what people type for a model into its address. Its only I/O is to look for a file of that name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmos.errors import Invalid
from llmos.resources.modeluri import DEMOS, is_repository
from llmos.resources.quantities import format_bytes

__all__ = ["FoundRepository", "address_error", "address_of", "read_repositories", "search_words"]

_PAGE = re.compile(
    r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[\w.-]+/[\w.-]+?)"
    r"(?::(?P<quantization>[\w.-]+)|/(?:blob|resolve|tree)/(?P<revision>[\w.-]+)(?:/(?P<file>[^?#]+))?)?/?(?:[?#].*)?$"
)
_WAYS: Final = (
    "Write org/repo for a GGUF repository, /path/model.gguf for a file, "
    f"or the name of a demo model: {', '.join(DEMOS)}."
)
_BYTES_PER_WEIGHT: Final = 4.9 / 8
"""For the quantization Q4_K_M, the default."""
_BESIDE_THE_WEIGHTS: Final = 1.2
"""Factor for context and buffers. It only decides whether a model fits, it doesn't predict its memory."""


@dataclass(frozen=True, slots=True)
class FoundRepository:
    """A repository found by a hub.

    Attributes
    ----------
    repository
        ``org/name``.
    parameters
        Number of weights; 0 where the hub doesn't say.
    """

    repository: str
    parameters: int = 0

    @property
    def size(self) -> int:
        """The approximate size in bytes as Q4_K_M."""
        return int(self.parameters * _BYTES_PER_WEIGHT)

    def fits(self, memory: int) -> bool:
        """Return whether the model fits into that many bytes, as far as its number of weights can tell."""
        return self.size * _BESIDE_THE_WEIGHTS <= memory


def address_of(model: str, directory: Path | None = None) -> str | None:
    """Return the full address of a model; None for a short name such as ``llama3``, which only a hub can resolve.

    Parameters
    ----------
    model
        An address, ``org/repo``, a path, the name of a demo model, or the URL of a repository's web page.
    directory
        Base of relative paths; by default the working directory.

    Raises
    ------
    Invalid
        `model` looks like a path and nothing exists there, or it is empty.

    Examples
    --------
    >>> address_of("Qwen/Qwen3-4B-GGUF"), address_of("smollm2"), address_of("llama3")
    ('hf://Qwen/Qwen3-4B-GGUF', 'demo://smollm2', None)
    >>> address_of("hf.co/Qwen/Qwen3-4B-GGUF:Q8_0")
    'hf://Qwen/Qwen3-4B-GGUF:Q8_0'
    >>> address_of("https://huggingface.co/Qwen/Qwen3-4B-GGUF/blob/main/Qwen3-4B-Q8_0.gguf")
    'hf://Qwen/Qwen3-4B-GGUF@main:Qwen3-4B-Q8_0.gguf'
    """
    model = model.strip()
    if not model:
        raise Invalid(f"The model's address is empty. {_WAYS}")
    if page := _PAGE.match(model):
        revision = f"@{page['revision']}" if page["revision"] else ""
        # a quantization behind the repository is how other programs for GGUF models write it
        file = page["file"] or (page["quantization"] if page["quantization"] != "latest" else None)
        return f"hf://{page['repo']}{revision}" + (f":{file}" if file else "")
    if "://" in model:
        return model
    path = Path(model).expanduser()
    there = (directory or Path.cwd()) / path
    names_a_file_of_a_repository = ":" in model and is_repository(model)
    reads_like_a_path = (
        path.is_absolute()
        or model.startswith(("./", "../", "~/"))
        or (model.lower().endswith(".gguf") and not names_a_file_of_a_repository)
    )
    if there.exists() if reads_like_a_path else there.is_file():
        return f"file://{os.path.normpath(there)}"  # symbolic links stay: their target may have another name
    if reads_like_a_path:
        raise Invalid(
            f'There is no file "{model[:200]}" here. A path is read from {directory or Path.cwd()}, or begins with /.'
        )
    if model in DEMOS:
        return f"demo://{model}"
    return f"hf://{model}" if is_repository(model) else None


def search_words(model: str) -> str:
    """Return the search term for a hub: ``qwen3 4b`` for ``qwen3:4b``.

    >>> search_words("qwen3:4b"), search_words("llama3.2:latest")
    ('qwen3 4b', 'llama3.2')
    """
    return " ".join(word for word in re.split(r"[\s:/]+", model) if word and word != "latest")


def read_repositories(data: Any) -> list[FoundRepository]:
    """Return the repositories in a hub's response to ``GET /api/models``, in its order; skip unreadable entries."""
    found = []
    for entry in data if isinstance(data, list) else ():
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and is_repository(name) and ":" not in name:
            gguf = entry.get("gguf")
            total = gguf.get("total") if isinstance(gguf, dict) else None
            found.append(FoundRepository(name, total if isinstance(total, int) and not isinstance(total, bool) else 0))
    return found


def address_error(model: str, found: Sequence[FoundRepository], memory: int | None, problem: str) -> Invalid:
    """Return the error for a short name, with the repositories that match it and whether they fit into memory.

    Parameters
    ----------
    model
        The short name.
    found
        The hub's results, best first.
    memory
        Memory in bytes of the largest node; None if unknown.
    problem
        Reason why the hub has no results, as a sentence; empty if the hub responded.
    """
    if problem or not found:
        reason = problem or "The hub knows no GGUF repository by it."
        return Invalid(f'"{model[:80]}" is not the address of a model. {reason} {_WAYS}')
    fitting = [each for each in found if memory is None or not each.parameters or each.fits(memory)]
    listed = ", ".join(f"{each.repository}{_judged(each, memory)}" for each in found)
    return Invalid(
        f'"{model[:80]}" is not the address of a model. GGUF repositories of that name: {listed}. '
        f"Serve one, such as: {(fitting or found)[0].repository}"
    )


def _judged(found: FoundRepository, memory: int | None) -> str:
    if not found.parameters:
        return ""
    size = f"about {format_bytes(found.size, binary=False)} as Q4_K_M"
    if memory is None:
        return f" ({size})"
    judged = "fits into this machine's" if found.fits(memory) else "too large for this machine's"
    return f" ({size}, {judged} {format_bytes(memory)})"
