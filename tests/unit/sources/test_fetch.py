"""``llmos-hub fetch``: the process and its JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos_hub.sources import fetch
from llmos_hub.sources.base import ModelFiles
from llmos_hub.sources.cache import explain_os_error
from tests.support.gguf_builder import build_gguf
from tests.support.hub_endpoint import HubEndpoint, HubRepository, hub_endpoint
from tests.support.waiting import wait_until

MODEL = build_gguf(tensors=[("token_embd.weight", (256, 8192), 12)])
COMMAND = [sys.executable, "-I", "-m", "llmos_hub.sources.fetch"]


@pytest.fixture
def hub() -> Iterator[HubEndpoint]:
    with hub_endpoint() as hub:
        hub.repositories["ada/tiny-GGUF"] = HubRepository({"tiny-Q4_K_M.gguf": MODEL})
        yield hub


def start(uri: str, directory: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, uri, str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    with process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in output.splitlines()]


def lines_until(process: subprocess.Popen[str], kind: str) -> list[dict[str, Any]]:
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    while not lines or lines[-1]["type"] != kind:
        lines.append(json.loads(process.stdout.readline()))
    return lines


@pytest.mark.parametrize("address", ["models.example.org", "http://", "ftp://ada:secret@models.example.org"])
def test_an_address_of_a_hub_that_is_none_is_refused_without_quoting_it(tmp_path: Path, address: str):
    code, lines = finish(start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=address))
    assert (code, lines[-1]["code"]) == (1, "source_failed")
    assert "HF_ENDPOINT is not an address" in lines[-1]["message"]
    assert "secret" not in json.dumps(lines)


def test_a_proxy_that_is_none_is_named_without_quoting_it(tmp_path: Path):
    code, lines = finish(start("hf://ada/tiny-GGUF", tmp_path, HTTPS_PROXY="http://ada:secret@proxy:port"))
    assert (code, lines[-1]["code"]) == (1, "source_failed")
    assert "HTTPS_PROXY is not the address of a proxy" in lines[-1]["message"]
    assert "secret" not in json.dumps(lines)


def test_the_last_line_is_the_model(tmp_path: Path):
    code, lines = finish(start("demo://tiny", tmp_path))
    assert code == 0
    model = ModelFiles.load(lines[-1]["model"])
    assert lines[-1]["type"] == "done"
    assert Path(model.path).is_file()
    assert model.header.parameters == 2_361_408


def test_a_failure_is_one_line_with_its_code(tmp_path: Path):
    code, lines = finish(start("file:///nowhere/m.gguf", tmp_path))
    assert code == 1
    assert [(line["type"], line["code"]) for line in lines] == [("error", "source_failed")]
    assert "There is no file" in lines[0]["message"]


def test_wrong_usage_says_how_it_is_used(capsys: pytest.CaptureFixture[str]):
    assert fetch.main(["demo://tiny"]) == 2
    assert "usage: llmos-hub fetch URI DIR" in json.loads(capsys.readouterr().out)["message"]


def test_a_directory_that_cannot_be_one_is_an_error_in_words(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    code, lines = finish(start("demo://tiny", tmp_path / "file"))
    assert code == 1
    assert lines[-1]["code"] == "source_failed"
    assert str(tmp_path / "file") in lines[-1]["message"]


def test_a_mistake_of_ours_is_reported_as_such(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken(uri: str) -> None:
        raise ZeroDivisionError(uri)

    monkeypatch.setattr(fetch, "source_of", broken)
    assert fetch.main(["demo://tiny", "/nowhere"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["code"] == "internal"
    assert "Traceback" in captured.err


def test_it_starts_fast_without_importing_what_it_does_not_need(tmp_path: Path):
    heavy = (
        "import sys; from llmos_hub.sources import fetch; fetch.main(sys.argv[1:]); "
        "print({'httpx', 'pydantic', 'huggingface_hub', 'numpy', 'asyncio'} & set(sys.modules) or 'light')"
    )
    command = [sys.executable, "-I", "-c", heavy, "demo://tiny", str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    assert output.splitlines()[-1] == "light"


def test_progress_has_bytes_total_and_rate(hub: HubEndpoint, tmp_path: Path):
    code, lines = finish(start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url))
    assert code == 0
    progress = [line for line in lines if line["type"] == "progress"]
    assert progress
    assert set(progress[-1]) == {"type", "file", "done", "total", "rate"}
    assert progress[-1]["file"] == "tiny-Q4_K_M.gguf"
    assert progress[-1]["done"] == progress[-1]["total"] == len(MODEL)


def test_sigterm_ends_it_at_once_and_the_next_goes_on(hub: HubEndpoint, tmp_path: Path):
    hub.break_after = 500_000
    hub.gate.clear()
    process = start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url)
    lines_until(process, "progress")
    wait_until(lambda: any(p.stat().st_size for p in (tmp_path / "partial").iterdir()))
    process.send_signal(signal.SIGTERM)
    code, _ = finish(process)
    assert code == -signal.SIGTERM
    assert not hub.gate.is_set(), "it does not wait for what is still to come"
    hub.gate.set()
    code, lines = finish(start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url))
    assert code == 0
    assert Path(lines[-1]["model"]["path"]).read_bytes() == MODEL
    begun = int((hub.ranges[-1] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    assert 0 < begun <= 500_000


def test_two_at_once_fetch_once_and_the_second_shows_the_firsts_progress(hub: HubEndpoint, tmp_path: Path):
    hub.break_after = 500_000
    hub.gate.clear()
    first = start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url)
    lines_until(first, "progress")
    second = start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url)
    waiting = lines_until(second, "info")
    assert "waiting" in waiting[-1]["message"]
    shown = lines_until(second, "progress")[-1]
    assert (shown["file"], shown["total"]) == ("tiny-Q4_K_M.gguf", len(MODEL))
    hub.gate.set()
    assert [finish(p)[1][-1]["type"] for p in (first, second)] == ["done", "done"]
    assert hub.sent == len(MODEL)


def test_the_waiting_one_takes_over_when_the_first_is_killed(hub: HubEndpoint, tmp_path: Path):
    hub.break_after = 500_000
    hub.gate.clear()
    first = start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url)
    lines_until(first, "progress")
    second = start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url)
    lines_until(second, "info")
    first.kill()
    finish(first)
    hub.gate.set()
    code, lines = finish(second)
    assert code == 0
    assert Path(lines[-1]["model"]["path"]).read_bytes() == MODEL


def test_without_a_network_it_fails_and_says_so(tmp_path: Path):
    code, lines = finish(start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))
    assert code == 1
    assert "Is this machine online?" in lines[-1]["message"]
    assert [line["type"] for line in lines] == ["error"], "it is not tried again and again"


def test_offline_mode_is_named(tmp_path: Path):
    _, lines = finish(start("hf://ada/tiny-GGUF", tmp_path, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE" in lines[-1]["message"]


def test_a_token_never_comes_out(hub: HubEndpoint, tmp_path: Path):
    hub.repositories["ada/tiny-GGUF"].gated = True
    process = start("hf://ada/tiny-GGUF", tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret")
    with process:
        output, errors = process.communicate(timeout=60)
    assert "gated" in output
    assert "hf_secret" not in output + errors


@pytest.mark.parametrize(
    ("number", "words"),
    [(28, "is full"), (122, "is full"), (13, "No permission"), (30, "read-only"), (5, "Is the disk in order?")],
)
def test_errors_of_the_disk_are_said_in_words(tmp_path: Path, number: int, words: str):
    assert words in explain_os_error(OSError(number, os.strerror(number), str(tmp_path / "x")), tmp_path).message


def test_a_mistake_is_told_without_the_words_of_a_library(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def fail(*_: object) -> None:
        message = "Illegal header value b'Bearer hf_secret'"
        raise RuntimeError(message)

    monkeypatch.setattr(fetch, "fetch_model", fail)
    assert fetch.main(["demo://tiny", "/nowhere"]) == 1
    out, err = capfd.readouterr()
    assert '"code": "internal"' in out
    assert "RuntimeError" in out
    assert "in fail" in err
    assert "secret" not in out + err
