"""Image archives for the test cluster: equal inputs give equal bytes, and deletions are recorded."""

import json
import os
import tarfile

import pytest

from tests.kubernetes.images.oci import Config, Layer, write_archive, write_layer

EPOCH = 1_767_225_600
CONFIG = Config("amd64", {"PATH": "/bin"}, ("tini",), ("sh",), "1000:1000", "/home", EPOCH)


def tree(root):
    (root / "opt/llmos/bin").mkdir(parents=True)
    (root / "opt/llmos/bin/tool").write_text("#!/bin/sh\n")
    (root / "opt/llmos/bin/tool").chmod(0o755)
    (root / "opt/llmos/bin/link").symlink_to("tool")
    (root / "usr/share/doc/x").mkdir(parents=True)
    (root / "usr/share/doc/x/copyright").write_text("long")
    (root / "tmp").mkdir()
    (root / "tmp/left").write_text("x")
    os.link(root / "opt/llmos/bin/tool", root / "opt/llmos/bin/same")
    return root


def test_two_builds_of_the_same_are_the_same_bytes(tmp_path):
    digests = set()
    for name in ("one", "two"):
        root = tree(tmp_path / name)
        os.utime(root / "opt/llmos/bin/tool", (EPOCH + 5, EPOCH + 5 + len(digests)))
        digests.add(write_layer(root, tmp_path / f"{name}.tar", EPOCH)["digest"])
    assert len(digests) == 1


def test_a_layer_holds_what_was_made_and_nothing_that_nobody_needs(tmp_path):
    written = write_layer(tree(tmp_path / "root"), tmp_path / "layer.tar", EPOCH)
    with tarfile.open(tmp_path / "layer.tar") as tar:
        members = {member.name: member for member in tar}
    assert members["opt/llmos/bin/tool"].mode == 0o755 or members["opt/llmos/bin/same"].mode == 0o755
    assert members["opt/llmos/bin/link"].linkname == "tool"
    assert "tmp" in members
    assert "tmp/left" not in members
    assert "usr/share/doc/x" not in members
    assert max(member.mtime for member in members.values()) <= EPOCH
    assert written["size"] == (tmp_path / "layer.tar").stat().st_size


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who makes the kernel's whiteouts")
def test_what_a_step_deleted_is_a_whiteout(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    try:
        os.mknod(root / "etc/gone", 0o020000, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("needs the right to make devices (CAP_MKNOD)")
    write_layer(root, tmp_path / "layer.tar", EPOCH)
    with tarfile.open(tmp_path / "layer.tar") as tar:
        assert "etc/.wh.gone" in tar.getnames()


def test_an_archive_names_its_image_and_leaves_out_what_is_there(tmp_path):
    written = write_layer(tree(tmp_path / "root"), tmp_path / "layer.tar", EPOCH)
    layer = Layer(tmp_path / "layer.tar", written["digest"], written["size"])
    write_archive("registry.local/x:1", tmp_path / "whole.tar", [layer], CONFIG)
    write_archive("registry.local/x:1", tmp_path / "thin.tar", [layer], CONFIG, leave_out={layer.digest})
    blob = f"blobs/sha256/{layer.digest.removeprefix('sha256:')}"
    with tarfile.open(tmp_path / "whole.tar") as tar:
        index = json.loads(tar.extractfile("index.json").read())
        assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "registry.local/x:1"
        assert blob in tar.getnames()
    with tarfile.open(tmp_path / "thin.tar") as tar:
        assert blob not in tar.getnames()
        assert json.loads(tar.extractfile("index.json").read()) == index
