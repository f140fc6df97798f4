"""Tests of router.admin.port, in a real server and by themselves."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.process.settings import ConfigurationError
from router.admin.port import HOSTS_SETTING, AdminServer
from router.guarded_port import parse_hosts
from tests.router.front_process import hello, wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        ServerProcess(Path(name), workers=2) as server,
    ):
        yield server


def test_health(server: ServerProcess) -> None:
    assert server.get("/healthz") == (200, {"status": "ok"})


def test_the_status_shows_every_process_and_its_numbers(server: ServerProcess) -> None:
    with server.client() as client:
        client.send(hello())
        assert client.json()["type"] == "HELLO_ACK"
        wait_until(
            lambda: server.status("front 0")["stats"].get("front_adopted_total", 0) >= 1,
            "the front's numbers",
        )
    code, status = server.get("/status")
    assert code == 200
    assert status["status"] == "ok"
    assert status["pid"] == server.process.pid
    assert status["settings"]["port"] == server.port
    assert status["settings"]["workers"] == 2
    assert [(each["kind"], each["index"]) for each in status["processes"]] == [
        ("worker", 0),
        ("worker", 1),
        ("front", 0),
    ]
    for each in status["processes"]:
        assert each["state"] == "ready"
        assert each["pid"] in server.descendants()
        assert each["uptime"] > 0
        assert each["restarts"] == 0
        assert each["last_end"] is None
    generations = [each["generation"] for each in status["processes"] if each["kind"] == "worker"]
    assert len(set(generations)) == 2


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8001", 200),
        ("127.0.0.1:8001", 200),
        ("127.9.9.9", 200),
        ("[::1]:8001", 200),
        ("evil.example:8001", 403),
        ("localhost.evil.example", 403),
        ("192.0.2.1", 403),
        ("", 403),
        ("local host", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(server: ServerProcess, host: str, status: int) -> None:
    for path in ("/status", "/healthz", "/readyz", "/nothing"):
        code, body = server.get(path, Host=host)
        assert code == (404 if status == 200 and path == "/nothing" else status)
        if status == 403:
            assert "pid" not in body


@pytest.mark.parametrize(
    ("admin_host", "host", "own"),
    [
        ("localhost", "admin.example", False),
        ("admin.example", "admin.example:8001", True),
        ("Admin.Example", "admin.example", True),
        ("0.0.0.0", "192.0.2.1:8001", True),
        ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "evil.example", False),
        ("127.0.0.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("localhost", "", False),
        ("0.0.0.0", "fastchat:8001", True),
        ("localhost", "FastChat.Example.com", True),
        ("localhost", "evil.fastchat.example.com", False),
    ],
)
def test_which_names_are_this_machine(admin_host: str, host: str, own: bool) -> None:
    names = parse_hosts(HOSTS_SETTING, " fastchat, FASTCHAT.example.com,")
    assert AdminServer(admin_host, [], dict, names=names).is_own_host(host) is own


@pytest.mark.parametrize("entry", ["fastchat:8001", "http://fastchat", "*", "fast chat", "[::1"])
def test_what_is_no_name_of_a_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="FASTCHAT_ADMIN_HOSTS"):
        parse_hosts(HOSTS_SETTING, f"localhost,{entry}")


@pytest.mark.parametrize(
    ("request_line", "hosts", "status"),
    [
        ("GET /healthz HTTP/1.0", [], 200),  # haproxy's `option httpchk`, and other probes
        ("OPTIONS / HTTP/1.0", [], 204),
        ("OPTIONS /readyz HTTP/1.0", [], 200),
        ("OPTIONS /nothing HTTP/1.0", [], 404),
        ("POST /readyz HTTP/1.0", [], 405),
        ("GET /healthz HTTP/1.0", ["localhost"], 200),
        ("GET /healthz HTTP/1.0", ["evil.example"], 403),
        ("GET /healthz HTTP/1.1", [], 400),
        ("GET /healthz HTTP/1.1", ["localhost", "localhost"], 400),
        ("GET /healthz HTTP/1.0", ["localhost", "evil.example"], 400),
    ],
)
def test_a_probe_without_host_is_no_browser(
    server: ServerProcess, request_line: str, hosts: list[str], status: int
) -> None:
    """RFC 9112, 3.2: only HTTP/1.1 has to have one."""
    head = "\r\n".join([request_line, *(f"Host: {host}" for host in hosts), "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", server.admin_port), 10) as probe:
        probe.sendall(head.encode())
        answer = probe.makefile("rb").read()
    assert int(answer.split()[1]) == status


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/status", "localhost"),
        ("/healthz", "localhost"),
        ("/nothing", "localhost"),
        ("/status", "evil.example"),
    ],
)
def test_no_page_of_another_origin_may_take_an_answer_in(server: ServerProcess, path: str, host: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=10)
    connection.request("GET", path, headers={"Host": host, "Origin": "http://evil.example"})
    headers = connection.getresponse().headers
    connection.close()
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_only_reads(server: ServerProcess, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=10)
    connection.request(method, "/status", headers={"Host": "localhost"})
    assert connection.getresponse().status == 405
    connection.close()


@pytest.mark.slow
def test_a_process_that_is_away_shows(run_dir: Path) -> None:
    with ServerProcess(run_dir, workers=1) as server:
        stopped = server.child("worker 0")
        os.kill(stopped, signal.SIGKILL)
        wait_until(lambda: server.status("worker 0")["restarts"] == 1, "the restart to show")
        wait_until(lambda: server.get("/healthz")[1] == {"status": "ok"}, "the worker to be back")
        status = server.status("worker 0")
        assert status["last_end"] == "signal SIGKILL"
        assert status["pid"] != stopped


def test_a_worker_whose_store_fails_degrades_the_server(run_dir: Path) -> None:
    """It still runs and serves what it can, so nothing but this tells."""
    report = """
