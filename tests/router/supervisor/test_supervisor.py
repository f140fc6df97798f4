"""router.supervisor: supervisor, serve, children, and router.__main__: real servers, some with workers that misbehave."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from core.process.settings import Settings
from tests.router.front_process import hello, text, wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess, elapsed, wait_gone
from tests.system.harness import process_title


def fake(boot: str = "", served: str = "") -> str:
    """A worker's program."""
    return FAKE_WORKER.format(boot=boot, served=served)


# -- A server with flags, on all addresses, in a pod of Kubernetes, whose worker prints --


@pytest.fixture(scope="module")
def unusual() -> Iterator[ServerProcess]:
    """Shared by tests that only read what it wrote, or leave it as it was.

    A Service named `fastchat` puts FASTCHAT_PORT=tcp://... and others into each pod of its namespace.
    """
    links = {
        "FASTCHAT_SERVICE_HOST": "10.96.0.7",
        "FASTCHAT_SERVICE_PORT": "8000",
        "FASTCHAT_ADMIN_PORT_8001_TCP_ADDR": "10.96.0.8",
        "FASTCHAT_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    }
    worker = fake(boot="note(dict(os.environ))", served="print('stray', flush=True)")
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        ServerProcess(
            Path(name),
            "--workers",
            "1",
            "--user-ids=any",
            worker=worker,
            environment=links,
            user_ids="uuid4",
            host="0.0.0.0",
            auth="none",
        ) as server,
    ):
        yield server


def environment_of_worker(server: ServerProcess) -> dict[str, str]:
    """What the worker got."""
    environment: dict[str, str] = ast.literal_eval(server.notes(0)[1])
    return environment


def test_what_kubernetes_tells_of_a_service_of_our_name_is_ignored_with_one_line(
    unusual: ServerProcess,
) -> None:
    lines = [line for line in unusual.stderr().splitlines() if "Kubernetes" in line]
    assert len(lines) == 1
    assert "ignores 4 environment variables" in lines[0]
    inherited = [name for name in environment_of_worker(unusual) if name.startswith("FASTCHAT")]
    assert [name for name in inherited if "TCP" in name or "SERVICE" in name] == []


def test_flags_win_and_reach_the_children(unusual: ServerProcess) -> None:
    seen = Settings.handed_down(environment_of_worker(unusual))
    assert (seen.user_ids, seen.workers, seen.port) == ("any", 1, unusual.port)
    assert unusual.notes(1) == []


def test_what_children_print_does_not_get_between_the_ready_line(unusual: ServerProcess) -> None:
    wait_until(lambda: "stray" in unusual.stderr(), "it to be on standard error")


def test_d5_auth_none_on_all_addresses_is_a_warning(unusual: ServerProcess) -> None:
    assert "WARNING" in unusual.stderr()
    assert "FASTCHAT_AUTH is none" in unusual.stderr()
    assert unusual.line.startswith(f"fastchat ready: ws://0.0.0.0:{unusual.port}/ws ")


def test_without_a_store_there_is_no_data_directory(unusual: ServerProcess) -> None:
    assert not (unusual.directory / "data").exists()


def test_sighup_replaces_the_fronts_only_where_the_store_would_go_with_a_worker(
    unusual: ServerProcess,
) -> None:
    """The processes themselves are deaf to it, and the store in memory is not to be lost."""
    worker, front = unusual.status("worker 0")["pid"], unusual.child("front 0")
    os.killpg(unusual.process.pid, signal.SIGHUP)
    wait_until(lambda: "front 0 is a new process" in unusual.stderr(), "a line in the log")
    wait_until(lambda: front not in unusual.descendants(), "the old front to end")
    assert unusual.status("worker 0")["pid"] == worker
    assert unusual.child("front 0") != front


# -- The normal day --


