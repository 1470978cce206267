"""`model` is found and replaced in any JSON, however large, without changing another byte."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.errors import BadRequest
from llmos_hub.gateway import body as module
from llmos_hub.gateway.body import parse_body, replace_model

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["model", "a", "", '"', "\\", "é"]), inner, max_size=4)
    ),
    max_leaves=20,
)
bodies = st.dictionaries(st.sampled_from(["model", "messages", "x", '"model"', "mod\\u0065l", "é"]), values, max_size=5)
layouts = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])


async def find_model(data: bytes) -> str | None:
    return (await parse_body(data))[0]


def scanned(data: bytes) -> str | None:
    """Find the model as in a large body."""
    small, module.SMALL = module.SMALL, -1
    try:
        return asyncio.run(find_model(data))
    finally:
        module.SMALL = small


@settings(max_examples=300)
@given(bodies, st.text(min_size=1, max_size=20), layouts)
def test_scanning_and_decoding_agree(data: dict[str, Any], model: str, layout: dict[str, Any]) -> None:
    data["model"] = model
    text = json.dumps(data, **layout).encode()
    assert asyncio.run(find_model(text)) == scanned(text) == model
    replaced = asyncio.run(replace_model(text, "served/Näme"))
    assert json.loads(replaced) == {**data, "model": "served/Näme"}
    assert (
        asyncio.run(replace_model(replaced, model))
        == text.replace(
            json.dumps(model, **{k: v for k, v in layout.items() if k == "ensure_ascii"}).encode(),
            json.dumps(model).encode(),
        )
        or json.loads(asyncio.run(replace_model(replaced, model))) == data
    )


@settings(max_examples=300)
@given(st.text(alphabet='{}[]",:\\ model1\n', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Scanning finds the same as decoding; invalid bodies are refused with a sentence, never with another error."""
    data = text.encode()
    try:
        decoded: Any = asyncio.run(find_model(data))
    except BadRequest:
        decoded = BadRequest
    try:
        found: Any = scanned(data)
    except BadRequest:
        found = BadRequest
    if decoded is not BadRequest:
        assert found == decoded


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (b'{"model":"a"}', "a"),
        (b' \r\n\t{ "model" : "a" } \n', "a"),
        (b'{"x":{"model":"no"},"y":["model","no"],"model":"a"}', "a"),
        (b'{"x":"\\"model\\":\\"no\\"","model":"a"}', "a"),
        (b'{"model":"no","model":"a"}', "a"),
        (b'{"mod\\u0065l":"a"}', "a"),
        (b'{"model":"\\u0061"}', "a"),
        (b'{"x":[[[{"a":[{}]}]],{"b":"]}"}],"model":"a","y":-1.5e3}', "a"),
        (b"{}", None),
        (b'{"modele":"a","mode":"b"}', None),
    ],
)
def test_examples(text: bytes, model: str | None) -> None:
    assert asyncio.run(find_model(text)) == scanned(text) == model


def test_every_other_byte_stays() -> None:
    text = b'{"n": 1.0000,  "u": "\xc3\xa9\\u00e9", "model" :\t"a/b" ,"z":[1 ,2]} \n'
    assert asyncio.run(replace_model(text, "c")) == text.replace(b'"a/b"', b'"c"')


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":"' + b"A" * (32 << 20) + b'","model":"a"}',
        b'{"x":[' + b",".join([b"[1,2,3]"] * 2_000_000) + b'],"model":"a"}',
        b'{"x":[' + b",".join([b'{"role":"user","content":[{"t":"x"}]}'] * 200_000) + b'],"model":"a"}',
        b'{"x":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b',"model":"a"}',
        b'{"x":"' + b"\\\\" * (4 << 20) + b'","model":"a"}',
    ],
    ids=["text", "lists", "messages", "nested", "escapes"],
)
async def test_large_bodies_let_others_run(text: bytes) -> None:
    """The longest stretch without a turn for others is short, and no body takes long for its size.

    CPU time is measured, so that a busy machine changes nothing.
    """
    longest, last, stop = 0.0, time.thread_time(), False

    async def others() -> None:
        nonlocal longest, last
        while not stop:
            now = time.thread_time()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    assert await find_model(text) == "a"
    await asyncio.sleep(0)
    stop = True
    await task
    assert longest < 0.7


@pytest.mark.parametrize(
    "text",
    [b'{"model":"a","x":' + b"1" * 5_000 + b"}", b'{"model":' + b"[" * 3_000 + b"]" * 3_000 + b"}"],
    ids=["digits", "nested"],
)
async def test_what_python_reads_no_further_is_refused(text: bytes) -> None:
    """An integer of thousands of digits, a model name that is lists in lists: refused in words, small and large."""
    with pytest.raises(BadRequest):
        await find_model(text)
    if b"[" in text:
        with pytest.raises(BadRequest):
            await find_model(text[:-1] + b',"x":"' + b"a" * module.SMALL + b'"}')


@pytest.mark.parametrize("size", [20_000, 40_000])
def test_nothing_is_scanned_twice_over(size: int) -> None:
    """Unfinished brackets and texts, where a backtracking pattern would take quadratic time."""
    for piece in (b'["a",', b'{"a":', b'[{"a', b'"', b"[1,", b'["\\'):
        began = time.thread_time()
        with pytest.raises(BadRequest):
            scanned(b'{"x":' + piece * size)
        assert time.thread_time() - began < 1
