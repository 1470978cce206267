"""Volumes on a running platform: commands, a model in one, a notebook server that finds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.names import user_namespace
from llmos_hub.names import DataDir
from llmos_hub.sources import demo

TINY = Path(demo.__file__).parent / "data" / "demo-q8_0.gguf"
COMMAND = "import sys; from llmos.cli.entry import main; sys.exit(main())"


@pytest.fixture(scope="module")
def ada(platform):
    """Return a user's name and token."""
    platform.add_user("olive", "volumes-are-for-data-7")
    return "olive", platform.token("olive")


@pytest.fixture
def llmos(platform, ada):
    """Return a function that runs a user's command."""

    def run(*words, code=0):
        environment = {**os.environ, "LLMOS_URL": platform.api_url, "LLMOS_TOKEN": ada[1]}
        command = [sys.executable, "-c", COMMAND, *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_a_model_is_copied_into_a_volume_served_from_there_and_the_server_finds_it(platform, ada, llmos, tmp_path):
    name, token = ada
    assert "Ready" in llmos("volume", "create", "data", "1Gi")
    assert "copied" in llmos("volume", "cp", TINY, "data:models/tiny.gguf")
    assert "tiny.gguf" in llmos("volume", "ls", "data:models")
    assert "Ready" in llmos("serve", "volume://data/models/tiny.gguf", "--name", "chat")
    platform.start_server(name, token)
    home = DataDir(platform.root).homes / name
    assert (home / "volumes" / "data" / "models" / "tiny.gguf").read_bytes() == TINY.read_bytes()
    llmos("volume", "create", "later", "1Gi")  # also one that is made while the server runs
    (home / "volumes" / "later" / "note").write_text("from the server")
    llmos("volume", "cp", "later:note", tmp_path / "note")
    assert (tmp_path / "note").read_text() == "from the server"
    assert "in use by modelservice/chat" in llmos("delete", "volume", "data", "--yes", code=1)
    llmos("delete", "ms", "chat", "--yes")
    assert "llmos volume undelete data" in llmos("delete", "volume", "data", "--yes")
    assert not (home / "volumes" / "data").exists()
    assert "Ready" in llmos("volume", "undelete", "data")
    assert (home / "volumes" / "data" / "models" / "tiny.gguf").exists()
    platform.stop_server(name, token)


def test_what_was_uploaded_outlives_the_api_and_the_controllers(platform, llmos, tmp_path):
    llmos("volume", "create", "kept", "1Gi")
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    llmos("volume", "cp", tmp_path / "file", "kept:file")
    for part in ("api", "controllers"):
        old = platform.kill(part)
        platform.wait_replaced(part, old)
    llmos("volume", "cp", "kept:file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    (directory,) = DataDir(platform.root).volumes.joinpath(user_namespace("olive")).glob("kept.*")
    assert directory.stat().st_mode & 0o777 == 0o700
