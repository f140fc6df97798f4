"""FastChat beside what one would otherwise pick, on the same load, in turns. ``make bench-compare``; ``make bench`` has ours only.

What else the machine does at the time hits all subjects alike: each round starts every one of them, and a ratio is one of the same round.
It prints a table, and writes JSON and a page with plots into ``bench/results/``. With nine rounds the interval that the medians come with
reaches from the second to the eighth of the values, in which the true median lies with a probability of 96 % (it is that of the order
statistics, which asks for no distribution).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from math import comb
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import peers
from bench.crew import crew
from bench.driver import Reports, Result, summary
from bench.report import write_page
from bench.servers import serving, watched
from bench.usage import cpu_seconds
from scripts.compiled_core import find

RESULTS: Final = Path(__file__).parent / "results"
#: Seconds before each measurement.
_WARM_UP: Final = 0.7
#: What everything is compared with.
FLOOR: Final = "floor"


@dataclass(frozen=True)
class Running:
    """A started subject: the CPU of `pids` is counted, and what `reports` tells goes with it."""

    url: str
    pids: list[int]
    workers: int = 1
    where: str = "same"
    reports: Callable[[], AbstractContextManager[Reports]] | None = None


@contextmanager
def ours(
    store: str, workers: int = 1, where: str = "same", *, compiled: bool = False, is_watched: bool = False
) -> Iterator[Running]:
    """FastChat; the CPU of all of its processes counts. Raises Unavailable when the core is to be compiled and is not.

    `is_watched`: with a dashboard open, and Prometheus.
    """
    if compiled and find() is None:
        raise peers.Unavailable("the core is not compiled: make bench-compare does it")
    with (
        serving(store, workers, compiled=compiled) as server,
        watched(server) if is_watched else nullcontext(),
    ):
        yield Running(server.url, list(server.pids.values()), workers, where, partial(Reports, server))


@contextmanager
def peer(name: str) -> Iterator[Running]:
    """One of the others."""
    with peers.start(name) as started:
        yield Running(started.url, list(started.pids))


#: Name -> how to start it.
OURS: Final[dict[str, Callable[[], AbstractContextManager[Running]]]] = {
    "memory": partial(ours, "memory"),
    "os": partial(ours, "os"),
    "fsync": partial(ours, "fsync"),
    "memory, watched": partial(ours, "memory", is_watched=True),
    "memory, compiled": partial(ours, "memory", compiled=True),
    "fsync, compiled": partial(ours, "fsync", compiled=True),
    "memory, 2 workers, same shard": partial(ours, "memory", 2),
    "memory, 2 workers, other shard": partial(ours, "memory", 2, "other"),
    "memory, 2 workers, same shard, compiled": partial(ours, "memory", 2, compiled=True),
    "memory, 2 workers, other shard, compiled": partial(ours, "memory", 2, "other", compiled=True),
}
PEERS: Final[dict[str, Callable[[], AbstractContextManager[Running]]]] = {
    name: partial(peer, name) for name in peers.PEERS
}
SUBJECTS: Final = {**PEERS, **OURS}
#: Name -> what it is called in the table and on the page.
TITLES: Final = {
    **{name: recipe.title for name, recipe in peers.PEERS.items()},
    **{name: f"FastChat, {name}" for name in OURS},
}


@dataclass(frozen=True)
class Spread:
    """A median, and the interval in which it lies with a probability of at least 95 % if there are values enough for that."""

    middle: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Of the values of all rounds."""
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    # How many of the extremes on each side can go: so few that the median is beyond them in less than 5 % of all cases.
    while rank < count // 2:
        outside += 2 * comb(count, rank) / 2**count
        if outside > 0.05:
            break
        rank += 1
    cut = max(0, rank - 1)
    return Spread(median(ordered), ordered[cut], ordered[count - 1 - cut])


def measure(name: str, loads: list[str], pairs: int, seconds: float) -> list[Result]:
    """Start a subject and let it have all loads."""
    results = []
    with SUBJECTS[name]() as subject, crew(subject.url, pairs, 1, subject.workers, subject.where) as members:
        for load in loads:
            members.chat(load, _WARM_UP)
            before = cpu_seconds(subject.pids)
            if subject.reports is None:
                outcome, reported = members.chat(load, seconds), {}
            else:
                with subject.reports() as reports:
                    outcome = members.chat(load, seconds)
                reported = reports.summary()
            used = cpu_seconds(subject.pids) - before
            results.append({"subject": name, **summary(load, outcome, used), **reported})
    return results


def compare(names: list[str], loads: list[str], rounds: int, pairs: int, seconds: float) -> list[Result]:
    """All rounds; each begins with another subject."""
    results = []
    unavailable: dict[str, str] = {}
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            if name in unavailable:
                continue
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            try:
                results += [{"round": number, **result} for result in measure(name, loads, pairs, seconds)]
            except peers.Unavailable as missing:
                unavailable[name] = str(missing)
                print(f"left out: {name}: {missing}", file=sys.stderr)
    return results


