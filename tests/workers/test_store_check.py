"""workers.store.check: each damage is found and told, and nothing else."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.workers.store_files import connect, shards
from tests.workers.store_tools import Damage, change, checked, overwrite, process, tool, truncate


def test_a_sound_directory(directory: Path) -> None:
    result = process("check", directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"{directory}: generation 1 for 3 workers; 10 users, 60 chats, 400 messages; no problem\n"
    )


def test_what_is_not_in_use_is_told(directory: Path) -> None:
    (directory / "shards-7").mkdir()
    result = tool("check", directory)
    assert result.returncode == 0
    assert result.stdout.splitlines()[1] == "shards-7: not in use, and removed at the next start"


def test_damage_is_exit_code_1(directory: Path) -> None:
    change(shards(directory)[1], "UPDATE users SET slot = (slot + 1) % 1024 WHERE number = 1")
    result = tool("check", directory)
    assert (result.returncode, result.stderr) == (1, "")
    problem, summary = result.stdout.splitlines()
    assert problem.startswith("shards-1/shard-1.db: user ")
    assert summary.endswith("; 1 problems")


def sql(statement: str) -> Damage:
    """Damage that a statement does to the file of worker 0."""
    return lambda directory: change(shards(directory)[0], statement)


def swap(directory: Path) -> None:
    first, second, _ = shards(directory)
    first.rename(directory / "aside")
    second.rename(first)
    (directory / "aside").rename(second)


#: A mailbox with messages that are not all acknowledged.
SOME_BOX = (
    "(SELECT number FROM users"
    " WHERE acknowledged_through < (SELECT max(seq) FROM messages WHERE mailbox = users.number) - 1 LIMIT 1)"
)
LAST = f"(SELECT max(seq) FROM messages WHERE mailbox = {SOME_BOX})"  # noqa: S608


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda directory: shards(directory)[0].unlink(), "the file is missing"),
        (lambda directory: os.truncate(shards(directory)[0], 0), "the file is empty: all data of the file is lost"),
        (lambda directory: shards(directory)[0].write_text("x" * 9999), "the file can't be read: file is not a database"),
        (lambda directory: os.truncate(shards(directory)[0], 50), "the file can't be read: "),
        (truncate, "malformed"),
        (overwrite, "the file can't be read: database disk image is malformed"),
        (swap, "belongs in shards-1/shard-"),
        (sql("DROP TABLE alembic_version"), "the file has none of FastChat's tables"),
        (sql("UPDATE alembic_version SET version_num = '9999'"), "the tables of the file have revision 9999, not 0"),
        (sql("DROP INDEX messages_by_mailbox_seq"), "the indexes messages_by_mailbox_seq are missing"),
        (sql("UPDATE users SET slot = 1023 - slot"), "instead of"),
        (
            sql(f"DELETE FROM messages WHERE mailbox = {SOME_BOX} AND seq = {LAST} - 1"),  # noqa: S608
            "1 of the positions ",
        ),
        (
            sql("DELETE FROM messages WHERE seq = (SELECT purged_through + 1 FROM users WHERE number = mailbox)"),
            "1 of the positions ",
        ),
        (sql(f"UPDATE users SET acknowledged_through = 1000 WHERE number = {SOME_BOX}"), "positions up to 1000 are acknowledged"),  # noqa: S608
        (sql(f"INSERT INTO acknowledged VALUES ({SOME_BOX}, 1000)"), "position 1000 is acknowledged in the mailbox of user "),  # noqa: S608
        (sql("INSERT INTO acknowledged VALUES (77, 1)"), "1 acknowledged positions belong to mailbox 77, whose user does not exist"),
        (
            sql("INSERT INTO chats (number, user, peer, peer_name, confirmed) VALUES (999, 77, 'x', 'X', 0)"),
            "a chat with x belongs to user number 77, who does not exist",
        ),
        (sql("INSERT INTO blocks VALUES (77, 'x', 1, 0, 0, 0)"), "a block of x belongs to user number 77, who does not exist"),
        (
            sql("INSERT INTO hook_calls VALUES (77, 'x', 1, 0)"),
            "a call of the hook about x belongs to user number 77, who does not exist",
        ),
        (
            sql("INSERT INTO messages SELECT 9999, 77, seq, 0, 1, '', '', 0, 0, 1 FROM messages LIMIT 1"),
            "1 messages are in mailbox 77, whose user does not exist",
        ),
        (
            sql("INSERT INTO messages SELECT 9999, -77, seq, 0, 1, '', '', 0, 0, 1 FROM messages LIMIT 1"),
            "1 messages are in mailbox -77, whose user does not exist",
        ),
        (
            sql("UPDATE messages SET chat = 999 WHERE mailbox = (SELECT min(mailbox) FROM messages)"),
            "belongs to chat number 999, which is not a chat of that user",
        ),
        (sql(f"UPDATE users SET summed_through = 1000 WHERE number = {SOME_BOX}"), "messages up to 1000 are counted in the chats of user "),  # noqa: S608
        (sql("UPDATE chats SET summed_through = 1000 WHERE number = 1"), "messages up to 1000 are counted in the chats of user "),
        (sql("UPDATE messages SET chat = 999 WHERE number = 1"), "belongs to chat number 999, which is not a chat of that user"),
        (
            sql("UPDATE messages SET chat = (SELECT number FROM chats WHERE user <> mailbox LIMIT 1), id_hash = 1 WHERE number = 1"),
            "which is not a chat of that user",
        ),
        (sql("UPDATE messages SET chat = 0 WHERE number = 1"), "is from a purged user and still has content"),
        (
            sql(f"UPDATE messages SET chat = 0, message_id = '', content = '' WHERE mailbox = {SOME_BOX} AND seq = {LAST}"),  # noqa: S608
            "is from a purged user and is not acknowledged",
        ),
    ],
)  # fmt: skip
def test_each_damage_is_found(directory: Path, damage: Damage, problem: str) -> None:
    damage(directory)
    found = checked(directory)
    assert any(problem in line for line in found), found
    assert all(line.startswith("shards-1/shard-") for line in found)


def test_much_damage_of_one_kind_is_not_told_line_by_line(directory: Path) -> None:
    change(shards(directory)[0], "UPDATE messages SET chat = 999 + number")
    found = checked(directory)
    assert len(found) == 11
    assert found[-1].endswith("more problems like the last one")


@settings(max_examples=examples(30), deadline=None, phases=(Phase.explicit, Phase.generate))
@example(3684, b"\x80")
@example(3445, b"[")
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=200))
def test_a_file_with_anything_in_it_is_at_most_damaged(
    original: Path, tmp_path_factory: pytest.TempPathFactory, offset: int, rubbish: bytes
) -> None:
    directory = shutil.copytree(original, tmp_path_factory.mktemp("damaged") / "data")
    path = shards(directory)[0]
    with path.open("r+b") as file:
        file.seek(offset % path.stat().st_size)
        file.write(rubbish)
    checked(directory)


def test_a_log_that_was_left_is_read(directory: Path, tmp_path: Path) -> None:
    with closing(connect(shards(directory)[0])) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE users SET slot = 1023 - slot WHERE number = 1")
        crashed = shutil.copytree(directory, tmp_path / "crashed", ignore=shutil.ignore_patterns("*-shm"))
    assert any("instead of" in line for line in checked(crashed))
