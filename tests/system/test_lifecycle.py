"""Starting and stopping: the ready line, signals, what keeps a server from starting, two of them side by side, and hard ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.started_processes import has_the_core_of_the_tests
from tests.system.harness import (
    PROJECT,
    READY,
    ChatClient,
    Server,
    ServerFailed,
    StartServer,
    clean_environment,
    ensure_installed,
    processes,
    run_async,
    user_on_worker,
    wait_until,
)
from tests.system.raw_client import RawClient
from tests.system.status import status

# -- In order --


def test_it_has_the_core_of_the_tests(server: Server) -> None:
    """So `make test-compiled` tests the compiled one, which is what `make run` starts by default."""
    assert has_the_core_of_the_tests(server.child("worker 0"))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "fronts"), [(1, 1), (8, 2)])
def test_one_ready_line(start_server: StartServer, workers: int, fronts: int) -> None:
    """Which says the truth: everybody can connect by then, and the processes are there."""
    server = start_server(workers=workers, fronts=fronts)
    output = server.output()
    assert len(READY.findall(output)) == 1
    ready = READY.search(output)
    assert ready is not None
    assert (ready["workers"], ready["fronts"]) == (str(workers), str(fronts))
    for index in range(workers):
        with RawClient.upgraded(server.port, user_on_worker(index, workers)) as client:
            client.hello()
    expected = [f"fastchat: worker {index}" for index in range(workers)]
    expected += [f"fastchat: front {index}" for index in range(fronts)]
    assert sorted(server.children().values()) == sorted(expected)
    assert {process["state"] for process in status(server)["processes"]} == {"ready"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping(tmp_path: Path, number: signal.Signals) -> None:
    """D28: clients are told 1001, greeted or not; exit 0; no process, no socket file, no run directory is left."""
    server = Server(tmp_path, workers=2, fronts=2)
    with server:
        run_dir = Path(status(server)["settings"]["run_dir"])
        assert run_dir.is_dir()
        assert run_dir.stat().st_mode & 0o777 == 0o700
        greeted = [RawClient.upgraded(server.port, user_on_worker(index, 2)) for index in (0, 1)]
        waiting, connected = RawClient.upgraded(server.port), RawClient.to(server.port)
        for client in greeted:
            client.hello()
        began = time.monotonic()
        os.kill(server.pid, number)
        for client in [*greeted, waiting]:
            code, reason = client.closed()
            assert (code, bool(reason)) == (1001, True)
            client.socket.close()
        assert server.wait() == 0
        assert time.monotonic() - began < 5.0
        connected.socket.close()
        with pytest.raises(ConnectionRefusedError):
            RawClient.to(server.port)
    assert not run_dir.exists()
    assert "Traceback" not in server.output()


@pytest.mark.slow
def test_ctrl_c_in_the_terminal(tmp_path: Path) -> None:
    """It reaches make and all processes at once, and still everything ends in order."""
    server = Server(tmp_path)
    with server:
        run_dir = Path(status(server)["settings"]["run_dir"])
        session = processes()[server.pid].session
        with RawClient.upgraded(server.port) as client:
            client.hello()
            os.killpg(session, signal.SIGINT)
            assert client.closed()[0] == 1001
        server.wait()
        assert [process for process in processes().values() if process.session == session] == []
    assert not run_dir.exists()
    assert "Traceback" not in server.output()


@pytest.mark.slow
def test_clients_that_do_not_listen_do_not_keep_it_from_stopping(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        deaf = [RawClient.upgraded(server.port) for _ in range(20)]
        for client in deaf:
            client.hello()
            client.send(b"\x81")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10.0
        for client in deaf:
            client.socket.close()
        server.kill()


# -- Side by side --


@pytest.mark.slow
@run_async
async def test_two_servers_side_by_side(start_server: StartServer) -> None:
    """With different ports and data directories they know nothing of each other."""
    first, second = start_server(), start_server()
    async with ChatClient(first.url) as alice, ChatClient(second.url) as bob:
        await alice.hello()
        await bob.hello()
        await alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        await alice.error("USER_NOT_FOUND")
        for client in (alice, bob):
            (user,) = (await client.receive("PRESENCE"))["users"]
            assert user["user_id"] == client.user_id
        assert first.stop() == 0
        await bob.send("PING")
        await bob.receive("PONG")
        first.kill()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["port", "admin_port"])
@run_async
async def test_a_second_server_on_the_same_port(start_server: StartServer, which: str) -> None:
    """It says so and exits 2; the first does not notice, and keeps all of its connections."""
    first = start_server()
    taken = {"port": first.port, "admin_port": int(first.admin_url.rpartition(":")[2])}[which]
    async with ChatClient(first.url) as alice, ChatClient(first.url) as bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        with pytest.raises(ServerFailed) as failure:
            start_server(**{which: taken})
        assert failure.value.exit_code == 2
        assert str(taken) in failure.value.output
        assert "Traceback" not in failure.value.output
        await alice.message(bob, "did you notice anything?")
        await bob.receive("MSG")
        for index in (0, 1):
            for _ in range(5):
                async with ChatClient(first.url, user_on_worker(index, 2)) as newcomer:
                    await newcomer.hello()
        assert len(status(first)["processes"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_half_taken(start_server: StartServer, host: str) -> None:
    """localhost is two addresses; one of them is enough to be refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken, pytest.raises(ServerFailed) as failure:
        start_server(port=taken.getsockname()[1])
    assert failure.value.exit_code == 2
    assert "Traceback" not in failure.value.output