def report(failing):
    say("stats", stats={{"store_failing": failing}})
report(options.index)
while not os.path.exists(os.path.join(notes, "mended")):
    time.sleep(0.01)
report(0)
"""
    with ServerProcess(run_dir, worker=FAKE_WORKER.format(boot="", served=report.format())) as server:
        wait_until(lambda: server.get("/healthz") == (200, {"status": "degraded"}), "it to show")
        assert server.get("/status")[1]["status"] == "degraded"
        failing = server.status("worker 1")
        assert failing["state"] == "ready"
        assert failing["stats"]["store_failing"] == 1
        assert failing["problem"].startswith("its store can't write")
        assert server.status("worker 0")["problem"] is None
        (run_dir / "mended").touch()
        wait_until(lambda: server.get("/healthz") == (200, {"status": "ok"}), "it to be over")
        assert server.status("worker 1")["problem"] is None


def ready(server: ServerProcess) -> tuple[int, list[str]]:
    """What `/readyz` says."""
    code, answer = server.get("/readyz")
    assert answer["ready"] is (code == 200)
    return code, answer["reasons"]


def test_ready(server: ServerProcess) -> None:
    assert server.get("/readyz") == (200, {"ready": True, "reasons": []})


def test_a_server_that_starts_is_alive_but_not_ready(run_dir: Path) -> None:
    """However long it takes: who restarts what is not alive would make it begin again."""
    boot = "while not os.path.exists(os.path.join(notes, 'go')): time.sleep(0.01)"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = ServerProcess(run_dir, worker=FAKE_WORKER.format(boot=boot, served=""), admin_port=port)
    server.admin_port = port

    def starts() -> bool:
        try:
            return "worker 1: it is starting" in ready(server)[1]
        except ConnectionRefusedError:
            return False

    wait_until(starts, "the admin port to answer")
    assert ready(server)[0] == 503
    assert ready(server)[1][0] == "the server is starting"
    assert server.get("/healthz") == (200, {"status": "starting"})
    (run_dir / "go").touch()
    with server:
        assert ready(server) == (200, [])


@pytest.mark.slow
def test_a_server_that_stops_is_neither(run_dir: Path) -> None:
    with ServerProcess(run_dir, worker=FAKE_WORKER.format(boot="", served="time.sleep(1000)")) as server:
        left = set(server.descendants())
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ready(server)[0] == 503, "it to stop")
        assert ready(server)[1][0] == "the server is stopping"
        assert server.get("/healthz") == (503, {"status": "stopping"})
        assert server.wait(left) == 0


@pytest.mark.slow
def test_workers_that_have_not_heard_each_other_keep_the_server_from_being_ready(run_dir: Path) -> None:
    """The ready line waits for them; but not for ever, since most users could be served."""
    boot = 'say("stats", stats={"bus_unheard": 1})'
    with ServerProcess(run_dir, worker=FAKE_WORKER.format(boot=boot, served="")) as server:
        code, reasons = ready(server)
        assert code == 503
        assert [reason[:32] for reason in reasons] == [
            "worker 0: it has not heard from ",
            "worker 1: it has not heard from ",
        ]
        assert server.get("/healthz") == (200, {"status": "degraded"})
