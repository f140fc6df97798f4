"""Which FastChat this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def fastchat_version() -> str:
    """The version that is installed."""
    try:
        return version("fastchat")
    except PackageNotFoundError:
        return "not installed"
