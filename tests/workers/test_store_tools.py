"""Tests of the operator's tools: ``python -m workers.store check``, ``export``, ``purge`` and ``prepare``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.chat.chat import chat_id
from core.placement import Placement
from core.process import data_directory
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from tests.workers.process import PROJECT
from tests.workers.store_files import Content, connect, content, layout_of, shards
from tests.workers.store_tools import Damage, change, checked, overwrite, process, tool, truncate
from workers.store.check import check
from workers.store.data_directory import locked
from workers.store.export import export
from workers.store.prepare import prepare
from workers.store.purge import purge

#: Somebody who has never been here.
STRANGER = "00000000-0000-4000-8000-000000000000"


# -- export --


def exported(directory: Path, user: str) -> list[dict[str, Any]]:
    """The lines."""
    out = StringIO()
    export(directory, user, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def expected(everything: Content, user: str) -> set[tuple[str, str, str, int | None]]:
    """(from, to, message_id, seq) of all that a user has sent and received, and None for what was withheld from others."""
    sent_and_received = {
        (row[1], owner, row[3], row[0])
        for owner, box in everything.mailboxes.items()
        for row in box
        if user in (owner, row[1])
    }
    return sent_and_received | {
        (row[1], owner, row[3], None)
        for owner, box in everything.withheld.items()
        for row in box
        if user == row[1]
    }


def test_an_export_has_everything_by_time(directory: Path, users: list[str]) -> None:
    everything = content(directory)
    for user in users:
        lines = exported(directory, user)
        kinds = [line["type"] for line in lines]
        chats, blocked = (
            everything.chats[user],
            [peer for peer, by_user, *_ in everything.blocks[user] if by_user],
        )
        calls = everything.hook_calls[user]
        before = ["user", *["chat"] * len(chats), *["block"] * len(blocked), *["hook_call"] * len(calls)]
        assert kinds == before + ["message"] * (len(kinds) - len(before))
        assert lines[0] == {
            "type": "user",
            "user_id": user,
            "display_name": everything.users[user][1],
            "last_seen": lines[0]["last_seen"],
            "banned": False,
        }
        assert lines[0]["last_seen"].startswith("2026-01-01T00:00:00.")
        for line, (peer, name, *_, hidden, muted) in zip(lines[1:], chats, strict=False):
            assert line == {
                "type": "chat",
                "chat_id": chat_id(user, peer),
                "with_user_id": peer,
                "with_name": name,
                "hidden": bool(hidden),
                "muted": bool(muted),
            }
        assert lines[1 + len(chats) : len(before)] == [
            *({"type": "block", "blocked_user_id": peer} for peer in blocked),
            *(
                {
                    "type": "hook_call",
                    "with_user_id": peer,
                    "waits_since": "2026-01-01T00:00:00.000Z",
                    "next_attempt": due and "2026-01-01T00:00:01.000Z",
                }
                for peer, _, due in calls
            ),
        ]
        sent = lines[len(before) :]
        assert {(line["from"], line["to"], line["message_id"], line.get("seq")) for line in sent} == expected(
            everything, user
        )
        assert len(sent) == len(expected(everything, user))
        moments = [line["timestamp"] for line in sent]
        assert moments == sorted(moments)
        for line in sent:
            recipient = line["to"]
            if "seq" not in line:
                row = next(row for row in everything.withheld[recipient] if row[3] == line["message_id"])
                assert line == {**line, "content": row[4], "withheld": True}
                assert not line.keys() & {"read", "acknowledged"}
                continue
            row = next(row for row in everything.mailboxes[recipient] if row[0] == line["seq"])
            through, ahead = everything.users[recipient][4], everything.acknowledged[recipient]
            (read_through,) = [chat[6] for chat in everything.chats[recipient] if chat[0] == line["from"]]
            assert line["content"] == row[4]
            assert line["read"] is (row[0] <= read_through)
            assert line["acknowledged"] is (row[0] <= through or row[0] in ahead)
            assert "withheld" not in line


def test_what_people_write_is_exported_as_it_is(directory: Path, users: list[str]) -> None:
    strange = 'a\n"b"\\ \u2028 \u00e4 \U0001f600 </script>'
    for path in shards(directory):
        change(path, "UPDATE messages SET content = ?", strange)
    result = process("export", directory, users[0], LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.split("\n") if line]
    assert {line["content"] for line in lines if line["type"] == "message"} == {strange}


def test_an_export_does_nothing_to_a_terminal_that_shows_it(directory: Path, users: list[str]) -> None:
    """Controls and what turns text round come as JSON escapes, and are all there."""
    strange = "a\x7f\x9b31m\x85 \u202eb\u2066\u200f\u061c \U0001f469\u200d\U0001f680 \u00e4"
    for path in shards(directory):
        change(path, "UPDATE messages SET content = ?", strange)
    result = process("export", directory, users[0], PYTHONUTF8="1")
    assert set(re.findall(r"[^ -~\n]", result.stdout)) == set("\u200d\u00e4\U0001f469\U0001f680")
    lines = [json.loads(line) for line in result.stdout.split("\n") if line]
    assert {line["content"] for line in lines if line["type"] == "message"} == {strange}


def test_the_id_may_be_in_capitals(directory: Path, users: list[str]) -> None:
    assert exported(directory, users[0].upper()) == exported(directory, users[0])


def test_who_has_seen_enough_may_go(directory: Path, users: list[str]) -> None:
    for path in shards(directory):
        change(path, "UPDATE messages SET content = ?", "x" * 5000)
    with subprocess.Popen(
        [sys.executable, "-m", "workers.store", "export", str(directory), users[0]],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"type":"user"')
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2


# -- purge --


def purged_content(everything: Content, user: str) -> Content:
    """What must be left: for each message that the user has sent an empty row with its position and time, acknowledged."""
    left = Content(
        *({name: value for name, value in part.items() if name != user} for part in everything)  # type: ignore[arg-type]
    )
    for part in (left.chats, left.blocks, left.hook_calls):
        for other, rows in part.items():
            part[other] = [row for row in rows if row[0] != user]
    for other, box in left.withheld.items():
        left.withheld[other] = [row for row in box if row[1] != user]
    for other, box in left.mailboxes.items():
        through = left.users[other][4]
        gone = [row[0] for row in box if row[1] == user]
        left.mailboxes[other] = [
            (row[0], None, None, "", "", row[5], 0, row[7]) if row[1] == user else row for row in box
        ]
        ahead = {*left.acknowledged[other], *(seq for seq in gone if seq > through)}
        left.acknowledged[other] = sorted(ahead)
    return left


def without_hashes(everything: Content) -> Content:
    """Those of tombstones are random."""
    return everything._replace(
        mailboxes={
            user: [(*row[:2], None if row[1] is None else row[2], *row[3:]) for row in box]
            for user, box in everything.mailboxes.items()
        }
    )


def test_a_purged_user_is_gone_and_the_others_keep_everything_else(directory: Path, users: list[str]) -> None:
    before = content(directory)
    for user in users[:4]:
        assert f"user {user} is deleted: " in purge(directory, user)
        after = without_hashes(content(directory))
        assert after == purged_content(before, user)
        assert checked(directory) == []
        with pytest.raises(ConfigurationError, match=f"there is no user '{user}'"):
            exported(directory, user)
        before = after
    prepare(directory, 2)
    assert without_hashes(content(directory)) == before
    assert checked(directory) == []


def test_nothing_of_a_purged_user_is_left_on_the_disk(directory: Path, users: list[str]) -> None:
    """Neither in a log nor between the rows, where SQLite leaves what it deletes unless it is told otherwise."""
    user, secret = users[0], "a secret of the one who wants to be forgotten"
    everything = content(directory)
    for path in shards(directory):
        for statement in (
            "UPDATE messages SET content = ? || number, message_id = 'their-id' WHERE chat IN (SELECT number FROM chats WHERE peer = ?)",
            "UPDATE chats SET peer_name = ? WHERE peer = ?",
            "UPDATE users SET display_name = ? WHERE user_id = ?",
        ):
            with closing(connect(path)) as connection:
                connection.execute("PRAGMA secure_delete = OFF")
                connection.execute(statement, (secret, user))

    def anywhere(text: str) -> bool:
        return any(text.encode() in file.read_bytes() for file in directory.rglob("*") if file.is_file())

    assert anywhere(secret)
    assert anywhere("their-id")
    assert anywhere(user)
    assert everything.mailboxes[user]
    purge(directory, user)
    assert not anywhere(secret)
    assert not anywhere("their-id")
    assert not anywhere(user)


def test_a_purge_that_was_interrupted_is_repeated(
    directory: Path, users: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = purged_content(content(directory), users[0])
    from workers.store import purge as module

    class Kill(BaseException):
        pass

    def killed(*arguments: object) -> int:
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(module, "_purge_mailbox", killed)
        with pytest.raises(Kill):
            purge(directory, users[0])
    assert checked(directory) == []
    purge(directory, users[0])
    assert without_hashes(content(directory)) == expected


def test_the_tool_says_what_it_has_done(directory: Path, users: list[str]) -> None:
    everything = content(directory)
    user = users[3]
    received = len(everything.mailboxes[user])
    sent = len(expected(everything, user)) - received
    result = process("purge", directory, user.upper())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"user {user} is deleted: {received} messages received and {sent} sent; 6 people had a chat with this user\n"
    )


# -- What an operator may do wrong --


@pytest.mark.parametrize("name", ["check", "export", "purge"])
def test_wrong_directories_are_sentences(
    directory: Path, tmp_path: Path, users: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: dict[str, Callable[[Path], object]] = {
        "check": lambda path: check(path, StringIO()),
        "export": lambda path: export(path, users[0], StringIO()),
        "purge": lambda path: purge(path, users[0]),
    }

    def refused(path: Path) -> str:
        with pytest.raises(ConfigurationError) as refusal:
            run[name](path)
        sentence = str(refusal.value)
        assert str(path) in sentence
        assert "\n" not in sentence
        return sentence

    assert "No such file or directory" in refused(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "is no data directory of FastChat: it has no layout.json" in refused(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    assert refused(directory / "shards-1").endswith(f"did you mean {directory}?")
    (directory / "layout.json").write_text("{}")
    assert "`format` is missing, but this version of FastChat supports only 1" in refused(directory)


def test_unknown_users_are_sentences(directory: Path) -> None:
    for name in ("export", "purge"):
        result = tool(name, directory, STRANGER)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"fastchat: there is no user '{STRANGER}' in {directory}\n"


@pytest.mark.parametrize("damage", [truncate, overwrite, lambda directory: shards(directory)[0].unlink()])
def test_damaged_files_are_sentences(directory: Path, damage: Damage) -> None:
    layout = layout_of(directory)
    ids = content(directory).users
    there = next(user for user in ids if Placement(layout.workers).worker_of(user) == 0)
    damage(directory)
    for name in ("export", "purge"):
        result = tool(name, directory, there)
        assert result.returncode == 2, result
        assert result.stderr.startswith("fastchat: ")
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr


def test_a_damaged_file_is_found_before_a_purge_begins(directory: Path, users: list[str]) -> None:
    """Otherwise half of the files would be changed, and the other half can't be."""
    path = shards(directory)[2]
    user = next(user for user in users if Placement(3).worker_of(user) == 0)
    rest = path.read_bytes()
    path.write_bytes(b"rubbish" * 5000)
    with pytest.raises(ConfigurationError):
        purge(directory, user)
    path.write_bytes(rest)
    assert user in content(directory).users
    assert checked(directory) == []


