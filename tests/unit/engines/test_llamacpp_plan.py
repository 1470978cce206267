"""Plans for serving models with llama.cpp, and refusals before the start."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llmos.errors import Insufficient, Invalid, Unsupported
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.workload import Resources
from llmos_hub.engines import llamacpp
from llmos_hub.engines.base import Machine, Plan
from llmos_hub.engines.llamacpp import LlamaCpp, task_of
from llmos_hub.engines.llamacpp_build import Build
from llmos_hub.engines.registry import ENGINES
from llmos_hub.sources.base import Header, ModelFiles

GIB = 2**30
MACHINE = Machine(cpus=8, memory=16 * GIB)
CHAT = Header(
    architecture="qwen3",
    name="Qwen3 4B",
    quantization="Q4_K_M",
    parameters=4_020_000_000,
    context_length=40_960,
    embedding_length=2560,
    block_count=36,
    head_count=32,
    head_count_kv=8,
    key_length=128,
    value_length=128,
    vocabulary=151_936,
    chat_template=True,
)
ENCODER = Header(
    architecture="bert",
    context_length=512,
    embedding_length=384,
    block_count=6,
    head_count=12,
    vocabulary=30_522,
    pooling="mean",
    causal=False,
)


def files(header: Header = CHAT, size: int = 2_500_000_000) -> ModelFiles:
    return ModelFiles("hf://a/b", "c", "/models/qwen.gguf", "gguf", size, header)


def plan(header: Header = CHAT, size: int = 2_500_000_000, machine: Machine = MACHINE, **spec: object) -> Plan:
    return LlamaCpp().plan(ModelServiceSpec(model="hf://a/b", **spec), files(header, size), machine)


def flag(plan: Plan, name: str) -> str:
    argv = plan.template.argv
    return argv[argv.index(name) + 1]


def test_the_process_listens_on_the_socket_it_is_given_and_checks_health():
    template = plan().template
    assert flag(plan(), "--socket") == "{socket}"
    assert flag(plan(), "--model") == "/models/qwen.gguf"
    assert template.readiness is not None
    assert template.readiness.path == "/health"
    assert template.liveness is not None
    assert template.liveness.period * template.liveness.failures >= 60


def test_context_and_requests_at_once_stay_in_proportion_to_the_model():
    planned = plan()
    slots, context = int(flag(planned, "--parallel")), int(flag(planned, "--ctx-size"))
    assert (slots, context) == (2, 8192)
    assert planned.memory_estimate < 5 * GIB
    assert any("trained for 40,960" in note for note in planned.notes)


def test_no_more_context_than_the_model_was_trained_for():
    planned = plan(replace(CHAT, context_length=2048))
    assert int(flag(planned, "--ctx-size")) == 2048 * int(flag(planned, "--parallel"))


def test_less_memory_gives_less_context():
    planned = plan(resources=Resources(memory="3200Mi"))
    assert int(flag(planned, "--ctx-size")) < 8192
    assert planned.memory_estimate <= 3200 * 2**20
    assert planned.template.memory_limit == 3200 * 2**20


def test_the_users_arguments_come_last_and_count_in_the_estimate():
    planned = plan(args=["--ctx-size", "32768", "--parallel=1", "-ctk", "q8_0"])
    assert planned.template.argv[-5:] == ("--", "--ctx-size", "32768", "--parallel=1", "-ctk", "q8_0")[1:]
    assert planned.memory_estimate > plan().memory_estimate
    assert planned.memory_estimate < plan(args=["--ctx-size", "32768", "--parallel=1"]).memory_estimate


def test_the_memory_limit_is_twice_the_estimate_and_some_more():
    planned = plan(ENCODER, 46_000_000)
    assert planned.template.memory_limit == 2 * planned.memory_estimate + 256 * 2**20
    assert planned.template.memory_request == planned.memory_estimate


@pytest.mark.parametrize(("cpu", "threads"), [(None, "7"), ("2", "2"), ("500m", "1"), ("1500m", "2"), ("1000", "8")])
def test_threads_follow_the_cpus(cpu: str | None, threads: str):
    planned = plan(resources=Resources(cpu=cpu))
    assert flag(planned, "--threads") == threads


def test_an_encoder_embeds_with_a_whole_text_at_once():
    planned = plan(ENCODER, 46_000_000)
    assert planned.task == "embed"
    assert "mean pooling" in planned.task_reason
    argv = planned.template.argv
    assert "--embedding" in argv
    assert "--pooling" not in argv  # the header's own
    assert not any("context" in note for note in planned.notes), "it keeps none"
    assert (
        int(flag(planned, "--ubatch-size"))
        == int(flag(planned, "--ctx-size")) // int(flag(planned, "--parallel"))
        == 512
    )


@pytest.mark.parametrize(
    ("header", "task"),
    [
        (CHAT, "generate"),
        (ENCODER, "embed"),
        (replace(ENCODER, pooling=None), "embed"),
        (replace(CHAT, pooling="last"), "embed"),
        (replace(ENCODER, pooling="cls", classifier=True), "rerank"),
        (replace(CHAT, pooling="rank"), "rerank"),
        (Header(architecture="t5", causal=False), "generate"),
    ],
)
def test_the_task_is_read_from_the_header(header: Header, task: str):
    assert task_of(header)[0] == task


def test_a_chat_model_can_be_made_to_embed_but_is_told_on():
    planned = plan(task="embed")
    assert planned.task == "embed"
    assert flag(planned, "--pooling") == "mean"
    assert "may be poor" in planned.task_reason


@pytest.mark.parametrize(
    ("header", "task"),
    [(ENCODER, "generate"), (ENCODER, "rerank"), (CHAT, "rerank"), (replace(ENCODER, classifier=True), "embed")],
)
def test_a_task_that_the_model_cannot_do_is_refused(header: Header, task: str):
    with pytest.raises(Unsupported, match=f'served for "{task}"') as caught:
        plan(header, task=task)
    assert caught.value.causes[0].field == "spec.task"


def test_too_large_a_model_is_refused_with_numbers_and_what_would_do():
    huge = replace(CHAT, name="Llama 70B", quantization="Q8_0", parameters=70_600_000_000)
    with pytest.raises(Insufficient) as caught:
        plan(huge, size=75_000_000_000, machine=Machine(cpus=8, memory=64 * GIB))
    message = caught.value.message
    assert "needs 70 GiB" in message or "needs 71 GiB" in message
    assert "this machine has 64 GiB" in message
    assert "Smaller: the same model as Q6_K" in message


def test_too_little_memory_in_the_spec_is_refused_with_how_much_it_takes():
    with pytest.raises(Insufficient, match=r"spec\.resources\.memory gives it 2\.0 GiB\. Give it .*Gi") as caught:
        plan(resources=Resources(memory="2Gi"))
    assert caught.value.causes[0].field == "spec.resources.memory"


def test_advice_on_memory_is_one_that_can_be_followed():
    with pytest.raises(Insufficient) as caught:
        plan(ENCODER, 46_000_000, resources=Resources(memory="10Mi"))
    message = caught.value.message
    assert re.search(r"spec\.resources\.memory gives it 10 MiB\. Give it \d+Mi\.$", message)
    assert "fewer parameters" not in message  # it fits, with the memory that it takes


def test_what_is_needed_is_the_sum_of_what_is_named():
    with pytest.raises(Insufficient) as caught:
        plan(ENCODER, 46_000_000, resources=Resources(memory="10Mi"))
    needed, *parts = [float(size) for size in re.findall(r"([\d.]+) MiB", caught.value.message.partition(";")[0])]
    assert len(parts) == 3
    assert sum(parts) == pytest.approx(needed, abs=2)  # each is rounded


@pytest.mark.parametrize("engine", ["llamacpp", "custom"])
def test_more_memory_than_the_machine_has_is_refused(engine: str):
    wanted = ModelServiceSpec(
        model="hf://a/b",
        engine=engine,
        args=["x", "{port}"] if engine == "custom" else [],
        resources={"memory": "100Gi"},
    )
    with pytest.raises(Insufficient, match=r"100Gi asked for, this machine has 16 GiB\. Give it 16Gi at most"):
        ENGINES[engine].plan(wanted, files(), MACHINE)


def test_a_demo_model_is_kept_from_rambling_and_says_so():
    model = replace(files(), uri="demo://smollm2")
    planned = LlamaCpp().plan(ModelServiceSpec(model="demo://smollm2"), model, MACHINE)
    assert (flag(planned, "--predict"), flag(planned, "--repeat-penalty")) == ("512", "1.15")
    assert any("without max_tokens an answer ends after 512 tokens" in note for note in planned.notes)
    told = LlamaCpp().plan(ModelServiceSpec(model="demo://smollm2", args=["--predict", "2000"]), model, MACHINE)
    assert not any("rambles" in note for note in told.notes)
    assert told.template.argv[-2:] == ("--predict", "2000")
    assert "--predict" not in plan().template.argv


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(Insufficient, match=r"1 GPU asked for, none was found"):
        plan(resources=Resources(gpus=1))


def test_a_gpu_that_this_build_cannot_use_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(llamacpp, "find_build", lambda: Build({}, ()))
    machine = Machine(cpus=8, memory=16 * GIB, gpus=("NVIDIA L4",))
    with pytest.raises(Unsupported, match="computes on CPUs only"):
        plan(machine=machine, resources=Resources(gpus=1))
    assert "--n-gpu-layers" in plan(machine=machine).template.argv


def test_a_gpu_that_it_can_use_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(llamacpp, "find_build", lambda: Build({}, ("CUDA0",)))
    planned = plan(machine=Machine(cpus=8, memory=16 * GIB, gpus=("NVIDIA L4",)))
    assert "NVIDIA L4" in planned.summary
    assert "--n-gpu-layers" not in planned.template.argv
    assert planned.template.memory_limit is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ctx-sise", "1"], 'Did you mean "--ctx-size"?'),
        (["--ctx-size", "many"], "not a whole number"),
        (["--ctx-size"], "needs a value"),
        (["--host", "0.0.0.0"], "the platform decides"),
        (["--api-key", "x"], "the gateway checks"),
        (["-m", "/etc/passwd"], "the model is spec.model"),
        (["--cache-type-k", "q3"], "not one of f32, f16"),
        (["4096"], "stands where a flag"),
        (["--alias", "{port}"], "for engine custom"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(args: list[str], words: str):
    with pytest.raises(Invalid) as caught:
        plan(args=args)
    assert words in caught.value.message
    assert caught.value.causes[0].field == "spec.args"


def test_without_llama_cpp_here_arguments_wait_for_the_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(llamacpp, "find_build", Build)
    assert plan(args=["--whatever"]).template.argv[-1] == "--whatever"


def test_a_vision_part_is_not_taken_for_a_model():
    with pytest.raises(Unsupported, match="--mmproj"):
        plan(replace(CHAT, architecture="clip"))


def test_the_summary_is_one_line_for_people():
    assert plan().summary == "llama.cpp on 7 threads: no GPU found, the file is GGUF"
    assert "One of 8 CPUs is left" in " ".join(plan().notes)
    assert "chat template" in " ".join(plan(replace(CHAT, chat_template=False)).notes)


def test_the_name_that_clients_ask_for_is_the_engines_too():
    assert flag(plan(served_model_name="chat"), "--alias") == "chat"
    assert flag(plan(), "--alias") == Path("/models/qwen.gguf").stem
