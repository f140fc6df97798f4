"""The files of a store with a commit log: copied as a kill would leave them, and read again."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from core.wire import codec
from tests.workers.store_driver import StoreDriver
from workers.store.log_record import Record
from workers.store.segment import segment_paths


def query(path: Path, sql: str) -> list[Any]:
    """What another program sees in the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def copied(path: Path, name: str) -> Path:
    """The files as they are now, as a killed process would leave them."""
    target = path.parent / name
    target.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copyfile(file, target / file.name)
    return target / path.name


def mailbox(path: Path, user_id: str = "bob") -> list[str]:
    """The ids of a user's messages, by position, as a store that is started on these files has them."""
    driver = StoreDriver("sqlite", path)
    try:
        user, ids = driver.loaded(user_id), list[str]()
        while window := driver.read(user, len(ids)):
            assert [message.seq for message in window] == list(
                range(len(ids) + 1, len(ids) + 1 + len(window))
            )
            ids += [message.message_id for message in window]
        assert user.mailbox.head == len(ids)
        return ids
    finally:
        driver.close()


def active(path: Path) -> Path:
    """The segment that was written to last."""
    (segment,) = [segment for segment in segment_paths(path) if segment.exists()]
    return segment


def user_record(user: int, name: str = "name") -> Record:
    """A record of the log about one user."""
    row = [user, f"user-{user}", 0, name, 0, "e", 0, 0, 0, 0]
    return Record(0, b"", 1, codec.to_json([[row], [], [], [], [], [], [], []]))


def users(path: Path) -> int:
    """How many users are in the file."""
    return int(query(path, "SELECT count(*) FROM users")[0][0])


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes: as good as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
