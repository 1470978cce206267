"""Images from archives of every kind, written to one that every runtime can read."""

import gzip
import hashlib
import json
import tarfile
from dataclasses import replace

import pytest

from llmos.errors import BadRequest
from llmos_hub.bundle.archives import read_archive, write_archive
from tests.support.image_archives import docker_archive, layer, oci_archive, read_oci

BASE, HUB, NOTEBOOK = layer(base="Debian"), layer(hub="hub"), layer(notebook="notebook")
NAMES = ("docker.io/library/llmos-hub:1", "docker.io/library/llmos-notebook:1")


def both(tmp_path):
    images = {NAMES[0]: {"amd64": [BASE, HUB]}, NAMES[1]: {"amd64": [BASE, NOTEBOOK]}}
    return oci_archive(tmp_path / "both.tar", images)


def test_what_is_read_is_what_is_written(tmp_path):
    images = read_archive(both(tmp_path))
    assert [(image.name, image.platform) for image in images] == [(name, "linux/amd64") for name in NAMES]
    write_archive(images, tmp_path / "out.tar")
    assert read_oci(tmp_path / "out.tar") == {NAMES[0]: [BASE, HUB], NAMES[1]: [BASE, NOTEBOOK]}


def test_the_result_can_be_read_as_docker_reads_it(tmp_path):
    write_archive(read_archive(both(tmp_path)), tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        entries = json.load(tar.extractfile("manifest.json"))
        assert [entry["RepoTags"] for entry in entries] == [["llmos-hub:1"], ["llmos-notebook:1"]]
        assert [tar.extractfile(name).read() for name in entries[0]["Layers"]] == [BASE, HUB]
        assert json.load(tar.extractfile(entries[0]["Config"]))["architecture"] == "amd64"
        names = tar.getnames()
    assert len(names) == len(set(names))  # the layer that both have is there once


def test_the_same_images_make_the_same_archive(tmp_path):
    images = read_archive(both(tmp_path))
    for name in ("one.tar", "two.tar"):
        write_archive(images, tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_an_index_of_platforms(tmp_path):
    platforms = {"amd64": [BASE, HUB], "arm64": [layer(base="Debian for arm")]}
    images = read_archive(oci_archive(tmp_path / "a.tar", {NAMES[0]: platforms}, indexed=True))
    assert {image.platform for image in images} == {"linux/amd64", "linux/arm64"}
    arm = [image for image in images if image.platform == "linux/arm64"]
    write_archive(arm, tmp_path / "out.tar")
    assert read_oci(tmp_path / "out.tar") == {NAMES[0]: platforms["arm64"]}


def test_what_older_dockers_wrote(tmp_path):
    packed = gzip.compress(NOTEBOOK, mtime=0)
    path = docker_archive(tmp_path / "d.tar", {"llmos-hub:1": [BASE, HUB], "llmos-notebook:1": [BASE, packed]}, "arm64")
    images = read_archive(path)
    assert {(image.repository, image.tag, image.platform) for image in images} == {
        ("llmos-hub", "1", "linux/arm64"),
        ("llmos-notebook", "1", "linux/arm64"),
    }
    assert [each.media_type.rpartition(".")[2] for each in images[1].layers] == ["tar", "tar+gzip"]
    write_archive([replace(image, name=f"docker.io/library/{image.name}") for image in images], tmp_path / "out.tar")
    assert read_oci(tmp_path / "out.tar") == {NAMES[0]: [BASE, HUB], NAMES[1]: [BASE, packed]}


@pytest.mark.parametrize(
    ("name", "repository", "tag"),
    [
        ("localhost:5000/ai/llmos-hub:1", "localhost:5000/ai/llmos-hub", "1"),
        ("localhost:5000/llmos-hub", "localhost:5000/llmos-hub", "latest"),
    ],
)
def test_a_port_is_no_tag(tmp_path, name, repository, tag):
    (image,) = read_archive(oci_archive(tmp_path / "a.tar", {name: {"amd64": [BASE]}}))
    assert (image.repository, image.tag) == (repository, tag)


def test_a_damaged_archive_is_not_passed_on(tmp_path):
    path = both(tmp_path)
    data = path.read_bytes()
    assert HUB in data
    path.write_bytes(data.replace(HUB, HUB.replace(b"hub", b"bad")))
    with pytest.raises(BadRequest, match=f"both.tar is damaged: blobs/sha256/{hashlib.sha256(HUB).hexdigest()}"):
        write_archive(read_archive(path), tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file"),
        (b"no tar", "can't be read as an image archive"),
        ({"index.json": "{}"}, "is not an image archive"),
        ({"readme": "hello"}, "is not an image archive"),
        ({"manifest.json": "[]"}, "holds no image with a name"),
        ({"index.json": json.dumps({"manifests": [{"annotations": {"io.containerd.image.name": "a:1"}, "digest": "sha256:../../etc"}]})}, "no sha256 digest"),
    ],
)  # fmt: skip
def test_what_is_no_archive_is_refused(tmp_path, content, words):
    path = tmp_path / "x.tar"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else layer(**content))
    with pytest.raises(BadRequest, match=words):
        read_archive(path)
