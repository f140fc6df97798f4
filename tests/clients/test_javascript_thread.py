"""The order of messages on the chat page is the server's (D14), whatever their times say."""

from __future__ import annotations

import subprocess

from tests.clients.node import HERE, WEB, node


def test_d14_the_page_has_the_order_of_history() -> None:
    """Pages of any size, live messages, and the newest page again; the clock was put back by five hours in the middle."""
    result = subprocess.run(
        [node(), str(HERE / "thread.mjs"), (WEB / "thread.js").as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
