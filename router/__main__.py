"""``python -m router``: the server. Exit codes: 0 stopped in order, 2 something has to be set right first, 3 a child can't boot."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the server as the environment and the command line say; the exit code."""
    # Until the supervisor handles signals nothing has been started, and Ctrl-C needs no traceback. Importing is most of that time.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from router.supervisor import serve

    return serve(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