@pytest.mark.slow
def test_the_same_port_again_at_once(tmp_path: Path) -> None:
    """Connections of the predecessor in TIME_WAIT are no reason to refuse."""
    with Server(tmp_path / "1") as server:
        port = server.port
        clients = [RawClient.upgraded(port) for _ in range(10)]
        for client in clients:
            client.hello()
    for client in clients:
        client.socket.close()
    with Server(tmp_path / "2", port=port) as server, RawClient.upgraded(port) as client:
        client.hello()


# -- What keeps it from starting --


def refused(tmp_path: Path, settings: Mapping[str, str], descriptors: int = 0) -> str:
    """Start it with these settings; it must say a sentence and exit 2. What it said."""
    ensure_installed()
    defaults = {"PORT": "0", "ADMIN_PORT": "0", "WORKERS": "2", "DATA_DIR": str(tmp_path / "data")}
    limit = f"ulimit -n {descriptors}; " if descriptors else ""
    result = subprocess.run(
        ["bash", "-c", f"{limit}exec .venv/bin/python -m router serve"],
        cwd=PROJECT,
        env=clean_environment()
        | {f"FASTCHAT_{name}": value for name, value in {**defaults, **settings}.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 2, said
    assert "Traceback" not in said
    assert "ready" not in said
    assert 20 < len(said) < 600
    return said


@pytest.mark.slow
def test_an_unknown_setting(tmp_path: Path) -> None:
    said = refused(tmp_path, {"WORKRES": "2"})
    assert "FASTCHAT_WORKRES" in said
    assert "FASTCHAT_WORKERS" in said, "it knows what was meant"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("WORKERS", "65"),
        ("WORKERS", "many"),
        ("FRONTS", "0"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("USER_IDS", "emails"),
        ("AUTH", "magic"),
        ("PRESENCE", "nobody"),
        ("STORE", "paper"),
        ("MESSAGES_PER_MINUTE", "-1"),
        ("LOG_LEVEL", "loud"),
        ("HOST", "no.such.host.invalid"),
        ("HOST", "192.0.2.1"),
        ("ALLOWED_ORIGINS", "example.com/path"),
    ],
)
def test_a_bad_value(tmp_path: Path, name: str, value: str) -> None:
    assert f"FASTCHAT_{name}" in refused(tmp_path, {name: value})


@pytest.mark.slow
def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    assert "192.0.2.1" in refused(tmp_path, {"HOST": "192.0.2.1", "AUTH": "none"})


@pytest.mark.slow
def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(tmp_path, {"DATA_DIR": str(tmp_path / "file" / "data")})
    assert "FASTCHAT_DATA_DIR" in said
    assert str(tmp_path / "file" / "data") in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["file/run", "x" * 120])
def test_a_run_directory_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert "FASTCHAT_RUN_DIR" in refused(tmp_path, {"RUN_DIR": str(tmp_path / name)})


@pytest.mark.slow
def test_too_few_file_descriptors(tmp_path: Path) -> None:
    said = refused(tmp_path, {}, descriptors=64)
    assert "descriptors" in said
    assert "64" in said


# -- The hard way --


@pytest.mark.slow
def test_the_supervisor_is_killed(start_server: StartServer) -> None:
    """Without time for another one, no child outlives it: clients are let go, and the port is free for the next server."""
    server = start_server(workers=3, fronts=2, takeover_seconds=0)
    children = [process for process in processes().values() if process.pid in server.children()]
    assert len(children) == 5
    with RawClient.upgraded(server.port) as client:
        client.hello()
        os.kill(server.pid, signal.SIGKILL)

        def gone() -> bool:
            running = processes()
            return not any(
                running.get(child.pid, child)[:2] == child[:2] and child.pid in running for child in children
            )

        wait_until(gone, "the children to end", timeout=3.0)
        client.until_end()
    with RawClient.upgraded(start_server(port=server.port).port) as client:
        client.hello()


@pytest.mark.slow
@run_async
async def test_a_worker_that_cannot_boot_again(tmp_path: Path) -> None:
    """It is tried again and again, its users are told 1013 after 10 s, and the others do not notice (D28).

    The fault: something that can't be replaced stands where the worker wants to listen.
    """
    with Server(tmp_path) as server:
        endpoint = Path(status(server)["settings"]["run_dir"]) / "handover-1"
        async with ChatClient(server.url, user_on_worker(0, 2)) as healthy:
            await healthy.hello()
            endpoint.unlink()
            endpoint.mkdir()
            os.kill(server.child("worker 1"), signal.SIGKILL)
            async with ChatClient(server.url, user_on_worker(1, 2)) as waiting:
                await waiting.send("HELLO", user_id=waiting.user_id, display_name="Waiting")
                code, reason = await waiting.expect_close(timeout=20.0)
                assert (code, bool(reason)) == (1013, True)
            assert "worker 1 refused" in server.output()
            assert "Traceback" not in server.output()
            await healthy.drain()
            endpoint.rmdir()
            async with ChatClient(server.url, user_on_worker(1, 2), "Back again") as back:
                await back.hello()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory someone else's")
def test_a_data_directory_of_another_user_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    """It ends with 2 and a sentence, before anything is made there."""
    data = tmp_path / "server-0" / "data"
    data.mkdir(parents=True, mode=0o700)
    os.chown(data, 12_345, 12_345)
    with pytest.raises(ServerFailed) as failed:
        start_server()
    assert failed.value.exit_code == 2
    assert (
        f"the data directory {data} belongs to another user, 12345, and the server runs as root"
        in failed.value.output
    )
    assert os.listdir(data) == []
