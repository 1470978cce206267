"""The files of GGUF models: parts that belong together, and the choice of a model in a repository.

These are pure functions of file names and header contents. Large models are split into parts named
``NAME-00001-of-00003.gguf`` (llama.cpp's ``gguf-split``); an engine is given the first and finds the others beside it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

from llmos_hub.sources.gguf_header import Outline

__all__ = ["Candidate", "ChosenModel", "candidates", "choose", "part_of", "parts_of", "reads_like_a_companion"]

OutlineReader = Callable[[str], Outline | None]
"""Returns the outline of a repository's file, given by its path; None if it can't be read."""
_LOOKS: Final = 8
"""Maximum number of headers that are read for a choice: each is a request."""
_TOLD: Final = 3
"""Maximum number of files for which the reason is given that they weren't chosen."""
_BY_ITS_NAME: Final = "by its name it goes with the model"

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)$", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:I?Q\d+|TQ\d|MXFP4|NVFP4)(?:_[A-Z0-9]+)*|BF16|F16|F32)(?![A-Za-z0-9])", re.IGNORECASE
)
_LIKE_A_COMPANION = re.compile(
    r"(?<![a-z0-9])(mmproj|imatrix|ggml-vocab|q?lora|adapter|control-?vector|mtp|nextn|eagle-?\d*|medusa|dflash|draft(er)?|"
    r"speculator|assistant)(?![a-z0-9])",
    re.IGNORECASE,
)
"""Words in paths of files that usually accompany a model and aren't one; the header decides."""
_TYPES: Final = {
    "adapter": "it is an adapter (LoRA)",
    "mmproj": "it is the vision part of a model",
    "imatrix": "it holds importance data for quantizing",
}
_DRAFT = re.compile(r"eagle|medusa|dflash|(^|[-_])(mtp|nextn|draft|assistant)", re.IGNORECASE)
"""Architectures of models that draft another model's next tokens (speculative decoding)."""

