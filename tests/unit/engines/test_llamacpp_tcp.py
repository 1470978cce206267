"""In a pod llama.cpp listens on a port."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

import httpx

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.llamacpp import LlamaCpp
from tests.support.llamacpp import MACHINE, demo_model
from tests.support.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_answers_on_a_port_and_ends_when_told(tmp_path: Path) -> None:
    model, port = demo_model("tiny", tmp_path), free_port()
    template = LlamaCpp().plan(ModelServiceSpec(model=model.uri), model, MACHINE).template
    argv = [argument.replace("{socket}", f"127.0.0.1:{port}") for argument in template.argv]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=dict(template.env), cwd=tmp_path)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:

            def answers() -> bool:
                assert process.poll() is None, (tmp_path / "log").read_text()
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/health").status_code == 200
                return False

            wait_until(answers)
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
            assert client.post("/v1/chat/completions", json=body).status_code == 200, (tmp_path / "log").read_text()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)
