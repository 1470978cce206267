"""Models in volumes: found below the mount and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.errors import SourceFailed
from llmos.resources import ModelService
from llmos_hub.sources import demo, source_of
from llmos_hub.sources.volume import ENV_VOLUME, fetch

TINY = Path(demo.__file__).parent / "data" / "demo-q8_0.gguf"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "volume"
    (made / "models").mkdir(parents=True)
    (made / "models" / "a.gguf").write_bytes(TINY.read_bytes())
    (tmp_path / "outside.gguf").write_bytes(TINY.read_bytes())
    monkeypatch.setenv(ENV_VOLUME, str(made))
    return made


def test_a_file_is_used_in_place(root: Path) -> None:
    found = source_of("volume://data/models/a.gguf").fetch("volume://data/models/a.gguf", root, print)
    assert found.uri == "volume://data/models/a.gguf"
    assert found.path == str(root / "models" / "a.gguf")
    (root / "latest.gguf").symlink_to("models/a.gguf")
    assert fetch("volume://data/latest.gguf", root, print).path == found.path


def test_what_is_elsewhere_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "out.gguf").symlink_to(root.parent / "outside.gguf")
    for path, said in (
        ("out.gguf", "leads out of the volume data"),
        ("../outside.gguf", "leads out"),
        ("none.gguf", "llmos volume ls data"),
        ("models", "It holds: a.gguf"),
    ):
        with pytest.raises(SourceFailed, match=said):
            fetch(f"volume://data/{path}", root, print)
    monkeypatch.delenv(ENV_VOLUME)
    with pytest.raises(SourceFailed, match="isn't mounted"):
        fetch("volume://data/models/a.gguf", root, print)


def test_a_service_uses_the_volume_while_it_runs() -> None:
    def service(**spec: object) -> ModelService:
        return ModelService.parse({"kind": "ModelService", "metadata": {"name": "x"}, "spec": spec})

    assert service(model="volume://data/a.gguf").uses == [("Volume", "data")]
    assert not service(model="volume://data/a.gguf", paused=True).uses
    assert not service(model="demo://tiny").uses
