"""The GGUF reader: its results, and that any file is either read or refused."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.errors import Invalid
from llmos_hub.sources.base import Header
from llmos_hub.sources.gguf_header import read_header
from tests.support.gguf_builder import DEFAULT_KEYS, build_gguf

SHIPPED = Path("llmos_hub/sources/data/demo-q8_0.gguf").absolute()


def header_of(tmp_path: Path, content: bytes) -> Header:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return read_header(path)


def test_the_shipped_model_is_described_as_gguf_itself_reads_it():
    reader = gguf.GGUFReader(SHIPPED)
    header = read_header(SHIPPED)
    assert header.architecture == "llama"
    assert header.parameters == sum(int(t.n_elements) for t in reader.tensors)
    assert header.context_length == reader.fields["llama.context_length"].contents()
    assert header.head_count_kv == reader.fields["llama.attention.head_count_kv"].contents()
    assert header.vocabulary == len(reader.fields["tokenizer.ggml.tokens"].data)
    assert header.quantization == "Q8_0"
    assert header.chat_template
    assert not header.tools
    assert header.pooling is None


def test_sizes_quantization_and_parameters_are_read(tmp_path: Path):
    header = header_of(tmp_path, build_gguf())
    assert header == Header(
        architecture="llama",
        name="test",
        quantization="Q4_K_M",
        parameters=1024,
        context_length=4096,
        embedding_length=64,
        block_count=2,
        head_count=4,
        head_count_kv=2,
        vocabulary=4,
    )


def test_version_two_is_read_as_well(tmp_path: Path):
    assert header_of(tmp_path, build_gguf(version=2)).name == "test"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"bert.pooling_type": 1, "bert.attention.causal": False}, ("mean", False, False)),
        ({"bert.pooling_type": 4}, ("rank", True, False)),
        ({"bert.classifier.output_labels": ["yes", "no"]}, (None, True, True)),
        ({}, (None, True, False)),
    ],
)
def test_what_an_encoder_says_of_itself(tmp_path: Path, keys, expected):
    header = header_of(tmp_path, build_gguf({"general.architecture": "bert", **keys}))
    assert (header.pooling, header.causal, header.classifier) == expected


def test_a_classification_head_is_seen_by_its_tensor(tmp_path: Path):
    content = build_gguf({"general.architecture": "bert"}, [("cls.weight", (256, 1), 12)])
    assert header_of(tmp_path, content).classifier


def test_tools_are_found_in_the_chat_template(tmp_path: Path):
    header = header_of(tmp_path, build_gguf({**DEFAULT_KEYS, "tokenizer.chat_template": "{% if tools %}x{% endif %}"}))
    assert header.chat_template
    assert header.tools


def test_the_tensors_win_over_a_wrong_file_type(tmp_path: Path):
    assert header_of(tmp_path, build_gguf({**DEFAULT_KEYS, "general.file_type": 1})).quantization == "Q4_K"


def test_a_size_given_per_layer_counts_with_its_mean(tmp_path: Path):
    keys = {**DEFAULT_KEYS, "llama.attention.head_count_kv": [8, 0, 0, 4]}
    assert header_of(tmp_path, build_gguf(keys)).head_count_kv == 3


def test_parts_count_together(tmp_path: Path):
    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    first.write_bytes(build_gguf())
    second.write_bytes(build_gguf({"split.no": 1}, [("output.weight", (256, 8), 12)]))
    assert read_header(first, second).parameters == 1024 + 2048
    with pytest.raises(Invalid, match="first part"):
        read_header(second)


def test_a_large_vocabulary_is_stepped_over_quickly(tmp_path: Path):
    keys = {**DEFAULT_KEYS, "tokenizer.ggml.tokens": [f"token{i}" for i in range(256_000)]}
    path = tmp_path / "model.gguf"
    path.write_bytes(build_gguf(keys))
    begin = time.process_time()
    assert read_header(path).vocabulary == 256_000
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"GGUF", "ends within its header"),
        (b"PK\x03\x04" + b"\0" * 100, "ZIP archive"),
        (b"GGUF" + struct.pack(">I", 3) + b"\0" * 100, "big-endian"),
        (b"GGUF" + struct.pack("<I", 1) + b"\0" * 100, "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1) + b"\0" * 100, "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60) + b"\0" * 100, "claims"),
        (build_gguf({"general.name": "no architecture"}), "architecture"),
        (build_gguf()[:200], "ends within its header"),
        (build_gguf()[:-100], "100 bytes are missing"),
        (build_gguf({**DEFAULT_KEYS, "general.alignment": 0}), "alignment"),
        (build_gguf(tensors=[("t", (2**40, 2**40), 0)], data=b""), "weights"),
        (build_gguf(tensors=[("t", (1, 1, 1, 1, 1), 0)], data=b""), "dimensions"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, words: str):
    with pytest.raises(Invalid, match=r"model\.gguf") as caught:
        header_of(tmp_path, content)
    assert words in caught.value.message
    assert "?." not in caught.value.message


def test_a_list_that_claims_more_than_there_is_costs_nothing(tmp_path: Path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
    for of, count in ((8, 2**62), (8, 3_000_000), (4, 2**62), (9, 1)):
        begin = time.process_time()
        with pytest.raises(Invalid):
            header_of(tmp_path, head + struct.pack("<IIQ", 9, of, count) + b"\0" * 64)
        assert time.process_time() - begin < 0.5


WHOLE = build_gguf({**DEFAULT_KEYS, "tokenizer.chat_template": "{{ x }}", "llama.list": [1, 2, 3]})


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE)))
def test_a_truncated_file_is_refused(tmp_path: Path, length: int):
    path = tmp_path / "cut.gguf"
    path.write_bytes(WHOLE[:length])
    if length == len(WHOLE):
        assert read_header(path).parameters == 1024
    else:
        with pytest.raises(Invalid):
            read_header(path)


@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(4, len(WHOLE) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_a_changed_file_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, bytes]]):
    content = bytearray(WHOLE)
    for at, data in changes:
        content[at : at + len(data)] = data
    path = tmp_path / "changed.gguf"
    path.write_bytes(content)
    try:
        header = read_header(path)
    except Invalid:
        return
    assert isinstance(header, Header)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_anything_after_the_magic_is_read_or_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "any.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + content)
    try:
        assert isinstance(read_header(path), Header)
    except Invalid:
        return
