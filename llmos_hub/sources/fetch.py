"""``llmos-hub fetch URI DIR``: the process that fetches a model and reports as JSON lines.

It uses only its arguments and environment (``LLMOS_MODELS_MIRROR``, ``HF_TOKEN``, ``HF_ENDPOINT``, proxy variables),
so that it works alike as a child of the controllers and as an init container. SIGTERM ends it at once; the next
process resumes partial downloads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmos.errors import Internal, LLMOSError, SourceFailed, UsageError
from llmos.proxies import invalid_proxy
from llmos.trust import trust_site
from llmos_hub.failures import where_it_failed
from llmos_hub.sources import source_of
from llmos_hub.sources.base import FetchProgress, ModelFiles, Reporter

__all__ = ["fetch_model", "main"]

_USAGE = "usage: llmos-hub fetch URI DIR, such as: llmos-hub fetch demo://tiny /var/lib/llmos/models"


def _emit(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _report(progress: FetchProgress) -> None:
    if progress.message:
        _emit({"type": "info", "message": progress.message})
        return
    rate = None if progress.rate is None else round(progress.rate)
    _emit({"type": "progress", "file": progress.file, "done": progress.done, "total": progress.total, "rate": rate})


def _fetch(argv: Sequence[str]) -> dict[str, Any]:
    if len(argv) != 2:
        raise UsageError(_USAGE)
    uri, directory = argv
    where = Path(directory).absolute()
    try:
        return fetch_model(uri, where, _report).dump()
    except OSError as error:
        from llmos_hub.sources.cache import explain_os_error

        raise explain_os_error(error, where) from error


def fetch_model(uri: str, where: Path, report: Reporter) -> ModelFiles:
    """Fetch a model into the cache `where`, from the mirror if there is one that has it, otherwise from its source.

    Raises
    ------
    SourceFailed
        It can't be fetched.
    Invalid
        It is not a model that an engine here can read.
    """
    address = os.environ.get("LLMOS_MODELS_MIRROR", "").strip()
    if not address:
        return source_of(uri).fetch(uri, where, report)
    from llmos_hub.sources.mirror import Mirror  # here, since it takes long to import

    mirror = Mirror.at(address)
    try:
        model = mirror.fetch(uri, where, report)
        problem = f"The mirror of models at {mirror.host} doesn't have {uri} either."
    except SourceFailed as error:
        model, problem = None, error.message
        report(FetchProgress("", 0, message=problem))
    if model is not None:
        return model
    try:
        return source_of(uri).fetch(uri, where, report)
    except SourceFailed as error:
        raise SourceFailed(f"{error.message} {problem}") from error


def main(argv: Sequence[str]) -> int:
    """Fetch a model; the last line on standard output says how it ended.

    Parameters
    ----------
    argv
        URI and directory of the cache.

    Returns
    -------
    int
        0: it was fetched; 1: it was not, and the last line says why; 2: wrong usage.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    trust_site(os.environ)
    error: LLMOSError
    try:
        model = _fetch(argv)
    except LLMOSError as raised:
        error = raised
    except BrokenPipeError:
        return 1  # the reader is gone
    except Exception as raised:  # noqa: BLE001 - the outermost level: every error must be reported
        sys.stderr.write(where_it_failed(raised))
        error = _explain(argv[0][:120], raised)
    else:
        _emit({"type": "done", "model": model})
        return 0
    _emit({"type": "error", "code": error.code, "message": error.message})
    return 2 if isinstance(error, UsageError) else 1


def _explain(uri: str, error: Exception) -> LLMOSError:
    if name := invalid_proxy(os.environ):
        return SourceFailed(f"{name} is not the address of a proxy. Write one such as http://proxy.example.org:3128")
    return Internal(f"Fetching {uri} failed by an error in LLMOS: {type(error).__name__}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
