"""Whatever is called, killed and torn, in any sequence: what was answered is there (D20)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.chat.store import nobody_waits
from core.chat.user import User
from tests.workers.log_files import copied
from tests.workers.store_driver import StoreDriver
from workers.store import commit_log, sqlite
from workers.store.log_record import decode
from workers.store.segment import segment_paths
from workers.store.sqlite import FOLD_AFTER

_USERS = ("bob", "carol")

_call = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(_USERS), st.integers(1, 5)),
    st.tuples(st.just("repeat"), st.sampled_from(_USERS)),
    st.tuples(st.just("acknowledge"), st.sampled_from(_USERS)),
    st.tuples(st.just("rename"), st.sampled_from(_USERS)),
    st.tuples(st.just("read"), st.sampled_from(_USERS)),
    st.tuples(st.just("fold")),
    st.tuples(st.just("kill")),
    st.tuples(st.just("power"), st.integers(0, 2**32)),
)


class Killed:
    """A store that is killed again and again, and loses its power; and what was answered, which must be there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "0" / "shard.db"
        self.path.parent.mkdir()
        self.generation = 0
        self.number = 0
        self.answered: dict[str, list[str]] = {"bob": [], "carol": []}
        self.acknowledged = dict.fromkeys(self.answered, 0)
        self.names: dict[str, str] = {}
        self.driver = StoreDriver("sqlite", self.path, durability="fsync")
        self.users: dict[str, User] = {}
        for user_id in self.answered:
            self.users[user_id] = self.driver.user(user_id)
            self.rename(user_id)

    def append(self, user_id: str, count: int) -> None:
        ids = [f"{self.number + index}" for index in range(count)]
        self.number += count
        self.driver.append(self.users[user_id], "alice", *ids)
        self.driver.settle()
        self.answered[user_id] += ids

    def repeat(self, user_id: str) -> None:
        if self.answered[user_id]:
            message_id = self.answered[user_id][self.number % len(self.answered[user_id])]
            self.driver.append(self.users[user_id], "alice", message_id)
            self.driver.settle()
            assert self.driver.log[-1] == (message_id, "repeat")

    def acknowledge(self, user_id: str) -> None:
        mailbox = self.users[user_id].mailbox
        if mailbox.acknowledged_through < len(self.answered[user_id]):
            mailbox.acknowledge(mailbox.acknowledged_through + 1)
            self.driver.store.save_acknowledged(self.users[user_id], nobody_waits)
            self.driver.settle()
            self.acknowledged[user_id] += 1

    def rename(self, user_id: str) -> None:
        self.number += 1
        self.names[user_id] = self.users[user_id].display_name = f"name {self.number}"
        self.driver.store.save_user(self.users[user_id], nobody_waits)
        self.driver.settle()

    def read(self, user_id: str) -> None:
        assert len(self.driver.read(self.users[user_id], 0)) == len(self.answered[user_id])

    def fold(self) -> None:
        self.driver.advance(FOLD_AFTER)
        self.driver.turn()
        self.driver.settle()

    def kill(self) -> None:
        """Everything that was written is there."""
        self.again()

    def power(self, torn: int) -> None:
        """What was written to a segment after the last answer is anything."""
        self.again(torn)

    def again(self, torn: int | None = None) -> None:
        self.generation += 1
        copy = copied(self.path, f"../{self.generation}")
        if torn is not None:
            for segment in segment_paths(copy):
                if segment.exists():
                    end = max((end for _, end in decode(segment.read_bytes())), default=0)
                    segment.write_bytes(segment.read_bytes()[:end] + torn.to_bytes(5, "big") * (torn % 9))
        self.driver.close()
        self.path = copy
        self.driver = StoreDriver("sqlite", copy, durability="fsync")
        for user_id, ids in self.answered.items():
            user = self.users[user_id] = self.driver.loaded(user_id)
            assert user.display_name == self.names[user_id]
            assert user.mailbox.acknowledged_through == self.acknowledged[user_id]
            assert [message.message_id for message in self.driver.read(user, 0)] == ids


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(calls=st.lists(_call, max_size=30))
def test_any_sequence_of_calls_and_kills(calls: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        # Segments are full after a few commits, and folds are small.
        patch.setattr(commit_log, "SEGMENT_BYTES", 2000)
        patch.setattr(commit_log, "SLICE_ROWS", 4)
        for module in (commit_log, sqlite):
            patch.setattr(module, "FOLD_ROWS", 8)
        killed = Killed(Path(directory))
        try:
            for name, *arguments in calls:
                getattr(killed, name)(*arguments)
            killed.kill()
        finally:
            killed.driver.close()
