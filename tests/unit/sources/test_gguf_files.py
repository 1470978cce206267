"""Which file of a repository is taken."""

from __future__ import annotations

import pytest

from llmos_hub.sources.gguf_files import candidates, choose, name_of_part, part_of

QWEN = {
    "README.md": 10,
    "model-Q2_K.gguf": 100,
    "model-Q4_K_M.gguf": 200,
    "model-Q5_K_M.gguf": 250,
    "model-Q8_0.gguf": 400,
    "mmproj-model-f16.gguf": 50,
}


def chosen(sizes: dict[str, int], wanted: str | None = None) -> tuple[str, ...] | None:
    candidate = choose(candidates(sizes), wanted).candidate
    return candidate.files if candidate else None


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ([], "model-Q4_K_M.gguf"),
        (["model-Q4_K_M.gguf"], "model-Q5_K_M.gguf"),
        (["model-Q4_K_M.gguf", "model-Q5_K_M.gguf"], "model-Q8_0.gguf"),
        (["model-Q4_K_M.gguf", "model-Q5_K_M.gguf", "model-Q8_0.gguf"], "model-Q2_K.gguf"),
    ],
)
def test_the_usual_balance_is_preferred(without: list[str], expected: str):
    assert chosen({k: v for k, v in QWEN.items() if k not in without}) == (expected,)


def test_of_what_nobody_prefers_the_smallest_is_taken():
    sizes = {"a-F32.gguf": 400, "a-F16.gguf": 200, "a-BF16.gguf": 201}
    result = choose(candidates(sizes), None)
    assert result.candidate.files == ("a-F16.gguf",)
    assert "smallest" in result.reason


def test_the_reason_names_the_file_and_how_many_there_were():
    assert "model-Q4_K_M.gguf was chosen of 4" in choose(candidates(QWEN), None).reason


@pytest.mark.parametrize("wanted", ["model-Q8_0.gguf", "MODEL-q8_0.gguf", "Q8_0", "q8_0"])
def test_a_file_or_a_quantization_can_be_named(wanted: str):
    assert chosen(QWEN, wanted) == ("model-Q8_0.gguf",)


def test_a_wrong_name_is_answered_with_what_was_meant_and_what_there_is():
    result = choose(candidates(QWEN), "model-Q8_1.gguf")
    assert result.candidate is None
    assert 'Did you mean "model-Q8_0.gguf"?' in result.reason
    assert "model-Q2_K.gguf" in result.reason


PARTS = {f"big/m-Q4_K_M-0000{i}-of-00003.gguf": 10 for i in (1, 2, 3)}


def test_parts_are_one_model():
    (only,) = candidates(PARTS)
    assert only.files == tuple(sorted(PARTS))
    assert only.size == 30
    assert only.quantization == "Q4_K_M"
    assert "2 more parts" in only.title


def test_any_part_stands_for_the_model():
    assert chosen(PARTS | QWEN, "m-Q4_K_M-00002-of-00003.gguf") == tuple(sorted(PARTS))


def test_a_model_with_a_missing_part_is_not_taken():
    del (parts := dict(PARTS))["big/m-Q4_K_M-00002-of-00003.gguf"]
    assert chosen(parts | {"small-Q2_K.gguf": 5}) == ("small-Q2_K.gguf",)
    assert "missing" in choose(candidates(parts), None).reason
    assert "missing" in choose(candidates(parts), "Q4_K_M").reason


def test_the_file_beside_the_readme_goes_before_one_in_a_folder():
    assert chosen({"old/m-Q4_K_M.gguf": 1, "m-Q4_K_M.gguf": 1}) == ("m-Q4_K_M.gguf",)


def test_names_of_parts():
    assert part_of("m-00002-of-00010.gguf") == ("m", 2, 10)
    assert part_of("m.gguf") is None
    assert name_of_part("m-00002-of-00010.gguf", 1) == "m-00001-of-00010.gguf"
