"""The command `llmos bundle`."""

import asyncio
import hashlib
import json
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from llmos_hub import app
from llmos_hub.mirror import make_app
from llmos_hub.sources.mirror import Mirror
from tests.support.asgi import serving
from tests.support.image_archives import docker_archive, layer, oci_archive, read_oci

KEYS = {"llmos-hub": layer(a="hub"), "llmos-notebook": layer(a="notebook"), "llmos-engine-cpu": layer(a="engine")}


def bundle(*words):
    """The exit code."""
    return app.main(["bundle", *map(str, words)])


@pytest.fixture
def chart(tmp_path) -> Path:
    """A chart with as many images as there are archives here, independent of the real chart."""
    path = tmp_path / "chart"
    path.mkdir()
    (path / "Chart.yaml").write_text("apiVersion: v2\nname: llmos\nversion: 0.1.0\nappVersion: 0.1.0\n")
    images = {name.removeprefix("llmos-").replace("-cpu", "Cpu"): {"repository": name, "tag": ""} for name in KEYS}
    (path / "values.yaml").write_text(
        yaml.safe_dump({"images": {"registry": "", "tag": "", **images}}, sort_keys=False)
    )
    return path


@pytest.fixture
def archives(tmp_path) -> list[Path]:
    return [
        oci_archive(tmp_path / f"{name}.tar", {f"registry.example.org/ai/{name}:7": {"amd64": [content], "arm64": [layer(b=name)]}})
        for name, content in KEYS.items()
    ]  # fmt: skip


def sums(directory: Path) -> dict[str, str]:
    return {line[66:]: line[:64] for line in (directory / "SHA256SUMS").read_text().splitlines()}


def test_everything_is_there_and_what_it_says(tmp_path, chart, archives, capsys):
    out, helm = tmp_path / "out", tmp_path / "helm"
    helm.write_text("#!/bin/sh\n")
    words = ["--platform", "linux/amd64,linux/arm64", "--models", "demo://tiny", "--add", helm]
    assert bundle(out, "--chart", chart, "--images", *archives, *words) == 0, capsys.readouterr().err
    names = {f"docker.io/library/{name}:7": [content] for name, content in KEYS.items()}
    assert read_oci(out / "images" / "linux-amd64.tar") == names
    assert read_oci(out / "images" / "linux-arm64.tar") == {n: [layer(b=n[18:-2])] for n in names}
    assert yaml.safe_load((out / "values.yaml").read_text()) == {"images": {"tag": "7"}, "mirror": {"enabled": True}}
    manifest = json.loads((out / "manifest.json").read_text())
    assert {(image["repository"], image["platform"]) for image in manifest["images"]} == {
        (name, f"linux/{each}") for name in KEYS for each in ("amd64", "arm64")
    }
    assert [model["uri"] for model in manifest["models"]] == ["demo://tiny"]
    # every file, and nothing that the fetcher leaves behind
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name != "SHA256SUMS"
    } == sums(out)
    assert {name.partition("/")[0] for name in files} == {
        *("README.md", "SHA256SUMS", "chart", "extra", "images", "install.sh", "manifest.json", "models", "values.yaml")
    }  # fmt: skip
    assert sorted(path.name for path in (out / "models").iterdir()) == ["blobs", "uris"]
    assert "%llmos serve demo://tiny" in (out / "README.md").read_text()
    assert "is ready" in capsys.readouterr().out
    check = subprocess.run(["sh", out / "install.sh", "check"], capture_output=True, text=True, timeout=60, check=False)
    assert check.returncode == 0, check.stderr


def test_written_again_it_is_the_same_and_what_is_no_longer_wanted_goes(tmp_path, chart, archives):
    out = tmp_path / "out"
    words = ["--chart", chart, "--platform", "linux/amd64", "--images", *archives]
    assert bundle(out, *words, "--models", "demo://tiny") == 0
    before = sums(out)
    assert bundle(out, *words, "--models", "demo://tiny") == 0
    assert sums(out) == before
    assert bundle(out, *words) == 0
    assert not (out / "models").exists()
    assert "mirror" not in yaml.safe_load((out / "values.yaml").read_text())


