"""llama.cpp's command line, with the parameters of the installed version."""

from __future__ import annotations

from typing import Any

import pytest

from llmos_hub.engines.llamacpp_arguments import ALIASES, RESERVED, BadArgument, Parameter, parse
from tests.support.llamacpp import installed_parameters

SCHEMA = installed_parameters()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--ctx-size 4096", {"n_ctx": 4096}),
        ("-c 4096", {"n_ctx": 4096}),
        ("--ctx-size=4096", {"n_ctx": 4096}),
        ("--n-ctx 4096", {"n_ctx": 4096}),
        ("--n_ctx=4096", {"n_ctx": 4096}),
        ("-c 1 -c 2", {"n_ctx": 2}),
        ("--threads 4 -tb 2", {"cpuparams.n_threads": 4, "cpuparams_batch.n_threads": 2}),
        ("--no-warmup", {"warmup": False}),
        ("--warmup off", {"warmup": False}),
        ("--metrics --slots", {"endpoint_metrics": True, "endpoint_slots": True}),
        ("--no-slots", {"endpoint_slots": False}),
        ("--no-kv-offload", {"no_kv_offload": True}),
        ("--kv-offload", {"no_kv_offload": False}),
        ("--no-mmap", {"load_mode": "none"}),
        ("--mlock", {"load_mode": "mlock"}),
        ("-fa", {"flash_attn_type": "enabled"}),
        ("-fa off", {"flash_attn_type": "disabled"}),
        ("--flash-attn auto -c 1", {"flash_attn_type": "auto", "n_ctx": 1}),
        ("-ctk q8_0 --cache-type-v q4_0", {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
        ("--temp 0.2 --top-k 10", {"sampling.temp": 0.2, "sampling.top_k": 10}),
        ("--sampling.min-p 0.1", {"sampling.min_p": 0.1}),
        ("--seed -1", {"sampling.seed": -1}),
        ("--pooling cls", {"pooling_type": "cls"}),
        ("--rope-scaling yarn --yarn-orig-ctx 4096", {"rope_scaling_type": "yarn", "yarn_orig_ctx": 4096}),
        ("--tensor-split 3,1", {"tensor_split": [3, 1]}),
        ("--alias a,b", {"model_alias": ["a", "b"]}),
        ('--chat-template-kwargs {"enable_thinking":false}', {"default_template_kwargs": {"enable_thinking": "false"}}),
        ("--reasoning-format deepseek-legacy", {"reasoning_format": "deepseek_legacy"}),
        ("--spec-type ngram_mod", {"speculative.types": ["ngram_mod"]}),
        ("--lora /a.gguf:0.5", {"lora_adapters": ["/a.gguf:0.5"]}),
        ("--chat-template-file /t.jinja", {"chat_template": {"file": "/t.jinja"}}),
        ("--context-shift", {"ctx_shift": True}),
        ("--sleep-idle-seconds 60", {"sleep_idle_seconds": 60}),
    ],
)
def test_flags_are_understood_as_llama_cpps_own_server_does(line: str, expected: dict[str, Any]):
    assert parse(line.split(), SCHEMA) == expected


def test_every_name_in_the_table_leads_to_a_parameter_that_exists():
    targets = {target.lstrip("!").partition("=")[0] for target in ALIASES.values()} - set(RESERVED)
    assert sorted(targets - set(SCHEMA)) == []


def test_every_reserved_parameter_exists_or_is_a_word_of_llama_server():
    assert set(RESERVED) - set(SCHEMA) <= {"rerank"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--nctx 1", "Did you mean"),
        ("--parralel 2", 'Did you mean "--parallel"?'),
        ("--xyzzy", "is not an argument"),
        ("-c 1.5", "whole number"),
        ("--temp warm", "not a number"),
        ("--metrics=maybe", "neither on nor off"),
        ("--no-ctx-size", "not a switch"),
        ("--threads --metrics", "needs a value"),
        ("--chat-template-kwargs {", "not a JSON object"),
        ("--chat-template-kwargs [1]", "not a JSON object"),
        ("--port=80", "the platform decides"),
        ("--no-embedding", "spec.task"),
        ("--rerank", "spec.task"),
        ("--hf-token x", "credentialRef"),
        ("--model.path /x", "spec.model"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(line: str, words: str):
    with pytest.raises(BadArgument) as caught:
        parse(line.split(), SCHEMA)
    assert words in str(caught.value)
    assert not str(caught.value).endswith(".")  # it becomes part of a sentence


def test_what_users_may_not_set_the_platform_may():
    assert parse(["--embedding", "--model.path", "/x"], SCHEMA, trusted=True) == {"embedding": True, "model.path": "/x"}


def test_a_parameter_that_only_a_newer_version_has_is_reached_without_a_change_here():
    assert parse(["--brand-new=7"], {"brand_new": Parameter("int")}) == {"brand_new": 7}