def test_a_server_says_one_line_and_stops_in_order(directory: Path) -> None:
    with ServerProcess(directory, workers=2, fronts=2) as server:
        assert re.fullmatch(
            rf"fastchat ready: ws://localhost:{server.port}/ws admin http://localhost:{server.admin_port}"
            rf" workers=2 fronts=2 pid={server.process.pid}\n",
            server.line,
        )
        titles = sorted(server.descendants().values())
        assert titles == [f"fastchat: {name}" for name in ("front 0", "front 1", "worker 0", "worker 1")]
        cmdline = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert cmdline.rstrip(b"\0") == b"fastchat: supervisor"
        with server.client() as client:
            client.send(hello())
            assert client.json()["type"] == "HELLO_ACK"
            with server.client("::1") as lobby:
                lobby.send(text("PING"))
                assert lobby.json()["type"] == "PONG"
                before = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                assert lobby.closed() == (1001, "server is shutting down")
                while (frame := client.frame())[0] != 8:
                    assert frame[0] == 1
                assert frame[1][:2] == (1001).to_bytes(2, "big")
        assert server.wait() == 0
        assert elapsed(before) < 5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_stops_it(directory: Path, number: signal.Signals) -> None:
    with ServerProcess(directory, worker=fake()) as server:
        assert server.stop(number) == 0
    assert server.notes(0)[-1] == '{"op":"stop","code":1001,"reason":"server is shutting down"}'


@pytest.mark.slow
def test_ctrl_c_goes_to_the_whole_group_and_stops_it_in_order(directory: Path) -> None:
    with ServerProcess(directory) as server, server.client() as client:
        left = set(server.descendants())
        os.killpg(server.process.pid, signal.SIGINT)
        assert client.closed() == (1001, "server is shutting down")
        assert server.wait(left) == 0
        assert "Traceback" not in server.stderr()


@pytest.mark.slow
def test_a_child_that_still_boots_is_deaf_to_ctrl_c_too(directory: Path) -> None:
    """What the fake worker would not survive if it were not ignored from the first moment on."""
    with ServerProcess(directory, worker=fake()) as server:
        left = set(server.descendants())
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.wait(left) == 0
        for index in (0, 1):
            assert '"op":"stop"' in server.notes(index)[-1]


@pytest.mark.parametrize(
    "after", [0.3, *(pytest.param(after, marks=pytest.mark.slow) for after in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8))]
)
def test_a_signal_while_it_starts_ends_it_cleanly(directory: Path, after: float) -> None:
    """The times only spread the signal over the start; each is as good as any other.

    They count from when the process has its name: before that it is the interpreter that starts, and Ctrl-C gets its traceback.
    """
    server = ServerProcess(directory, worker=fake(boot="time.sleep(60)"))
    wait_until(lambda: "fastchat" in process_title(server.process.pid), "the server to run")
    time.sleep(after)
    code = server.stop(signal.SIGINT)
    assert code in (0, -signal.SIGINT)
    assert "Traceback" not in server.stderr()


@pytest.mark.slow
def test_who_presses_ctrl_c_again_and_again_does_not_wait_for_those_that_hang(directory: Path) -> None:
    with ServerProcess(directory, worker=fake(served="time.sleep(1000)")) as server:
        before = time.monotonic()
        left = set(server.descendants())

        def press() -> bool:
            server.process.send_signal(signal.SIGINT)
            return "again: ending all processes" in server.stderr()

        wait_until(press, "the server to hurry")
        assert server.wait(left) == 0
        assert elapsed(before) < 4


@pytest.mark.slow
def test_one_ctrl_c_that_comes_twice_is_one(directory: Path) -> None:
    """make passes on what its whole group has got already."""
    with ServerProcess(directory) as server, server.client() as client:
        left = set(server.descendants())
        for _ in range(2):
            os.kill(server.process.pid, signal.SIGINT)
        os.kill(server.process.pid, signal.SIGTERM)
        assert client.closed() == (1001, "server is shutting down")
        assert server.wait(left) == 0
        assert "again: ending all processes" not in server.stderr()


@pytest.mark.slow
def test_a_child_that_does_not_stop_is_killed(directory: Path) -> None:
    with ServerProcess(directory, worker=fake(served="time.sleep(1000)")) as server:
        assert server.stop() == 0
        assert "did not stop" in server.stderr()


@pytest.mark.slow
def test_the_data_directory_is_where_the_user_stood(directory: Path) -> None:
    (directory / "here").mkdir()
    with ServerProcess(directory, cwd=directory / "here", data_dir="my/data") as server:
        assert (directory / "here" / "my" / "data" / "layout.json").is_file()
        assert server.get("/status")[1]["settings"]["data_dir"] == str(directory / "here" / "my" / "data")


