"""Which FastChat this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from core.wire import codec


def fastchat_version() -> str:
    """Return the version that is installed."""
    try:
        return version("fastchat")
    except PackageNotFoundError:
        return "not installed"


def core_kind() -> str:
    """Return whether the core is ``compiled`` to machine code, or ``python`` as it stands in the sources."""
    return "python" if codec.__file__.endswith(".py") else "compiled"
