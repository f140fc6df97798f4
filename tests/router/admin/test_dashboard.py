"""Tests of router.admin.dashboard, in a real server: what a browser gets, and how it may keep it."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from core.process.metrics import METRICS
from router.admin.columns import HISTOGRAMS
from router.admin.dashboard import Dashboard
from router.admin.samples import Samples
from tests.router.front_process import PROJECT, hello, wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess

FILES: Final = sorted(path.name for path in (PROJECT / "router/web/dashboard").iterdir())
PLOTLY: Final = f"/dashboard/plotly-{version('plotly')}.min.js"
TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        ServerProcess(Path(name), workers=2) as server,
    ):
        yield server


def get(server: ServerProcess, path: str, **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body as they came; an underscore in the name of a header stands for a hyphen."""
    connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=10)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def samples(server: ServerProcess, query: str = "") -> dict[str, Any]:
    status, headers, body = get(server, f"/dashboard/samples{query}")
    assert status == 200
    assert headers.get_content_type() == "application/json"
    answer: dict[str, Any] = json.loads(body)
    return answer


def up(server: ServerProcess) -> list[float]:
    """Whether worker 0 served, second by second; nothing as long as it never did."""
    found: list[float] = samples(server)["processes"].get("worker 0", {}).get("up", [])
    return found


# -- Files --


@pytest.mark.parametrize("path", ["/", "/dashboard"])
def test_the_admin_port_leads_to_the_dashboard(server: ServerProcess, path: str) -> None:
    status, headers, _ = get(server, path)
    assert (status, headers["Location"]) == (302, "dashboard/")


@pytest.mark.parametrize("name", ["", *FILES])
def test_a_file_is_checked_each_time_and_comes_only_when_it_has_changed(
    server: ServerProcess, name: str
) -> None:
    path = PROJECT / "router/web/dashboard" / (name or "dashboard.html")
    status, headers, body = get(server, f"/dashboard/{name}")
    assert status == 200
    assert body == path.read_bytes()
    assert headers.get_content_type() == TYPES[path.suffix]
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Content-Type-Options"] == "nosniff"
    etag = headers["ETag"]
    status, headers, body = get(server, f"/dashboard/{name}", If_None_Match=etag)
    assert (status, body, headers["ETag"]) == (304, b"", etag)
    status, headers, body = get(server, f"/dashboard/{name}", If_None_Match='"old"', Accept_Encoding="gzip")
    if path.stat().st_size < 512:  # to compress it would cost more than it saves
        assert (status, headers["Content-Encoding"], body) == (200, None, path.read_bytes())
    else:
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        assert gzip.decompress(body) == path.read_bytes()
        assert headers["ETag"] != etag, "other bytes, another name"
    assert headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in get(server, f"/dashboard/{name}", Accept_Encoding="gzip;q=0")[1]


def test_the_library_for_charts_is_kept_for_good_under_a_name_with_its_version(server: ServerProcess) -> None:
    about = json.loads(get(server, "/dashboard/about")[2])
    assert f"/dashboard/{about['plotly']}" == PLOTLY
    status, headers, body = get(server, PLOTLY, Accept_Encoding="br, gzip")
    assert status == 200
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 2_000_000
    assert b"plotly.js" in gzip.decompress(body)[:200]
    assert get(server, PLOTLY, If_None_Match=headers["ETag"], Accept_Encoding="gzip")[0] == 304
    plain = get(server, PLOTLY)
    assert "Content-Encoding" not in plain[1]
    assert plain[2] == gzip.decompress(body)


async def ask_without_plotly(name: str) -> None:
    # Only here: it brings the client of aiohttp along, whose import is left out elsewhere.
    from aiohttp.test_utils import make_mocked_request

    dashboard = Dashboard(Samples(1, 1, 0.0), dict)
    (route,) = [route for route in dashboard.routes() if route.path == "/dashboard/{name}"]
    await route.handler(make_mocked_request("GET", f"/dashboard/{name}", match_info={"name": name}))


def test_without_the_extra_for_charts_the_answer_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.admin.dashboard.find_spec", lambda name: None)
    with pytest.raises(web.HTTPNotFound) as raised:
        asyncio.run(ask_without_plotly(Path(PLOTLY).name))
    assert raised.value.text is not None
    assert "fastchat[charts]" in raised.value.text


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/plotly-1.0.0.min.js",
        "/dashboard/nothing.js",
        "/dashboard/..%2f..%2fadmin.py",
        "/dashboard/../../pyproject.toml",
        "/dashboard/%2e%2e/%2e%2e/admin.py",
        "/dashboard//etc/passwd",
        "/dashboard/dashboard.html/",
    ],
)
def test_nothing_else_is_a_file(server: ServerProcess, path: str) -> None:
    status, _, body = get(server, path)
    assert status == 404
    assert len(body) < 100


