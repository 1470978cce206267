"""Explanations for files that should be GGUF and aren't, from their first bytes."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BEGINNING", "why_not_gguf"]

BEGINNING: Final = 1024
"""Number of bytes needed for an explanation."""
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_LARGEST_SAFETENSORS_HEADER: Final = 100 * 10**6  # by that format's own limit
_WEB_PAGE = re.compile(
    rb"^(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)(?=[\s>])",
    re.IGNORECASE | re.DOTALL,
)


def why_not_gguf(beginning: bytes) -> str:
    """Return what a file is and what to do, as the rest of a sentence that begins with its name and "is".

    Parameters
    ----------
    beginning
        The file's first bytes; all of them if it is shorter.
    """
    if not beginning:
        return "empty. Was its download broken off, or the disk full? Fetch it again."
    if beginning.startswith(_LFS_POINTER):
        # pydantic comes with it, and a fetch starts faster without
        from llmos.resources.quantities import format_bytes

        found = re.search(rb"^size (\d{1,15})$", beginning, re.MULTILINE)
        of = f" of {format_bytes(int(found[1]), binary=False)}" if found else ""
        return f"a Git LFS pointer to the model{of}, not the model. Where the repository was cloned, type: git lfs pull"
    if _WEB_PAGE.match(beginning):
        return (
            "a web page, not a model: what was saved is the page about it, or a log-in page on the way. "
            "Download the file itself; on Hugging Face its address has /resolve/ in it instead of /blob/."
        )
    if beginning.startswith(b"PK\x03\x04"):
        return "a ZIP archive (PyTorch weights are such). llama.cpp, the engine here, needs a GGUF file."
    if beginning.startswith(b"\x1f\x8b"):
        return "compressed with gzip. Unpack it first: gunzip"
    if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < _LARGEST_SAFETENSORS_HEADER:
        return "a file of safetensors weights. llama.cpp, the engine here, needs a GGUF file."
    return "not a GGUF model. llama.cpp, the engine here, needs a GGUF file."
