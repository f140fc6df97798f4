"""``python -m router.supervisor.keeper``: keeps what the next supervisor needs if this one is killed. The supervisor starts it.

    supervisor ---- deposits, each in place of the one before: its state, and all that it has open ----> keeper

    supervisor is killed --> the keeper listens in the run directory --> the next start of the server gets the deposit,
                                          |                              and goes on with workers and fronts as they are
                                          +-- nobody comes in time, or who comes has other settings: the keeper ends

Among what the keeper has open are the supervisor's ends of the control pipes. So workers and fronts notice nothing: a child ends when its
control pipe does, which is when the last process has closed the other end. Therefore they end, too, when the keeper does, or is killed.

The process is to be small, so it imports next to nothing of ours, and it has no log: whoever gets the deposit tells what happened.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import setproctitle

from core.process.unix_sockets import peer_uid
from router.supervisor.deposit import (
    END,
    TAKEN,
    close_all,
    keeper_endpoint,
    receive_deposit,
    send_deposit,
)

#: Seconds in which whoever has got the deposit has to say what becomes of it.
_PATIENCE: Final = 10.0
#: What the supervisor sends to all its children, and this one does not want to know.
_CONTROL_BYTES: Final = 64 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep deposits until the supervisor has gone, and then the last one for a while."""
    # The supervisor decides what a signal of the terminal means.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m router.supervisor.keeper", description=__doc__)
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the control pipe")
    parser.add_argument(
        "--deposits", type=int, required=True, help="file descriptor of a socket for deposits"
    )
    parser.add_argument("--run-dir", required=True, help="directory in which to listen")
    parser.add_argument("--seconds", type=float, required=True, help="how long to keep the last deposit")
    options = parser.parse_args(arguments)
    setproctitle.setproctitle("fastchat: keeper")
    # What a deposit fails with ends this process, and the supervisor starts another.
    kept = _keep(socket.socket(fileno=options.control), socket.socket(fileno=options.deposits))
    if kept:
        path = keeper_endpoint(options.run_dir)
        with suppress(OSError):
            _hand_out(kept, path, time.monotonic() + options.seconds)
            os.unlink(path)
    return 0


def _keep(control: socket.socket, deposits: socket.socket) -> list[int]:
    """Receive deposits until the supervisor has gone; the last one."""
    kept: list[int] = []
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(deposits, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == control.fileno():
                with suppress(OSError):
                    if not control.recv(_CONTROL_BYTES):
                        poll.unregister(control)
                continue
            try:
                received = receive_deposit(deposits)
            except EOFError:
                return kept
            close_all(kept)
            kept = received


def _hand_out(kept: list[int], path: str, until: float) -> None:
    """Give what is kept to the first who comes in time and has a use for it. Raises OSError when nobody can come."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen()
        while (seconds := until - time.monotonic()) > 0:
            listener.settimeout(seconds)
            with suppress(OSError):  # the time is over, or who came has gone
                channel, _ = listener.accept()
                with channel:
                    if _hand_to(channel, kept):
                        return


def _hand_to(channel: socket.socket, kept: list[int]) -> bool:
    """Give what is kept to who has connected; whether nothing is to be kept any more. Raises OSError."""
    if peer_uid(channel) != os.geteuid():
        return False
    channel.settimeout(_PATIENCE)
    send_deposit(channel, kept)
    return channel.recv(1) in (TAKEN, END)


if __name__ == "__main__":
    sys.exit(main())