PREFERENCE: Final = (
    "Q4_K_M", "Q4_K_XL", "Q5_K_M", "Q5_K_XL", "Q4_K_S", "Q5_K_S", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4", "Q6_K", "Q8_0", "Q5_0", "Q5_1",
)  # fmt: skip
"""Quantizations, the one that suits most people first; others are ordered by size, the smallest first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of a repository: a file, or all parts of one.

    Attributes
    ----------
    files
        Paths within the repository, the first part first.
    size
        Total size in bytes.
    quantization
        The quantization in its name, such as ``Q4_K_M``; empty if there is none.
    complete
        True if no part is missing.
    doubtful
        True if its path looks like that of a file that accompanies a model: an adapter, a vision part, a draft model.
        Its header decides what it is.
    """

    files: tuple[str, ...]
    size: int
    quantization: str
    complete: bool = True
    doubtful: bool = False

    @property
    def title(self) -> str:
        """The name for people: the file's name, for several parts with their number."""
        name = PurePosixPath(self.files[0]).name
        return name if len(self.files) == 1 else f"{name} and {len(self.files) - 1} more parts"


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The choice and the reason as a sentence; the candidate is None if none fits the request."""

    candidate: Candidate | None
    reason: str


def part_of(name: str) -> tuple[str, int, int] | None:
    """Return stem, number and count of a part's name: ``("m", 1, 3)`` for ``m-00001-of-00003.gguf``; otherwise None."""
    found = _PART.match(name)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def parts_of(path: Path) -> list[Path]:
    """Return the paths of all parts of the model that a file belongs to, the first part first."""
    found = _PART.match(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    ending = f"-of-{found['count']}{found['suffix']}"
    return [path.with_name(f"{found['stem']}-{number:05d}{ending}") for number in range(1, count + 1)]


def candidates(sizes: Mapping[str, int]) -> list[Candidate]:
    """Return the GGUF models of a repository (sizes in bytes by path); the parts of one are joined."""
    groups: dict[str, list[str]] = {}
    for path in sorted(sizes):
        if not path.lower().endswith(".gguf"):
            continue
        part = part_of(path)
        groups.setdefault(f"{part[0]}/{part[2]}" if part else path, []).append(path)
    result = []
    for files in groups.values():
        part = part_of(files[0])
        complete = part is None or (part[1] == 1 and len(files) == part[2])
        found = _QUANTIZATION.findall(files[0])
        quantization = found[-1].upper() if found else ""
        size = sum(sizes[f] for f in files)
        result.append(Candidate(tuple(files), size, quantization, complete, reads_like_a_companion(files[0])))
    return result


def reads_like_a_companion(path: str) -> bool:
    """Return whether a path looks like that of a file that accompanies a model; its header may say otherwise.

    >>> reads_like_a_companion("MTP/Qwen-Q4_K_M.gguf"), reads_like_a_companion("Qwen-Q4_K_M.gguf")
    (True, False)
    """
    return _LIKE_A_COMPANION.search(path) is not None


def companion(outline: Outline) -> str:
    """Return half a sentence on what a file is that isn't a model by its header; empty if it may be one."""
    if outline.type in _TYPES:
        return _TYPES[outline.type]
    if outline.architecture == "clip":
        return _TYPES["mmproj"]
    if outline.architecture == "controlvector":
        return "it is a control vector"
    if _DRAFT.search(outline.architecture):
        return f"it drafts for another model (architecture {outline.architecture})"
    return ""


def _only_a_part(outline: Outline, largest: Outline) -> str:
    """Return half a sentence on why a file is only a part of a model, compared to the largest file; otherwise empty.

    All quantizations of a model have the same tensors, except for one or two; a draft model has a few of them.
    """
    if outline.tensors * 2 < largest.tensors:
        return f"it holds {outline.tensors} tensors, the largest file {largest.tensors}"
    if outline.blocks and outline.blocks * 2 < largest.blocks:
        return f"it has {outline.blocks} blocks, the largest file {largest.blocks}"
    if outline.tensors < outline.blocks and largest.tensors >= largest.blocks:
        return f"it holds {outline.tensors} tensors for {outline.blocks} blocks"
    return ""


def _rank(candidate: Candidate) -> tuple[int, int, int, int, str]:
    preferred = PREFERENCE.index(candidate.quantization) if candidate.quantization in PREFERENCE else len(PREFERENCE)
    by_size = candidate.size if preferred == len(PREFERENCE) else 0
    path = candidate.files[0]
    return preferred, by_size, path.count("/"), len(path), path


def choose(models: Sequence[Candidate], wanted: str | None, read: OutlineReader) -> ChosenModel:
    """Choose a model of a repository.

    The header decides what a file is: one whose name looks like a draft or an adapter is chosen if its header is that
    of a whole model, and one whose name looks like a model is not chosen if its header says otherwise. Headers are
    read only if there is a choice.

    Parameters
    ----------
    models
        All candidates, at least one.
    wanted
        The part of the URI after the colon: a path, a file's name or a quantization; None: the best by `PREFERENCE`.
    read
        Returns the outline of a file; None if it can't be read.
    """
    if wanted is not None:
        exact = _named(models, wanted)
        if exact is not None:
            return _as_asked(exact)
        of_it = [m for m in models if _is_quantized(m, wanted)]
        if not of_it:
            return _not_there(models, wanted)
    else:
        of_it = list(models)
    whole = [m for m in of_it if m.complete]
    if not whole:
        return ChosenModel(None, f"of {of_it[0].files[0]} parts are missing in the repository")
    # a vision part may be the only file of a quantization
    if len(whole) == 1 and (wanted is None or not whole[0].doubtful):
        is_only = "is the only GGUF model there" if wanted is None else f"is the only {wanted} there"
        return ChosenModel(whole[0], f"{whole[0].title} {is_only}")
    return _best(whole, models, wanted, read)


def _best(
    whole: Sequence[Candidate], models: Sequence[Candidate], wanted: str | None, read: OutlineReader
) -> ChosenModel:
    """Choose the first by `_rank` whose header doesn't exclude it; `models` are all of the repository."""
    largest = max((m for m in models if m.complete), key=lambda m: m.size)
    reference = read(largest.files[0])
    left_out: dict[Candidate, str] = {}
    best = None
    for candidate in sorted(whole, key=_rank)[:_LOOKS]:
        outline = reference if candidate is largest else read(candidate.files[0])
        why = _why_not(candidate, outline, reference if candidate is not largest else None)
        if not why:
            best = candidate
            break
        left_out[candidate] = why
    if best is None and wanted is not None and len(left_out) == len(whole) and _BY_ITS_NAME not in left_out.values():
        return ChosenModel(None, f"no model there is {wanted}{_without(left_out)}. There are: {_listed(models)}")
    if best is None:
        best = min(whole, key=lambda m: (m in left_out, m.doubtful, _rank(m)))
        left_out.pop(best, None)
    left_out |= {m: _BY_ITS_NAME for m in whole if m.doubtful and m is not best and m not in left_out}
    others = [m for m in whole if m not in left_out]
    return ChosenModel(best, _reason(best, others, wanted) + _without(left_out))


def _why_not(candidate: Candidate, outline: Outline | None, reference: Outline | None) -> str:
    if outline is None:
        return _BY_ITS_NAME if candidate.doubtful else ""
    if what := companion(outline):
        return what
    if reference is None or companion(reference) or len(candidate.files) > 1:  # a part may hold few tensors
        return ""
    return _only_a_part(outline, reference)


def _reason(best: Candidate, others: Sequence[Candidate], wanted: str | None) -> str:
    if wanted is not None:
        return f"{best.title} was chosen for {wanted}"
    if len(others) == 1:
        return f"{best.title} is the only model there"
    if best.quantization not in PREFERENCE:
        why = "it is the smallest"
    elif best.quantization == PREFERENCE[0]:
        why = "the usual balance of size and quality"
    else:
        why = f"there is no {PREFERENCE[0]}"
    return f"{best.title} was chosen of {len(others)} GGUF models: {why}"


def _without(left_out: Mapping[Candidate, str]) -> str:
    told = [f"; not {candidate.title}: {why}" for candidate, why in left_out.items()]
    more = f"; nor {len(told) - _TOLD} more that go with it" if len(told) > _TOLD else ""
    return "".join(told[:_TOLD]) + more


def _named(models: Sequence[Candidate], wanted: str) -> Candidate | None:
    """Return the file with that path, otherwise the one with that name; None if not found."""
    spelled = (wanted, unquote(wanted))  # percent-encoding may be meant as such, and may be part of a name
    lowered = {each.lower() for each in spelled}
    exact = [m for each in spelled for m in models if each in m.files]
    matches = exact[:1] or [m for m in models if any(PurePosixPath(f).name.lower() in lowered for f in m.files)]
    return min(matches, key=_rank, default=None)


def _is_quantized(candidate: Candidate, wanted: str) -> bool:
    """Return whether it has that quantization, which may be given as the end of the name: ``UD-Q4_K_XL``."""
    stem = PurePosixPath(candidate.files[0]).name
    part = part_of(stem)
    stem = (part[0] if part else PurePosixPath(stem).stem).lower()
    ending = re.search(rf"(?<![a-z0-9]){re.escape(wanted.lower())}$", stem)
    return candidate.quantization.lower() == wanted.lower() or ending is not None


def _as_asked(candidate: Candidate) -> ChosenModel:
    if not candidate.complete:
        return ChosenModel(None, f"of {candidate.files[0]} parts are missing in the repository")
    return ChosenModel(candidate, f"{candidate.title}, as asked for")


def _not_there(models: Sequence[Candidate], wanted: str) -> ChosenModel:
    names = _names(models)
    meant = difflib.get_close_matches(wanted, [PurePosixPath(n).name for n in names] + names, n=1, cutoff=0.6)
    hint = f' Did you mean "{meant[0]}"?' if meant else ""
    return ChosenModel(None, f'there is no file or quantization "{wanted}".{hint} There are: {_listed(models)}')


def _names(models: Sequence[Candidate]) -> list[str]:
    return [m.files[0] for m in sorted(models, key=lambda m: (m.doubtful, _rank(m)))]


def _listed(models: Sequence[Candidate]) -> str:
    names = _names(models)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