def test_a_sites_values_name_the_images(tmp_path, chart, archives):
    values = tmp_path / "site.yaml"
    values.write_text(yaml.safe_dump({"images": {"registry": "registry.example.org/ai"}, "ingress": {"enabled": True}}))
    out = tmp_path / "out"
    words = ["--chart", chart, "--platform", "linux/amd64", "--images", *archives, "--values", values]
    assert bundle(out, *words, "--without", "notebook") == 0
    assert set(read_oci(out / "images" / "linux-amd64.tar")) == {
        f"registry.example.org/ai/{name}:7" for name in KEYS if name != "llmos-notebook"
    }
    written = yaml.safe_load((out / "values.yaml").read_text())
    assert written == {"images": {"registry": "registry.example.org/ai", "tag": "7"}, "ingress": {"enabled": True}}


def test_models_alone(tmp_path, chart):
    out = tmp_path / "out"
    assert bundle(out, "--chart", chart, "--models-only", "--models", "demo://tiny") == 0
    assert not (out / "images").exists()
    assert bundle(out, "--chart", chart, "--models-only") == 2


ENGINE = """#!/bin/sh
echo "$0 $@" >>"$CALLS"
for word; do case $word in *.tar) cp "$ANSWER" "$word" ;; esac; done
"""


@pytest.mark.parametrize("engine", ["docker", "podman", "ctr", "k3s"])
def test_images_out_of_an_engine(tmp_path, chart, archives, monkeypatch, engine):
    program = tmp_path / "bin" / engine
    program.parent.mkdir()
    program.write_text(ENGINE)
    program.chmod(0o755)
    prefix = {"docker": "", "podman": "localhost/"}.get(engine, "docker.io/library/")
    held = {f"{prefix}{name}:0.1.0": [content] for name, content in KEYS.items() if name != "llmos-hub"}
    answer = docker_archive(tmp_path / "answer", held)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("ANSWER", str(answer))
    # one of them comes out of an archive: the engine isn't asked for it
    hub = oci_archive(tmp_path / "hub.tar", {"docker.io/library/llmos-hub:0.1.0": {"amd64": [KEYS["llmos-hub"]]}})
    words = ["--chart", chart, "--platform", "linux/amd64", "--from", engine, "--images", hub]
    assert bundle(tmp_path / "out", *words) == 0
    assert set(read_oci(tmp_path / "out" / "images" / "linux-amd64.tar")) == {
        f"docker.io/library/{name}:0.1.0" for name in KEYS
    }
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "llmos-engine-cpu:0.1.0" in call
    assert "llmos-hub" not in call
    assert ("save" in call) == (engine in ("docker", "podman"))
    assert not list((tmp_path / "out").glob(".images-*"))


def test_what_is_missing_is_named(tmp_path, chart, archives, capsys):
    out = tmp_path / "out"
    common = [out, "--chart", chart, "--images", archives[0]]
    cases = {
        ("--platform", "linux/amd64"): "No llmos-notebook:0.1.0, llmos-engine-cpu:0.1.0 for linux/amd64 among the given",
        ("--without", "nootbook"): 'the chart has no image "nootbook", only hub, notebook, engineCpu',
        ("--values", tmp_path / "none.yaml"): "none.yaml can't be read",
        ("--models", "demo://tinny", "--without", "notebook", "engineCpu", "--platform", "linux/amd64"): 'There is no "demo://tinny"',
    }  # fmt: skip
    for words, expected in cases.items():
        assert bundle(*common, *words) == 1
        assert expected in capsys.readouterr().err
        assert not (out / "SHA256SUMS").exists()  # nobody takes it for whole


def test_several_versions_are_asked_about(tmp_path, chart, archives, capsys):
    more = oci_archive(tmp_path / "more.tar", {"llmos-hub:8": {"amd64": [layer(a="8")]}})
    words = ["--chart", chart, "--platform", "linux/amd64", "--images", *archives, more]
    assert bundle(tmp_path / "out", *words) == 1
    assert "There are several llmos-hub for linux/amd64: 7, 8. Say which" in capsys.readouterr().err


async def test_the_models_of_a_bundle_are_a_mirror(tmp_path, chart):
    out = tmp_path / "out"
    assert bundle(out, "--chart", chart, "--models-only", "--models", "demo://tiny") == 0
    async with serving(make_app(out / "models")) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/health")).text == "ok\n"
        (blob,) = (out / "models" / "blobs").iterdir()
        part = await client.get(f"/blobs/{blob.name}", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, blob.read_bytes()[10:20])
        for path in ("/", "/blobs/", "/../README.md", "/uris/%2e%2e/%2e%2e/README.md"):
            assert (await client.get(path)).status_code in (404, 405), path
        model = await asyncio.to_thread(Mirror(url).fetch, "demo://tiny", tmp_path / "cache", lambda _: None)
    assert model is not None
    assert Path(model.path).read_bytes() == blob.read_bytes()
