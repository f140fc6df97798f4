"""``make run``: start the server on the compiled core, or on the sources if it can't be compiled. ``python -m scripts.serve COMPILED``

COMPILED is the parameter of `make run`: empty for what is possible, 0 for the sources, 1 for the compiled core or nothing. Further
arguments are those of ``fastchat serve``, which replaces this process, so that signals and exit codes are the server's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import NoReturn

from router.supervisor.build import CORE_COMMAND, PURE_CORE_ADVICE


def main() -> int:
    """Become the server; the exit code if there is nothing to start."""
    choice, arguments = sys.argv[1], sys.argv[2:]
    serve = [sys.executable, "-m", "router", "serve", *arguments]
    # Whoever stops a server whose core is still being compiled has stopped it: that is no failure. A shell starts what runs in its
    # background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    environment = dict(os.environ)
    if choice == "0":
        environment[PURE_CORE_ADVICE] = "leave out COMPILED=0, and `make run` compiles the core"
    else:
        why_not = _use_compiled_core(arguments, environment)
        if why_not is not None:
            if choice:
                print(f"fastchat: COMPILED={choice}: {why_not}", file=sys.stderr)
                return 1
            environment[PURE_CORE_ADVICE] = why_not
    os.execve(sys.executable, serve, environment)  # noqa: S606 - our own program, and no shell


def _use_compiled_core(arguments: list[str], environment: dict[str, str]) -> str | None:
    """Put into the environment what makes the server use the compiled core, or return why that is not possible."""
    # Here, since who leaves the core as it is needs nothing of this.
    from scripts.compiled_core import Unavailable, environment_for, find, find_or_build

    try:
        if find() is not None or _would_start(arguments):
            environment |= environment_for(find_or_build())
            environment[CORE_COMMAND] = f"{sys.executable} -m scripts.compiled_core"
    except Unavailable as reason:
        return str(reason)
    return None


def _would_start(arguments: list[str]) -> bool:
    """Return whether the settings are good: with others the server says so at once, and nobody waits for the compiler before."""
    if {"-h", "--help"} & set(arguments):
        return False
    check = [sys.executable, "-m", "router", "config", "check", *arguments]
    return subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