@pytest.fixture
def served(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that a server uses: it has the lock, the files are open, and the last commits are in their logs."""
    monkeypatch.setattr(data_directory, "_PATIENCE", 0.05)
    opened = [connect(path) for path in shards(directory)]
    for connection in opened:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE users SET display_name = 'Fresh from the log'")
    with locked(directory):
        yield directory
    for connection in opened:
        connection.close()


def test_a_running_server_is_not_in_the_way_of_reading(served: Path, users: list[str]) -> None:
    assert checked(served) == []
    assert exported(served, users[0])[0]["display_name"] == "Fresh from the log"


def test_reading_is_not_in_the_way_of_a_running_server(served: Path, users: list[str]) -> None:
    with closing(connect(shards(served)[0])) as server:
        server.execute("PRAGMA busy_timeout = 0")

        class Out(StringIO):
            def write(self, text: str) -> int:
                server.execute("UPDATE users SET seen_at = seen_at + 1")
                return super().write(text)

        export(served, users[0], Out())


def test_purging_and_preparing_are_refused_while_a_server_runs(served: Path, users: list[str]) -> None:
    before = content(served)
    with pytest.raises(
        ConfigurationError, match=rf"{served} is in use by a server or a tool \(process {os.getpid()}\): stop"
    ):
        purge(served, users[0])
    result = process("prepare", served, "--workers", 2)
    assert (result.returncode, result.stdout) == (2, "")
    assert "is in use by a server or a tool" in result.stderr
    assert content(served) == before


def test_preparing_by_hand(directory: Path) -> None:
    before = content(directory)
    result = process("prepare", directory, "--workers", 5)
    assert (result.returncode, result.stdout) == (0, "")
    assert "from 3 to 5 workers: 100 % of 400 messages copied, 5 of 5 files finished" in result.stderr
    assert layout_of(directory) == Layout(2, 5)
    assert content(directory) == before


@pytest.mark.parametrize("workers", ["0", "65", "many", "-1", "1.5"])
def test_a_number_of_workers_that_is_none(directory: Path, workers: str) -> None:
    result = tool("prepare", directory, f"--workers={workers}")
    assert result.returncode == 2
    assert f"expected a number from 1 to 64, not '{workers}'" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([tool, "--help"] for tool in ("check", "export", "backup", "restore", "purge"))],
)
def test_help(arguments: list[str]) -> None:
    result = tool(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert "usage: python -m workers.store" in result.stdout
    assert "%" not in result.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission_is_a_sentence(directory: Path, users: list[str]) -> None:
    """In a process of its own that gives up being root: of this one, all later tests would lose it."""
    directory.chmod(0o700)
    program = (
        "import os, sys; from workers.store import check, export, purge; from workers.store.__main__ import main;"
        " import sqlalchemy.dialects.sqlite; os.setuid(65534); directory, user = sys.argv[1:]\n"
        "for tool in (['check'], ['export', user], ['purge', user]):\n"
        "    print(main([tool[0], directory, *tool[1:]]), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(directory), users[0]],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (0, "")
    sentence = f"fastchat: can't use the data directory {directory}: Permission denied\n2\n"
    assert result.stderr == 3 * sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_root_leaves_nothing_that_the_servers_user_cannot_open(directory: Path, users: list[str]) -> None:
    owner = 12345
    (directory / "lock").unlink(missing_ok=True)
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, owner, owner)
    assert checked(directory) == []
    purge(directory, users[0])
    prepare(directory, 2)
    assert {path.stat().st_uid for path in [directory, *directory.rglob("*")]} == {owner}


def test_ids_of_nobody_at_all(directory: Path) -> None:
    for user in ("", "'; DROP TABLE users; --", "%", str(uuid4()), "ä" * 100):
        with pytest.raises(ConfigurationError, match="there is no user"):
            export(directory, user, StringIO())
        with pytest.raises(ConfigurationError, match="there is no user"):
            purge(directory, user)
    assert checked(directory) == []
