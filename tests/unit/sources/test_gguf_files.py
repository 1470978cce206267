"""The choice of a file in a repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos_hub.sources.gguf_files import ChosenModel, candidates, choose, part_of, parts_of
from llmos_hub.sources.gguf_header import Outline

QWEN = {
    "README.md": 10,
    "model-Q2_K.gguf": 100,
    "model-Q4_K_M.gguf": 200,
    "model-Q5_K_M.gguf": 250,
    "model-Q8_0.gguf": 400,
    "mmproj-model-f16.gguf": 50,
}


MODEL = Outline("model", "qwen3", 398, 36)
DRAFT = Outline("model", "qwen3", 15, 36)


def pick(
    sizes: dict[str, int], wanted: str | None = None, headers: dict[str, Outline | None] | None = None
) -> ChosenModel:
    return choose(candidates(sizes), wanted, (headers or {}).get)


def chosen(
    sizes: dict[str, int], wanted: str | None = None, headers: dict[str, Outline | None] | None = None
) -> tuple[str, ...] | None:
    candidate = pick(sizes, wanted, headers).candidate
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
    result = pick(sizes)
    assert result.candidate.files == ("a-F16.gguf",)
    assert "smallest" in result.reason


def test_the_reason_names_the_file_and_how_many_there_were():
    assert "model-Q4_K_M.gguf was chosen of 4" in pick(QWEN).reason


@pytest.mark.parametrize("wanted", ["model-Q8_0.gguf", "MODEL-q8_0.gguf", "Q8_0", "q8_0"])
def test_a_file_or_a_quantization_can_be_named(wanted: str):
    assert chosen(QWEN, wanted) == ("model-Q8_0.gguf",)


def test_a_wrong_name_is_answered_with_what_was_meant_and_what_there_is():
    result = pick(QWEN, "model-Q8_1.gguf")
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
    assert "missing" in pick(parts).reason
    assert "missing" in pick(parts, "Q4_K_M").reason


def test_the_file_beside_the_readme_goes_before_one_in_a_folder():
    assert chosen({"old/m-Q4_K_M.gguf": 1, "m-Q4_K_M.gguf": 1}) == ("m-Q4_K_M.gguf",)


SIDECARS = [
    "mtp-X.gguf",
    "MTP/X-Q4_K_M.gguf",
    "eagle3-X-Q4_K_M.gguf",
    "draft/X-Q4_K_M.gguf",
    "mmproj-Q4_K_M.gguf",
    "X-imatrix.gguf",
    "X-lora-Q4_K_M.gguf",
]


@pytest.mark.parametrize("sidecar", SIDECARS)
def test_what_goes_with_a_model_is_never_the_default(sidecar: str):
    sizes = {"X-UD-Q4_K_XL.gguf": 4000, "X-Q8_0.gguf": 8000, sidecar: 100}
    assert chosen(sizes) == ("X-UD-Q4_K_XL.gguf",)
    # where the headers can be read it is they that say so, whatever the file is called
    headers = dict.fromkeys(sizes, MODEL) | {"helper-Q4_K_M.gguf": DRAFT}
    renamed = {path: size for path, size in sizes.items() if path != sidecar} | {"helper-Q4_K_M.gguf": 100}
    result = pick(renamed, None, headers)
    assert result.candidate.files == ("X-UD-Q4_K_XL.gguf",)
    assert "not helper-Q4_K_M.gguf: it holds 15 tensors, the largest file 398" in result.reason


@pytest.mark.parametrize("sidecar", SIDECARS)
def test_a_file_named_exactly_is_taken_whatever_its_name(sidecar: str):
    sizes = {"X-UD-Q4_K_XL.gguf": 4000, sidecar: 100}
    assert chosen(sizes, sidecar) == (sidecar,)
    assert "as asked for" in pick(sizes, sidecar).reason


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        (Outline("adapter", "qwen3", 398, 36), "an adapter"),
        (Outline("mmproj", "clip", 398, 36), "the vision part"),
        (Outline("imatrix", "", 398, 0), "importance data"),
        (Outline("model", "eagle3", 398, 36), "drafts for another model"),
        (Outline("model", "qwen3", 398, 3), "3 blocks"),
        (Outline("model", "controlvector", 398, 36), "control vector"),
    ],
)
def test_the_header_decides_what_a_file_is(outline: Outline, words: str):
    sizes = {"good-Q4_K_M.gguf": 100, "better-Q8_0.gguf": 200}
    headers: dict[str, Outline | None] = {"good-Q4_K_M.gguf": outline, "better-Q8_0.gguf": MODEL}
    result = pick(sizes, None, headers)
    assert result.candidate.files == ("better-Q8_0.gguf",)
    assert result.reason.startswith("better-Q8_0.gguf is the only model there; not good-Q4_K_M.gguf: ")
    assert words in result.reason


@pytest.mark.parametrize(
    ("sidecar", "outline", "words"),
    [
        ("mmproj-model-F16.gguf", Outline("mmproj", "clip", 398, 36), "the vision part"),
        ("mtp-model-F16.gguf", DRAFT, "15 tensors"),
    ],
)
def test_the_only_file_of_a_quantization_is_no_model_where_its_header_says_so(
    sidecar: str, outline: Outline, words: str
):
    sizes, headers = {"model-Q4_K_M.gguf": 200, sidecar: 50}, {"model-Q4_K_M.gguf": MODEL, sidecar: outline}
    result = pick(sizes, "F16", headers)
    assert result.candidate is None
    assert words in result.reason
    assert "model-Q4_K_M.gguf" in result.reason
    assert chosen(sizes, sidecar, headers) == (sidecar,)
    assert chosen(sizes, "F16", {**headers, sidecar: MODEL}) == (sidecar,)


def test_a_model_with_lora_in_its_name_is_a_model_by_its_header():
    sizes = {"my-lora-merged-Q4_K_M.gguf": 4000, "my-lora-merged-Q8_0.gguf": 8000, "base-F16.gguf": 16000}
    assert chosen(sizes, None, dict.fromkeys(sizes, MODEL)) == ("my-lora-merged-Q4_K_M.gguf",)
    # with nothing but names to go by, what reads like a model is
    assert chosen(sizes) == ("base-F16.gguf",)
    assert chosen({"all-lora-Q4_K_M.gguf": 1, "all-lora-Q8_0.gguf": 2}) == ("all-lora-Q4_K_M.gguf",)
    assert chosen({"one-imatrix.gguf": 1}) == ("one-imatrix.gguf",)


def test_quantizations_of_one_model_are_told_from_its_draft_however_small():
    sizes = {"m-Q2_K.gguf": 300, "m-BF16.gguf": 4000, "m-IQ1_S.gguf": 150}
    headers = {"m-Q2_K.gguf": MODEL, "m-BF16.gguf": MODEL, "m-IQ1_S.gguf": Outline("model", "qwen3", 399, 36)}
    assert chosen(sizes, None, headers) == ("m-IQ1_S.gguf",)


def test_a_first_part_that_holds_few_tensors_is_no_draft():
    sizes = {"m-Q4_K_M-00001-of-00002.gguf": 5, "m-Q4_K_M-00002-of-00002.gguf": 2000, "m-Q8_0.gguf": 4000}
    headers = {"m-Q4_K_M-00001-of-00002.gguf": Outline("model", "qwen3", 0, 36), "m-Q8_0.gguf": MODEL}
    assert chosen(sizes, None, headers)[0] == "m-Q4_K_M-00001-of-00002.gguf"


def test_a_quantization_can_be_written_as_the_files_are():
    sizes = {"X-UD-Q4_K_XL.gguf": 10, "X-Q4_K_M.gguf": 11, "mtp-Q4_K_M.gguf": 1}
    assert chosen(sizes, "UD-Q4_K_XL") == ("X-UD-Q4_K_XL.gguf",)
    assert chosen(sizes, "Q4_K_M") == ("X-Q4_K_M.gguf",)


def test_names_of_parts():
    assert part_of("m-00002-of-00010.gguf") == ("m", 2, 10)
    assert part_of("m.gguf") is None
    assert parts_of(Path("/a/m-00002-of-00002.gguf")) == [Path(f"/a/m-0000{number}-of-00002.gguf") for number in (1, 2)]
    assert parts_of(Path("/a/m.gguf")) == [Path("/a/m.gguf")]
