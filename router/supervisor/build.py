"""Which FastChat this is, and whether its core is compiled to machine code."""

from __future__ import annotations

import os
from typing import Final

#: The environment variable in which `make run` says why the core is not compiled, and what to do about it.
PURE_CORE_ADVICE: Final = "PURE_CORE_ADVICE"
#: The one with the command that prints where the compiled core of the sources as they are then is, compiling it first if need be.
CORE_COMMAND: Final = "CORE_COMMAND"
_DEFAULT_ADVICE: Final = "start the server with `make run`, which compiles the core if there is a C compiler"


def fastchat_version() -> str:
    """Return the version that is installed."""
    # Here, so that `make run` need not load it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastchat")
    except PackageNotFoundError:
        return "not installed"


def core_kind() -> str:
    """Return whether the core is ``compiled`` to machine code, or ``pure`` Python as it stands in the sources."""
    from core.wire import codec  # here, so that `make run` need not load the core

    return "pure" if codec.__file__.endswith(".py") else "compiled"


def core_advice() -> str | None:
    """Return what would make a pure core faster; None if the core is compiled."""
    if core_kind() == "compiled":
        return None
    return os.environ.get(PURE_CORE_ADVICE) or _DEFAULT_ADVICE
