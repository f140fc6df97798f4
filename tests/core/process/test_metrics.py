"""core.process.metrics: the table is sound, series have names that can be read back, and histograms and percentiles are right."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.measures import SECONDS, SIZES, Histogram, quantile, series, split_series
from core.process.metrics import METRICS, Kind


@pytest.mark.parametrize("name", METRICS)
def test_each_row_keeps_the_rules(name: str) -> None:
    row = METRICS[name]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.name)
    assert row.name.endswith("_total") == (row.kind is Kind.COUNTER)
    assert bool(row.bounds) == (row.kind is Kind.HISTOGRAM)
    assert row.help.endswith(".")
    assert not set(row.labels) & {"worker", "front", "process", "le"} or row.name.startswith("front_")
    if row.name.endswith("_seconds") and row.kind is Kind.HISTOGRAM:
        assert row.bounds == SECONDS


def test_ranges_are_in_order_and_about_half_as_wide_again() -> None:
    for low, high in pairwise(SECONDS):
        assert 1.35 < high / low < 1.6
    assert (SECONDS[0], SECONDS[-1]) == (1e-5, 10.0)
    assert list(SIZES) == sorted(SIZES)


_NAMES = st.lists(st.text("abyz", min_size=1, max_size=5), min_size=1, max_size=4).map("_".join)
_LABELS = st.dictionaries(
    _NAMES,
    st.text(st.characters(codec="utf-8", exclude_characters='"'), max_size=20),
)


@given(_NAMES, _LABELS)
def test_a_series_can_be_read_back(name: str, labels: dict[str, str]) -> None:
    labels.pop("name", None)
    assert split_series(series(name, **labels)) == (name, labels)


@pytest.mark.parametrize(
    "text", ["", "{}", 'a{b="c"', 'a{b="c}', 'a{b="c"}d', 'a{b="c" d="e"}', "A", 'a{="c"}']
)
def test_what_is_no_series_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the"):
        split_series(text)


@given(st.lists(st.floats(0, 20)))
def test_a_histogram_counts_each_value_in_its_range(values: list[float]) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.record(value)
    report = histogram.report()
    for index, bound in enumerate(SECONDS):
        assert sum(report["counts"][: index + 1]) == sum(value <= bound for value in values)
    assert sum(report["counts"]) == len(values)
    assert math.isclose(report["sum"], sum(values), abs_tol=1e-9)


@given(st.lists(st.floats(1e-5, 9.9), min_size=20, max_size=200), st.integers(1, 99))
def test_a_percentile_is_right_within_a_range(values: list[float], percent: int) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.record(value)
    found = quantile(SECONDS, histogram.report()["counts"], percent / 100)
    # Some value with that rank, give or take one, lies in the range that was found, or beside a gap without values.
    ordered = sorted(values)
    rank = percent / 100 * len(values)
    near = ordered[max(0, math.ceil(rank) - 1)]
    assert abs(bisect_left(SECONDS, found) - bisect_left(SECONDS, near)) <= 1


def test_a_percentile_of_nothing_is_nothing_and_beyond_the_bounds_it_is_the_last() -> None:
    histogram = Histogram(SIZES)
    assert quantile(SIZES, histogram.report()["counts"], 0.5) == 0.0
    histogram.record(10_000)
    assert quantile(SIZES, histogram.report()["counts"], 0.5) == 512.0