@pytest.mark.slow
def test_a_server_without_standard_descriptors_serves_as_any_other(directory: Path) -> None:
    """Otherwise the next sockets get their numbers, and the ready line and the log go to whoever is at the other end."""
    server = ServerProcess(
        directory, worker=fake(served="print('stray', flush=True)"), first="exec 0<&- 1>&- 2>&-;"
    )

    def ports() -> list[str]:
        return [path.name for path in server.temporary.glob("fastchat-*/*")]

    wait_until(lambda: bool(ports()), "the run directory to be there")
    server.port = int(ports()[0])
    with server.client() as client:
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"
    assert server.stop() == 0


# -- What dies is started again --


def test_a_killed_worker_is_back_at_once_and_the_others_hear_of_it(directory: Path) -> None:
    with ServerProcess(directory, workers=3, worker=fake(served="note('pid', os.getpid())")) as server:
        wait_until(lambda: len(server.notes(1)) == 2, "the note of worker 1")
        generation = int(server.notes(1)[0].split()[1])
        pid = int(server.notes(1)[1].split()[1])
        before = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(server.notes(1)) == 4, "worker 1 to be back")
        assert elapsed(before) < 2
        assert int(server.notes(1)[2].split()[1]) > generation
        generation_after = int(server.notes(1)[2].split()[1])
        gone = f'{{"op":"worker_gone","worker":1,"generation":{generation},"next":{generation_after}}}'
        wait_until(lambda: server.notes(0)[-1] == server.notes(2)[-1] == gone, "the others to hear of it")
        assert "worker 1" in server.stderr()
        assert "SIGKILL" in server.stderr()
        status = server.status("worker 1")
        assert status["restarts"] == 1
        assert status["last_end"] == "signal SIGKILL"
        assert status["state"] == "ready"


@pytest.mark.slow
def test_generations_are_unique(directory: Path) -> None:
    with ServerProcess(directory, workers=8, worker=fake()) as server:
        first = [int(server.notes(index)[0].split()[1]) for index in range(8)]
    again = directory / "again"
    again.mkdir()
    with ServerProcess(again, workers=8, worker=fake()) as server:
        second = [int(server.notes(index)[0].split()[1]) for index in range(8)]
    assert len({*first, *second}) == 16
    assert max(first) < min(second) < 2**64


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_front_that_ends_is_replaced_and_its_backlog_kept(directory: Path, number: signal.Signals) -> None:
    with ServerProcess(directory, worker=fake()) as server:
        old = server.child("front 0")
        os.kill(old, signal.SIGSTOP)
        # It cannot accept any more; these wait in the kernel.
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        os.kill(old, number)
        with suppress(ProcessLookupError):  # SIGKILL does not wait for this one
            os.kill(old, signal.SIGCONT)
        for client in waiting:
            client.settimeout(10)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = client.recv(4096)
            # One that stops in order has accepted what was there when it was woken, and says so.
            assert b" 200 " in answer or (number == signal.SIGTERM and b" 503 " in answer)
            client.close()
        wait_until(lambda: server.status("front 0")["pid"] not in (old, None), "a new front")


@pytest.mark.slow
def test_no_child_outlives_a_killed_supervisor_and_the_port_can_be_used_again(directory: Path) -> None:
    with ServerProcess(directory) as server:
        left = set(server.descendants())
        with server.client() as client:
            server.process.kill()
            server.process.wait()
            with ServerProcess(directory, port=server.port, admin_port=server.admin_port) as second:
                wait_gone(left, 1.0)
                assert client.ends()
                with second.client() as again:
                    again.send(hello(str(uuid4())))
                    assert again.json()["type"] == "HELLO_ACK"


# -- What cannot be started --


def test_a_worker_that_dies_at_boot_ends_the_server_with_3_and_without_a_loop(directory: Path) -> None:
    server = ServerProcess(directory, worker=fake(boot="sys.exit(7)"))
    code, logged = server.fails()
    assert code == 3
    assert re.search(r"^fastchat: worker \d could not start: it ended with exit code 7", logged, re.MULTILINE)
    assert len(server.notes(0)) <= 1
    assert len(server.notes(1)) <= 1


def test_a_worker_that_refuses_ends_the_server_with_2_and_its_reason(directory: Path) -> None:
    boot = "say('refused', reason='the disk is full'); sys.exit(2)"
    code, logged = ServerProcess(directory, worker=fake(boot=boot)).fails()
    assert code == 2
    assert re.search(r"^fastchat: worker \d refused to start: the disk is full$", logged, re.MULTILINE)


