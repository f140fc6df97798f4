"""``python -m router``, which is also ``fastchat``: the server, and the operator's command line (``router.operator.cli``).

The server is started from here, without what only the command line needs. Its exit codes: 0 stopped in order, 2 something has to be
set right first, 3 a child can't boot.
"""

from __future__ import annotations

import os
import signal
import sys

#: The command that runs the server.
_SERVE = "serve"


def main() -> int:
    """Do what the command line says; the exit code."""
    # Until the supervisor handles signals nothing has been started, and Ctrl-C needs no traceback. Importing is most of that time.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_standard_descriptors()
    arguments = sys.argv[1:]
    if arguments[:1] == [_SERVE]:
        from router.supervisor.serve import serve

        return serve(arguments[1:])
    from router.operator.cli import run

    return run(arguments)


def _open_standard_descriptors() -> None:
    """Put the null device where standard input, output or error is closed.

    The next socket would get that number otherwise, and what is meant for people would be written to it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
