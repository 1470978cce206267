"""Splitting of a stream into lines, independent of its chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.client import lines as module
from llmos.client.lines import LineSplitter
from llmos.errors import UpstreamFailed


@given(st.lists(st.text(st.characters(exclude_characters="\n\r"), min_size=1), max_size=8), st.integers(1, 7))
def test_lines_come_out_as_they_went_in_whatever_the_pieces(written: list[str], size: int):
    data = "".join(f"{line}\n" for line in written).encode(errors="replace")
    splitter, read = LineSplitter(), []
    for start in range(0, len(data), size):
        read += splitter.feed(data[start : start + size])
    assert read + splitter.rest() == [line.encode(errors="replace").decode() for line in written]


def test_a_line_may_end_with_cr_lf_and_the_last_one_with_nothing():
    splitter = LineSplitter()
    assert splitter.feed(b"a\r") == []
    assert splitter.feed(b"\n\nb") == ["a"]
    assert splitter.rest() == ["b"]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_LINE", 2**20)
    splitter = LineSplitter()
    for _ in range(16):
        splitter.feed(b"x" * 2**16)
    with pytest.raises(UpstreamFailed):
        splitter.feed(b"x")
