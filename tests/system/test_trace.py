"""Reading traces: what strace writes, and the order of writes and syncs that makes a message safe."""

from __future__ import annotations

import re
from typing import Final

from tests.system.trace import Call, Safe, frames, read_calls, safe_since

LOG: Final = "/data/shard-0.db-wal"
MARKER: Final = re.compile(rb"<[a-z]+>")
LONGEST: Final = 16


class Disk:
    """Makes the calls by which SQLite writes its log."""

    def __init__(self, log: str = LOG) -> None:
        self.log = log
        self.calls: list[Call] = []
        self.offset = 32

    def put(self, data: bytes, *, at: int | None = None) -> None:
        """Write at the end, or somewhere."""
        number = len(self.calls)
        self.calls.append(
            Call("pwrite64", self.log, number, number, len(data), data, self.offset if at is None else at)
        )
        if at is None:
            self.offset += len(data)

    def page(self, content: bytes, *, commits: bool) -> None:
        """A page of the database and its header; the last one of a commit says how large the database is."""
        self.put(b"\0\0\0\7" + (b"\0\0\0\x09" if commits else bytes(4)) + bytes(16))
        self.put(content.ljust(64, b"\0"))

    def sync(self, *, began: int | None = None, result: int = 0) -> None:
        number = len(self.calls)
        self.calls.append(
            Call("fdatasync", self.log, number if began is None else began, number, result, b"", 0)
        )

    def safe(self) -> dict[bytes, Safe | None]:
        return safe_since(self.calls, MARKER, LONGEST)


# -- What strace writes --


def test_a_whole_call() -> None:
    (call,) = read_calls([r'4711  pwrite64(11</data/shard-0.db-wal>, "ab\0\33\"c", 6, 4152) = 6'])
    assert call == Call("pwrite64", LOG, 0, 0, 6, b'ab\0\x1b"c', 4152)


def test_a_call_that_another_thread_interrupts() -> None:
    lines = [
        "1 fdatasync(11</data/shard-0.db-wal> <unfinished ...>",
        '2 write(9<socket:[9]>, "hello", 5 <unfinished ...>',
        "1 <... fdatasync resumed>)  = 0",
        "2 <... write resumed>) = 3",
    ]
    sync, write = read_calls(lines)
    assert sync == Call("fdatasync", LOG, 0, 2, 0, b"", 0)
    assert write == Call("write", "socket:[9]", 1, 3, 3, b"hel", 0)


def test_a_call_that_failed() -> None:
    (call,) = read_calls(["1 fdatasync(11</data/shard-0.db-wal>) = -1 EIO (Input/output error) (INJECTED)"])
    assert call.result == -1


def test_a_write_of_several_pieces() -> None:
    line = '1 writev(9<socket:[12]>, [{iov_base="ab", iov_len=2}, {iov_base="c)= 1", iov_len=5}], 2) = 7'
    (call,) = read_calls([line])
    assert call.data == b"abc)= 1"


def test_a_message_of_several_pieces() -> None:
    line = (
        '1 sendmsg(9<socket:[9]>, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="ab", '
        'iov_len=2}, {iov_base="c", iov_len=1}], msg_iovlen=2, msg_controllen=0, msg_flags=0}, 0) = 3'
    )
    (call,) = read_calls([line])
    assert (call.target, call.data) == ("socket:[9]", b"abc")


def test_other_lines() -> None:
    lines = [
        "1 --- SIGTERM {si_signo=SIGTERM} ---",
        "1 +++ exited with 0 +++",
        "",
        "1 <... fsync resumed>) = 0",
    ]
    assert list(read_calls(lines)) == []


# -- What is safe --


def test_safe_behind_the_sync() -> None:
    disk = Disk()
    disk.page(b"<a>", commits=True)
    disk.sync()
    assert disk.safe() == {b"<a>": Safe(LOG, 2)}


def test_not_safe_without_a_sync() -> None:
    disk = Disk()
    disk.page(b"<a>", commits=True)
    assert disk.safe() == {b"<a>": None}


def test_not_safe_by_a_sync_that_began_before() -> None:
    disk = Disk()
    disk.page(b"<a>", commits=True)
    disk.sync(began=0)
    disk.sync()
    assert disk.safe() == {b"<a>": Safe(LOG, 3)}


def test_not_safe_by_a_sync_that_failed() -> None:
    disk = Disk()
    disk.page(b"<a>", commits=True)
    disk.sync(result=-1)
    assert disk.safe() == {b"<a>": None}


def test_not_safe_by_the_sync_of_another_file() -> None:
    disk, other = Disk(), Disk("/data/shard-1.db-wal")
    disk.page(b"<a>", commits=True)
    other.calls = disk.calls
    other.sync()
    assert disk.safe() == {b"<a>": None}


def test_not_safe_before_the_end_of_the_commit() -> None:
    disk = Disk()
    disk.page(b"<a>", commits=False)
    disk.sync()
    disk.page(b"", commits=True)
    disk.sync()
    assert disk.safe() == {b"<a>": Safe(LOG, 5)}


def test_a_text_that_is_written_again_is_safe_since_the_first_time() -> None:
    """Each later message brings the page with it again."""
    disk = Disk()
    disk.page(b"<a>", commits=True)
    disk.sync()
    disk.page(b"<b><a>", commits=True)
    assert disk.safe() == {b"<a>": Safe(LOG, 2), b"<b>": None}


def test_a_text_in_two_writes() -> None:
    disk = Disk()
    disk.put(bytes(4) + b"\0\0\0\x09" + bytes(16))
    disk.put(b"......<lo")
    disk.put(b"ng>...")
    assert disk.safe() == {b"<long>": None}


def test_a_log_that_begins_anew() -> None:
    """After a checkpoint it is written from its beginning on, and what stood there does not count."""
    disk = Disk()
    disk.page(b"<a>", commits=True)
    disk.page(b"<b>", commits=True)
    disk.sync()
    disk.offset = 32
    disk.page(b"<c>", commits=True)
    assert disk.safe() == {b"<a>": Safe(LOG, 4), b"<b>": Safe(LOG, 4), b"<c>": None}


# -- What a client is shown --


def test_frames() -> None:
    """Whole, in pieces, several at once; what counts is where the first byte was written."""
    long = b"\x81\x7e\x01\x00" + b"x" * 256

    def write(began: int, data: bytes, socket: int = 5) -> Call:
        return Call("write", f"socket:[{socket}]", began, began, len(data), data, 0)

    calls = [write(1, b"\x81\x01a\x81\x01b\x81"), write(2, b"\x01"), write(3, b"c"), write(4, b"\x8a\x00")]
    calls += [write(5, b"\x81\x01z", 6), write(6, long[:100]), write(7, long[100:] + b"\x81\x01d")]
    calls += [write(8, b"\x00\x01z", 7), Call("write", LOG, 9, 9, 3, b"\x81\x01z", 0)]
    assert frames(calls) == {
        "socket:[5]": [(b"a", 1), (b"b", 1), (b"c", 1), (b"", 4), (b"x" * 256, 6), (b"d", 7)],
        "socket:[6]": [(b"z", 5)],
    }