@pytest.mark.slow
def test_a_worker_that_cannot_boot_any_more_does_not_end_the_server(directory: Path) -> None:
    """It is tried again and again, and is back as soon as it can be."""
    boot = "if os.path.exists(os.path.join(notes, 'broken')): sys.exit(9)"
    with ServerProcess(directory, workers=1, worker=fake(boot=boot)) as server:
        (directory / "broken").touch()
        os.kill(
            next(pid for pid, name in server.descendants().items() if "front" not in name), signal.SIGKILL
        )
        wait_until(lambda: len(server.notes(0)) > 6, "several tries to start it again")
        (directory / "broken").unlink()
        wait_until(lambda: "worker 0 is back" in server.stderr(), "the worker to be back", timeout=30)


@pytest.mark.slow
def test_a_setting_that_does_not_exist_and_a_bad_value(directory: Path) -> None:
    code, logged = ServerProcess(directory, wrokers=3).fails()
    assert (code, logged) == (
        2,
        "fastchat: FASTCHAT_WROKERS is not a setting; did you mean FASTCHAT_WORKERS?\n",
    )
    code, logged = ServerProcess(directory, workers="many", port="x").fails()
    assert code == 2
    assert logged.count("fastchat: FASTCHAT_") == 2


@pytest.mark.slow
def test_origins_that_are_none(directory: Path) -> None:
    code, logged = ServerProcess(directory, allowed_origins="https://a.example/path").fails()
    assert code == 2
    assert "'https://a.example/path' is not an origin" in logged


@pytest.mark.slow
def test_a_taken_port_is_a_sentence_and_the_first_server_does_not_notice(directory: Path) -> None:
    (directory / "second").mkdir()
    with ServerProcess(directory) as server, server.client() as client:
        code, logged = ServerProcess(directory / "second", port=server.port).fails()
        assert code == 2
        assert logged == (
            f"fastchat: port {server.port} on 127.0.0.1 is taken: stop the other server,"
            " or choose another port with FASTCHAT_PORT\n"
        )
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"
        assert len(server.descendants()) == 3
        [line] = server.stderr().splitlines()
        assert "the core is" in line


@pytest.mark.slow
def test_a_taken_admin_port(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, logged = ServerProcess(directory, admin_port=port).fails()
    assert code == 2
    assert f"port {port} on 127.0.0.1 is taken" in logged
    assert "FASTCHAT_ADMIN_PORT" in logged


@pytest.mark.slow
def test_one_port_for_both(directory: Path) -> None:
    code, logged = ServerProcess(directory, port=18765, admin_port=18765).fails()
    assert code == 2
    assert "both 18765" in logged


@pytest.mark.slow
def test_a_data_directory_that_cannot_be_written_to(directory: Path) -> None:
    (directory / "file").touch()
    code, logged = ServerProcess(directory, data_dir=directory / "file" / "data").fails()
    assert code == 2
    assert f"can't write to the data directory {directory}/file/data: Not a directory" in logged


@pytest.mark.slow
def test_too_few_file_descriptors(directory: Path) -> None:
    code, logged = ServerProcess(directory, first="ulimit -n 256;").fails()
    assert code == 2
    assert "too few file descriptors: 256 are allowed" in logged


@pytest.mark.slow
def test_d5_other_machines_are_let_in_only_by_who_says_so(directory: Path) -> None:
    code, logged = ServerProcess(directory, host="0.0.0.0").fails()
    assert code == 2
    assert "FASTCHAT_AUTH=none" in logged


@pytest.mark.slow
def test_an_address_that_is_not_ours(directory: Path) -> None:
    code, logged = ServerProcess(directory, host="192.0.2.1", auth="none").fails()
    assert (code, "192.0.2.1 is not an address of this machine" in logged) == (2, True)


@pytest.mark.slow
def test_a_name_that_is_none(directory: Path) -> None:
    code, logged = ServerProcess(directory, host="no.such.name.invalid", auth="none").fails()
    assert (code, "'no.such.name.invalid' is neither an IP address nor a host name" in logged) == (2, True)


@pytest.mark.slow
def test_help(directory: Path) -> None:
    server = ServerProcess(directory, "--help")
    output, _ = server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert b"--workers" in output
    server.kill()


# -- Side by side --


@pytest.mark.slow
def test_two_servers_of_one_user_side_by_side(directory: Path) -> None:
    (directory / "second").mkdir()
    with ServerProcess(directory) as one, ServerProcess(directory / "second") as two:
        for server in (one, two):
            with server.client() as client:
                client.send(hello())
                assert client.json()["type"] == "HELLO_ACK"