def test_the_page_may_load_nothing_from_elsewhere_and_run_no_inline_script(server: ServerProcess) -> None:
    policy = get(server, "/dashboard/")[1]["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("style-src") == "'self' 'unsafe-inline'"
    assert rules.pop("img-src") == "'self' data:"
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_the_files_name_no_other_place_and_set_no_html() -> None:
    for name in FILES:
        text = (PROJECT / "router/web/dashboard" / name).read_text()
        places = set(re.findall(r"https?://[^\s\"'<>]+", text))
        assert places <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), name
        assert not re.search(r"<[^>]*\son[a-z]+=", text), name


@pytest.mark.parametrize("path", ["/", "/dashboard/", "/dashboard/samples", PLOTLY])
def test_a_domain_that_points_here_gets_nothing(server: ServerProcess, path: str) -> None:
    assert get(server, path, Host="evil.example")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(server: ServerProcess, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=10)
    connection.request(method, "/dashboard/samples")
    assert connection.getresponse().status == 405
    connection.close()


# -- Numbers --


def test_what_stays_the_same(server: ServerProcess) -> None:
    about = json.loads(get(server, "/dashboard/about")[2])
    assert about["settings"]["workers"] == 2
    assert about["bounds"] == {name: list(METRICS[name].bounds) for name in HISTOGRAMS}


def test_samples_tell_what_clients_did_and_then_only_what_is_new(server: ServerProcess) -> None:
    before = sum(samples(server)["server"].get('received_total{type="HELLO"}', [0]))
    with server.client() as client:
        client.send(hello())
        assert client.json()["type"] == "HELLO_ACK"
        wait_until(
            lambda: sum(samples(server)["server"].get('received_total{type="HELLO"}', [0])) == before + 1,
            "HELLO to be counted",
        )
        wait_until(
            lambda: samples(server)["server"].get("connections", [0])[-1] == 1, "the connection to be counted"
        )
    answer = samples(server)
    assert answer["step"] == 1
    assert answer["last"] == len(answer["times"]) > 0
    assert answer["times"] == sorted(answer["times"])
    last = answer["last"]
    new = samples(server, f"?step=1&after={last}")
    assert len(new["times"]) == new["last"] - last <= 2
    wait_until(lambda: samples(server)["last"] > last, "the next second")
    new = samples(server, f"?after={last}")
    assert len(new["times"]) == new["last"] - last <= 2
    assert new["times"][0] > answer["times"][-1]
    assert set(new["processes"]) == {"worker 0", "worker 1", "front 0", "supervisor"}
    for process in new["processes"].values():
        assert process["up"][0] == 1
        assert process["resident_bytes"][0] > 10_000_000


def test_a_poll_is_small(server: ServerProcess) -> None:
    last = samples(server)["last"]
    _, headers, body = get(server, f"/dashboard/samples?after={last}&events=0")
    assert len(body) < 6000
    assert headers["Cache-Control"] == "no-store"


def test_minutes_are_another_step(server: ServerProcess) -> None:
    answer = samples(server, "?step=60")
    assert answer["step"] == 60
    assert answer["latest"]["60"] == answer["last"] == len(answer["times"])
    assert answer["latest"]["1"] >= samples(server, "?step=1&after=1")["last"] - 2


@pytest.mark.parametrize(
    "query",
    [
        "step=2",
        "step=",
        "step=1.0",
        "after=-1",
        "after=x",
        "after=%C2%B2",
        "events=1e3",
        "after=" + "9" * 5000,
        "step=60&after=%00",
    ],
)
def test_what_is_no_number_is_told(server: ServerProcess, query: str) -> None:
    status, _, body = get(server, f"/dashboard/samples?{query}")
    assert status == 400
    assert body.startswith((b"step is", b"after is", b"events is"))
    assert len(body) < 100


@pytest.mark.slow
def test_a_killed_worker_is_told_at_once_and_only_once(run_dir: Path) -> None:
    with ServerProcess(run_dir, workers=1) as server:
        wait_until(lambda: up(server)[-1:] == [1], "a second in which the worker served")
        served = len(up(server))
        os.kill(server.child("worker 0"), signal.SIGKILL)
        wait_until(
            lambda: (
                [each["text"] for each in samples(server)["events"]]
                == ["worker 0 ended with signal SIGKILL", "worker 0 is back"]
            ),
            "both events",
        )
        answer = samples(server, "?events=1")
        assert [each["number"] for each in answer["events"]] == [2]
        (worker,) = [each for each in answer["now"]["processes"] if each["kind"] == "worker"]
        assert worker["restarts"] == 1
        assert worker["last_end"] == "signal SIGKILL"
        wait_until(lambda: 0 in up(server)[served:], "the second in which it was away")
        wait_until(lambda: up(server)[-1] == 1, "it to be back")


@pytest.mark.slow
def test_reasons_are_told_in_words(run_dir: Path) -> None:
    report = """
say("stats", stats={{"store_failing": options.index, "bad name 7_total": 3}})
"""
    with ServerProcess(run_dir, worker=FAKE_WORKER.format(boot="", served=report.format())) as server:
        wait_until(lambda: samples(server)["now"]["status"] == "degraded", "it to show")
        (reason,) = samples(server)["now"]["reasons"]
        assert reason.startswith("worker 1: its store can't write")
        # What the worker reports under a name that is none does no harm.
        wait_until(lambda: samples(server)["last"] > 1, "time to go on")
