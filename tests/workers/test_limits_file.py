"""workers.limits_file: what is left for the next process; no file stops a start (D23)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from core.chat.kept_limits import Moment, encode
from workers import limits_file
from workers.limits_file import moment, read_limits, write_limits


def test_d23_what_is_written_is_read_by_whoever_starts(tmp_path: Path) -> None:
    write_limits(tmp_path, 0, {"ann": [[5.0, 1.0], [], [], [2.0], []]})
    write_limits(tmp_path, 7, {"bob": [[3.0]]})
    assert read_limits(tmp_path) == {
        "ann": [pytest.approx([5.0, 1.0], abs=1.0), [], [], pytest.approx([2.0], abs=1.0), []],
        "bob": [pytest.approx([3.0], abs=1.0)],
    }
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_nothing_to_keep_leaves_nothing(tmp_path: Path) -> None:
    write_limits(tmp_path, 0, {"ann": [[5.0]]})
    write_limits(tmp_path, 0, {})
    assert not list(tmp_path.iterdir())


def test_d23_what_is_old_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_limits(tmp_path, 0, {"ann": [[5.0]]})
    now = moment()
    monkeypatch.setattr(limits_file, "moment", lambda: Moment(now.boot, now.uptime + 61.0, now.wall))
    assert read_limits(tmp_path) == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["empty", "half", "binary", "link", "directory", "fifo"])
def test_d23_a_damaged_file_is_passed_over(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_limits(tmp_path, 1, {"bob": [[3.0]]})
    path = tmp_path / "limits-0.json"
    whole = encode({"ann": [[1.0]]}, moment())
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(whole[: len(whole) // 2])
        case "binary":
            path.write_bytes(os.urandom(1000))
        case "link":
            (tmp_path / "elsewhere").write_bytes(whole)
            path.symlink_to(tmp_path / "elsewhere")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    assert list(read_limits(tmp_path)) == ["bob"]
    assert "can't read what counts against limits" in caplog.text
    write_limits(tmp_path, 0, {"ann": [[1.0]]})
    assert read_limits(tmp_path).keys() >= {"bob"}


def test_d23_a_directory_that_is_gone_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_limits(tmp_path / "gone", 0, {"ann": [[1.0]]})
    assert "can't keep what counts against limits" in caplog.text
    assert read_limits(tmp_path / "gone") == {}


def test_uptime_goes_on() -> None:
    before = moment()
    time.sleep(0.01)
    assert 0.0 < moment().seconds_since(before) < 60.0
