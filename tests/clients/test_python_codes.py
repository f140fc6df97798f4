"""The words of the wire that the Python client keeps for itself, since it needs nothing of the server, are the server's."""

from __future__ import annotations

from core.wire import protocol
from fastchat_client import _codes


def test_error_codes_are_the_servers() -> None:
    codes = {name: value for name, value in vars(protocol.ErrorCode).items() if name.isupper()}
    assert codes == {name: getattr(_codes, name) for name in codes}
    assert codes


def test_close_codes_are_the_servers() -> None:
    """The client may know more: 1006, which never goes over a wire, and what a newer server says."""
    ours = {code.name: code.value for code in _codes.CloseCode}
    servers = {code.name: code.value for code in protocol.CloseCode}
    assert servers.items() <= ours.items()


def test_capabilities_and_sizes_are_the_servers() -> None:
    assert set(_codes.CAPABILITIES) == set(protocol.CAPABILITIES)
    assert _codes.MESSAGE_MAX_BYTES == protocol.MESSAGE_MAX_BYTES
