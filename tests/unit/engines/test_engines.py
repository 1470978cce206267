"""The registry, engine ``custom``, and properties of every engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from llmos.errors import Insufficient, Invalid, Unsupported
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.workload import Resources
from llmos_hub.engines.base import Machine
from llmos_hub.engines.registry import ENGINES, choose
from llmos_hub.sources.base import Header, ModelFiles

MACHINE = Machine(cpus=4, memory=8 * 2**30)
HEADER = Header(
    architecture="llama", context_length=4096, embedding_length=64, block_count=2, head_count=4, vocabulary=100, chat_template=True
)  # fmt: skip
MODEL = ModelFiles("file:///m.gguf", "r", "/m.gguf", "gguf", 10_000_000, HEADER)
COMMAND = ["my-server", "--port", "{port}", "--model", "{model}"]


def spec(engine: str, **more: object) -> ModelServiceSpec:
    args = COMMAND if engine == "custom" else []
    return ModelServiceSpec(**{"model": "file:///m.gguf", "engine": engine, "args": args, **more})


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_engine_plans_a_process_that_can_be_reached_and_probed(name: str):
    engine = ENGINES[name]
    plan = engine.plan(spec(name, env={"LEVEL": "3"}), MODEL, MACHINE)
    assert engine.name == name
    assert any(way in argument for argument in plan.template.argv for way in ("{socket}", "{port}"))
    assert plan.template.readiness is not None
    assert plan.template.env["LEVEL"] == "3"
    assert plan.task == "generate"
    assert plan.summary
    assert plan == engine.plan(spec(name, env={"LEVEL": "3"}), MODEL, MACHINE)
    json.dumps(list(plan.template.argv))


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_engine_refuses_gpus_that_are_not_there(name: str):
    with pytest.raises(Insufficient, match=r"spec\.resources\.gpus"):
        ENGINES[name].plan(spec(name, resources=Resources(gpus=2)), MODEL, MACHINE)


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_engine_honours_memory_and_cpus(name: str):
    template = ENGINES[name].plan(spec(name, resources=Resources(memory="1Gi", cpu="1500m")), MODEL, MACHINE).template
    assert (template.memory_limit, template.cpus) == (2**30, 1.5)


def test_auto_takes_llama_cpp_for_gguf_and_says_why():
    engine, reason = choose(spec("auto"), MODEL, MACHINE)
    assert engine.name == "llamacpp"
    assert "GGUF" in reason


def test_the_named_engine_is_taken():
    assert choose(spec("custom"), MODEL, MACHINE)[0].name == "custom"


def test_files_that_no_engine_reads_are_refused_with_each_ones_reason():
    other = ModelFiles("file:///m", "r", "/m", "safetensors", 1)
    with pytest.raises(Unsupported, match=r"llama\.cpp: it reads GGUF, the files are safetensors"):
        choose(spec("auto"), other, MACHINE)
    with pytest.raises(Unsupported, match=r"llama\.cpp can't serve"):
        choose(spec("llamacpp"), other, MACHINE)


def test_custom_fills_in_the_model_and_leaves_the_address_to_the_backend():
    plan = ENGINES["custom"].plan(spec("custom", env={"M": "{model}"}), MODEL, MACHINE)
    assert plan.template.argv == ("my-server", "--port", "{port}", "--model", "/m.gguf")
    assert plan.template.env == {"M": "/m.gguf"}
    assert plan.template.readiness is not None
    assert plan.template.readiness.path == "/v1/models"


def test_custom_works_without_a_model():
    plan = ENGINES["custom"].plan(spec("custom", model=None, args=["proxy", "{socket}"], task="embed"), None, MACHINE)
    assert (plan.task, plan.task_reason) == ("embed", "spec.task says so")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["my-server"], "doesn't say where to listen"),
        (["my-server", "{port}", "{socket}"], "Keep one"),
        (["my-server", "{port}", "{model}"], r"spec\.model is empty"),
    ],
)
def test_custom_refuses_a_command_that_cannot_work(args: list[str], words: str):
    with pytest.raises(Invalid, match=words) as caught:
        ENGINES["custom"].plan(spec("custom", model=None, args=args), None, MACHINE)
    assert caught.value.causes


def test_custom_refuses_more_memory_than_there_is():
    with pytest.raises(Insufficient, match=r"this machine has 8\.0 GiB"):
        ENGINES["custom"].plan(spec("custom", resources=Resources(memory="64Gi")), MODEL, MACHINE)


def test_the_engines_process_does_not_import_the_registry():
    code = "import sys, llmos_hub.engines.llamacpp_server as m; print({'pydantic', 'httpx', 'asyncio'} & set(sys.modules) or 'light')"
    output = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=30)
    assert output.stdout.strip() == "light"