def table(results: list[Result], yardstick: str) -> list[Result]:
    """One row for each load and subject: medians over the rounds, and the ratio of CPU to the yardstick's in the same round."""
    rows = []
    by_round = {(each["load"], each["subject"], each["round"]): each for each in results}
    for load in dict.fromkeys(each["load"] for each in results):
        for subject in dict.fromkeys(each["subject"] for each in results):
            of_subject = [each for each in results if (each["load"], each["subject"]) == (load, subject)]
            ratios = [
                each["cpu_us"] / by_round[load, yardstick, each["round"]]["cpu_us"]
                for each in of_subject
                if (load, yardstick, each["round"]) in by_round
            ]
            row = {"load": load, "subject": subject, "title": TITLES.get(subject, subject)}
            row["rounds"] = len(of_subject)
            row["cpu_us"] = asdict(spread([each["cpu_us"] for each in of_subject]))
            if ratios:
                row["ratio"] = asdict(spread(ratios))
            for name in _MEDIANS:
                values = [each[name] for each in of_subject if name in each]
                if values:
                    row[name] = max(values) if name == "turn_max_ms" else median(values)
            rows.append(row)
    return rows


#: What of each result is shown as a median; of the longest turn it is the longest of all.
_MEDIANS: Final = (
    *("rate", "cores", "ack_p50_ms", "ack_p99_ms", "delivery_p50_ms", "delivery_p99_ms", "delivery_p999_ms"),
    *("commit_p50_ms", "commit_p99_ms", "rows_a_commit", "turn_ms", "turn_max_ms"),
)
_COLUMNS: Final = (
    "load",
    "subject",
    "CPU us/msg",
    "95 %",
    "ratio",
    "95 %",
    "msg/s",
    "msg/s/core",
    "delivery p50 ms",
    "p99",
    "commit p50 ms",
    "p99",
    "rows",
    "turn ms",
    "longest",
)


def markdown(rows: list[Result], yardstick: str) -> str:
    """Return the table as text; `ratio` is that of CPU to the yardstick's."""
    lines = [[column if column != "ratio" else f"x {yardstick}" for column in _COLUMNS]]
    for row in rows:
        cpu, ratio = row["cpu_us"], row.get("ratio")
        texts = [row["load"], row["title"], f"{cpu['middle']:.1f}", f"{cpu['low']:.1f}-{cpu['high']:.1f}"]
        texts += [f"{ratio['middle']:.2f}", f"{ratio['low']:.2f}-{ratio['high']:.2f}"] if ratio else ["", ""]
        texts += [f"{row['rate']:.0f}", f"{1e6 / cpu['middle']:.0f}"]
        texts += [f"{row['delivery_p50_ms']:.1f}", f"{row['delivery_p99_ms']:.1f}"]
        if row.get("rows_a_commit"):
            texts += [f"{row[name]:.1f}" for name in ("commit_p50_ms", "commit_p99_ms")]
            texts += [f"{row['rows_a_commit']:.0f}"]
        else:
            texts += ["", "", ""]
        texts += [f"{row[name]:.1f}" if name in row else "" for name in ("turn_ms", "turn_max_ms")]
        lines.append(texts)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def machine() -> str:
    """Return what it was measured on."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return (
        f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.compare")
    parser.add_argument("--name", default="compare", help="name of the files in bench/results/")
    parser.add_argument(
        "--subjects",
        default="all",
        help=f"separated by semicolons; or all, or ours. There are {'; '.join(SUBJECTS)}",
    )
    parser.add_argument("--yardstick", default=FLOOR, help="the subject that the others are compared with")
    parser.add_argument(
        "--loads", default="window 1,window 8", help="`window N` and `rate N`, separated by commas"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each measurement")
    parser.add_argument("--pairs", type=int, default=50, help="pairs of users")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the results")
    arguments = parser.parse_args()
    groups = {"all": list(SUBJECTS), "ours": ["memory", "os", "fsync"]}
    names = groups.get(arguments.subjects) or arguments.subjects.split(";")
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {'; '.join(SUBJECTS)}")
    began = datetime.now(UTC)
    results = compare(names, arguments.loads.split(","), arguments.rounds, arguments.pairs, arguments.seconds)
    rows = table(results, arguments.yardstick)
    report: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "machine": machine(),
        "command": f"python -m bench.compare {' '.join(sys.argv[1:])}".strip(),
        "pairs": arguments.pairs,
        "seconds": arguments.seconds,
        "yardstick": arguments.yardstick,
        "rows": rows,
        "results": results,
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    stem = arguments.results / f"{arguments.name}-{began:%Y%m%d-%H%M%S}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1))
    write_page(stem.with_suffix(".html"), report)
    print(markdown(rows, arguments.yardstick))
    print(f"\n{report['machine']}\nwritten: {stem}.json, {stem}.html")


if __name__ == "__main__":
    main()
