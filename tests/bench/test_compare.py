"""bench.compare: medians, intervals, ratios of the same round, and what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from math import comb
from pathlib import Path
from typing import Any

import pytest

from bench import compare, peers
from bench.compare import Spread, markdown, spread, table
from bench.report import write_page


def result(subject: str, number: int, cpu_us: float, load: str = "window 1") -> dict[str, Any]:
    """One measurement."""
    return {
        "subject": subject,
        "round": number,
        "load": load,
        "cpu_us": cpu_us,
        "rate": 1000.0,
        "cores": 0.5,
        "delivery_p50_ms": 1.0,
        "delivery_p99_ms": 2.0,
        "delivery_p999_ms": 3.0,
    }


@pytest.mark.parametrize(
    ("count", "cut"), [(1, 0), (3, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (17, 4)]
)
def test_the_interval_leaves_out_as_many_extremes_as_it_may(count: int, cut: int) -> None:
    """The median lies outside with a probability of at most 5 %, if there are six values or more."""
    found = spread([float(value) for value in range(count, 0, -1)])
    assert found == Spread((count + 1) / 2, 1.0 + cut, float(count - cut))
    outside = 2 * sum(comb(count, rank) for rank in range(cut + 1)) / 2**count
    if count >= 6:
        assert outside <= 0.05 < outside + 2 * comb(count, cut + 1) / 2**count


def test_ratios_are_those_of_the_same_round() -> None:
    """A round in which the machine was slow for all does not show in them."""
    results = [result("floor", number, cpu) for number, cpu in enumerate((10.0, 20.0, 40.0))]
    results += [result("memory", number, cpu) for number, cpu in enumerate((15.0, 30.0, 60.0))]
    floor, memory = table(results, "floor")
    assert memory["ratio"] == {"middle": 1.5, "low": 1.5, "high": 1.5}
    assert memory["cpu_us"] == {"middle": 30.0, "low": 15.0, "high": 60.0}
    assert floor["ratio"]["middle"] == 1.0


def test_without_the_yardstick_there_are_no_ratios() -> None:
    (row,) = table([result("memory", 0, 12.0)], "floor")
    assert "ratio" not in row
    assert "| FastChat, memory " in markdown([row], "floor")


def test_what_is_not_available_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, loads: list[str], pairs: int, seconds: float) -> list[dict[str, Any]]:
        if name == "ws":
            raise peers.Unavailable("there is no node")
        return [result(name, 0, 1.0)]

    monkeypatch.setattr(compare, "measure", measure)
    results = compare.compare(["floor", "ws"], ["window 1"], rounds=3, pairs=1, seconds=1)
    assert [each["subject"] for each in results] == ["floor"] * 3
    assert capsys.readouterr().err.count("left out: ws: there is no node") == 1


def test_the_page_stands_alone(tmp_path: Path) -> None:
    """Whatever a subject is called, and without a line that fetches something."""
    rows = table([result(name, 0, 5.0) for name in ("floor", "<b>&")], "floor")
    report = {"began": "today", "machine": "a <machine>", "command": "x", "pairs": 1, "seconds": 1.0}
    path = tmp_path / "page.html"
    write_page(path, {**report, "yardstick": "floor", "rows": rows})
    page = path.read_text()
    assert "a &lt;machine&gt;" in page
    assert "<td>&lt;b&gt;&amp;</td>" in page
    assert "<script src" not in page
    assert page.count("Plotly.newPlot(") >= 2


@pytest.mark.slow
def test_a_real_comparison(tmp_path: Path) -> None:
    """The durable server beside the one in memory, as `make bench` does it."""
    command = [sys.executable, "-m", "bench.compare", "--subjects", "memory;fsync", "--yardstick", "memory"]
    command += ["--rounds", "1", "--seconds", "0.5", "--pairs", "4", "--loads", "window 4,rate 200"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (report,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    measured = {(each["subject"], each["load"]): each for each in report["results"]}
    assert measured.keys() == {(s, load) for s in ("memory", "fsync") for load in ("window 4", "rate 200")}
    for each in measured.values():
        assert 1.0 < each["cpu_us"] < 10_000.0
        assert each["delivery_p50_ms"] <= each["delivery_p99_ms"]
    assert measured["fsync", "rate 200"]["messages"] == 100
    assert "commit_p99_ms" in measured["fsync", "window 4"]
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".json"] == [".html"]


def test_an_unknown_subject_is_refused() -> None:
    command = [sys.executable, "-m", "bench.compare", "--subjects", "memori"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "there is no memori" in done.stderr
