"""Tests of core.process.layout."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.placement import WORKERS_MAX
from core.process.layout import FORMAT, Layout, LayoutError, generation_of, parse_layout

layouts = st.builds(Layout, st.integers(1, 10**18 - 1), st.integers(1, WORKERS_MAX))


@given(layouts)
def test_what_is_written_is_read(layout: Layout) -> None:
    assert parse_layout(layout.encode()) == layout
    assert json.loads(layout.encode()) == {
        "format": FORMAT,
        "generation": layout.generation,
        "workers": layout.workers,
    }


@given(layouts)
def test_names(layout: Layout) -> None:
    assert generation_of(layout.directory) == layout.generation
    files = layout.shards()
    assert len(set(files)) == layout.workers
    assert files == [f"{layout.directory}/shard-{worker}.db" for worker in range(layout.workers)]


@pytest.mark.parametrize(
    "name", ["shards-0", "shards-01", "shards-", "shards-1.old", "Shards-1", "xshards-1", "shards-²", "data"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert generation_of(name) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty; expected JSON"),
        (b" \n", "the file is empty; expected JSON"),
        (b'{"format": 1, "generation": 2, "wor', "the file is not JSON; expected JSON"),
        (b"\x00" * 40, "the file is not JSON; expected JSON"),
        (b"[]", "the file is not a JSON object; expected JSON"),
        (b"{}", "`format` is missing, but this version of FastChat supports only 1"),
        (b'{"format": 2, "shards": []}', "`format` is 2, but this version of FastChat supports only 1"),
        (b'{"format": true, "generation": 1, "workers": 1}', "`format` is True"),
        (b'{"format": 1, "workers": 1}', "`generation` is missing, not a number from 1"),
        (b'{"format": 1, "generation": 0, "workers": 1}', "`generation` is 0, not a number"),
        (b'{"format": 1, "generation": 1.5, "workers": 1}', "`generation` is 1.5, not a number"),
        (b'{"format": 1, "generation": 1, "workers": 65}', "`workers` is 65, not a number from 1 to 64"),
        (b'{"format": 1, "generation": 1, "workers": true}', "`workers` is True, not a number"),
        (b'{"format": 1, "generation": 1, "workers": "4"}', "`workers` is '4', not a number"),
        (b'{"format": 1, "generation": 1, "workers": -1}', "`workers` is -1, not a number"),
    ],
)
def test_what_is_refused_says_what_was_expected(content: bytes, sentence: str) -> None:
    with pytest.raises(LayoutError) as refusal:
        parse_layout(content)
    assert str(refusal.value).startswith(sentence)


@given(st.binary())
def test_garbage_is_a_layout_error_and_nothing_else(content: bytes) -> None:
    try:
        parse_layout(content)
    except LayoutError as refusal:
        assert 20 < len(str(refusal)) < 200


def test_what_a_later_version_adds_is_ignored() -> None:
    assert parse_layout(b'{"format": 1, "generation": 3, "workers": 2, "made_at": "today"}') == Layout(3, 2)
