"""Which files make a GGUF model: parts that belong together, and the one to take of a repository.

Pure functions over file names. Large models are split into parts named ``NAME-00001-of-00003.gguf``
(llama.cpp's ``gguf-split``); an engine is given the first and finds the others beside it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

__all__ = ["PREFERENCE", "Candidate", "Choice", "candidates", "choose", "name_of_part", "part_of"]

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)$", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:I?Q\d+|TQ\d|MXFP4|NVFP4)(?:_[A-Z0-9]+)*|BF16|F16|F32)(?![A-Za-z0-9])", re.IGNORECASE
)
_NOT_A_MODEL = re.compile(r"mmproj|imatrix|ggml-vocab|(?<![a-z])lora(?![a-z])", re.IGNORECASE)

PREFERENCE: Final = (
    "Q4_K_M", "Q5_K_M", "Q4_K_S", "Q5_K_S", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4", "Q6_K", "Q8_0", "Q5_0", "Q5_1",
)  # fmt: skip
"""Quantizations from the one that suits most people on; what is none of these goes by size, the smallest first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of a repository: a file, or all parts of one.

    Attributes
    ----------
    files
        Paths within the repository, the first part first.
    size
        Bytes in all.
    quantization
        By its name, such as ``Q4_K_M``; empty where the name doesn't say.
    complete
        Whether all parts are there.
    """

    files: tuple[str, ...]
    size: int
    quantization: str
    complete: bool = True

    @property
    def title(self) -> str:
        """What people call it: the file's name, for parts with their number."""
        name = PurePosixPath(self.files[0]).name
        return name if len(self.files) == 1 else f"{name} and {len(self.files) - 1} more parts"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why, as a sentence; no candidate where nothing fits what was asked for."""

    candidate: Candidate | None
    reason: str


def part_of(name: str) -> tuple[str, int, int] | None:
    """Stem, number and count where a name is that of a part: ``("m", 1, 3)`` for ``m-00001-of-00003.gguf``."""
    found = _PART.match(name)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def name_of_part(name: str, number: int) -> str:
    """The name of another part of the same model."""
    found = _PART.match(name)
    assert found is not None, "asked for a part of a file that has none"
    return f"{found['stem']}-{number:05d}-of-{found['count']}{found['suffix']}"


def candidates(sizes: Mapping[str, int]) -> list[Candidate]:
    """The models among a repository's files (path to bytes), parts joined, helper files left out."""
    groups: dict[str, list[str]] = {}
    for path in sorted(sizes):
        if not path.lower().endswith(".gguf") or _NOT_A_MODEL.search(PurePosixPath(path).name):
            continue
        part = part_of(path)
        groups.setdefault(f"{part[0]}/{part[2]}" if part else path, []).append(path)
    result = []
    for files in groups.values():
        part = part_of(files[0])
        complete = part is None or (part[1] == 1 and len(files) == part[2])
        found = _QUANTIZATION.findall(files[0])
        result.append(
            Candidate(tuple(files), sum(sizes[f] for f in files), found[-1].upper() if found else "", complete)
        )
    return result


def _rank(candidate: Candidate) -> tuple[int, int, int, int, str]:
    preferred = PREFERENCE.index(candidate.quantization) if candidate.quantization in PREFERENCE else len(PREFERENCE)
    by_size = candidate.size if preferred == len(PREFERENCE) else 0
    path = candidate.files[0]
    return preferred, by_size, path.count("/"), len(path), path


def choose(models: Sequence[Candidate], wanted: str | None) -> Choice:
    """The model that is meant.

    Parameters
    ----------
    models
        Those there are, at least one.
    wanted
        What stands behind the colon of the URI: a path, a file's name or a quantization; None: the best by `PREFERENCE`.
    """
    whole = [m for m in models if m.complete]
    if wanted is not None:
        return _named(models, wanted)
    if not whole:
        return Choice(None, f"of {models[0].files[0]} parts are missing in the repository")
    best = min(whole, key=_rank)
    if len(whole) == 1:
        return Choice(best, f"{best.title} is the only GGUF model there")
    if best.quantization in PREFERENCE:
        first = PREFERENCE.index(best.quantization) == 0
        why = (
            "the usual balance of size and quality"
            if first
            else f"there is no {' or '.join(PREFERENCE[:2])}"
            if PREFERENCE.index(best.quantization) > 1
            else f"there is no {PREFERENCE[0]}"
        )
    else:
        why = "it is the smallest"
    return Choice(best, f"{best.title} was chosen of {len(whole)} GGUF models: {why}")


def _named(models: Sequence[Candidate], wanted: str) -> Choice:
    lowered = wanted.lower()
    exact = [m for m in models if wanted in m.files]
    by_name = exact or [m for m in models if any(PurePosixPath(f).name.lower() == lowered for f in m.files)]
    matches = by_name or [m for m in models if m.quantization.lower() == lowered]
    if matches:
        best = min(matches, key=_rank)
        if not best.complete:
            return Choice(None, f"of {best.files[0]} parts are missing in the repository")
        return Choice(best, f"{best.title}, as asked for")
    names = [m.files[0] for m in sorted(models, key=_rank)]
    meant = difflib.get_close_matches(wanted, [PurePosixPath(n).name for n in names] + names, n=1, cutoff=0.6)
    hint = f' Did you mean "{meant[0]}"?' if meant else ""
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return Choice(None, f'there is no file or quantization "{wanted}".{hint} There are: {listed}')
