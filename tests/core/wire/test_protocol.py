"""core.wire.protocol: the numbers and names that clients are promised, written down a second time.

The other tests use the constants, so that they test rules and not numbers; a number that is changed by accident fails here.
"""

from __future__ import annotations

import pytest

from core.wire import protocol
from core.wire.protocol import CAPABILITIES, AckStatus, CloseCode, ErrorCode, MessageType, Refusal


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HELLO_DEADLINE", 10),  # D2
        ("DEVICES_MAX", 10),  # D4
        ("DEVICE_SILENT", 20),  # D4
        ("IMPLICIT_ACK_DELAY", 5),  # D12
        ("CONFIRM_PING_INTERVAL", 1),  # D12
        ("REPLAY_WINDOW_BYTES", 64 * 1024),  # D13
        ("CONTENT_MAX", 1000),  # D16
        ("NAME_MIN", 3),  # D16
        ("NAME_MAX", 50),  # D16
        ("TYPING_EXPIRY", 15),  # D17
        ("PRESENCE_GRACE", 5),  # D21
        ("PRESENCE_INTERVAL", 1),  # D21
        ("PRESENCE_EVERYONE_MAX", 200),  # D21
        ("PRESENCE_EVERYONE_AGAIN", 160),  # D21
        ("RATE_WINDOW", 60),  # D23
        ("PING_PER_SECOND", 1),  # D23
        ("PING_BURST", 5),  # D23
        ("FORGET_AFTER", 24 * 60 * 60),  # D23
        ("STRIKES_PER_MINUTE", 20),  # D25
        ("MESSAGE_MAX_BYTES", 16 * 1024),  # D25
        ("CONFIRM_TIMEOUT", 5),  # D26
        ("HEARTBEAT_IDLE", 20),  # D27
        ("HEARTBEAT_REPLY", 5),  # D27
        ("UNCOMMITTED_MAX", 256),  # D29
        ("OUTBOX_MAX_BYTES", 1024 * 1024),  # D29
        ("SLOW_READER_BYTES", 64 * 1024),  # D29
        ("SLOW_READER_SECONDS", 60),  # D29
        ("WORKER_PATIENCE", 10),
    ],
)
def test_the_limits_are_those_of_the_decisions(name: str, value: float) -> None:
    assert getattr(protocol, name) == value


def test_d24_the_error_codes_are_the_documents_six() -> None:
    """Clients switch on them; a seventh would be unknown to all."""
    codes = {value for name, value in vars(ErrorCode).items() if name.isupper()}
    assert codes == {
        "VALIDATION",
        "MESSAGE_FAILED",
        "USER_NOT_FOUND",
        "CHAT_NOT_OPENED",
        "RATE_LIMITED",
        "UNAUTHORIZED",
    }


def test_d28_the_close_codes() -> None:
    """RFC 6455's, and those of ours."""
    assert sorted(CloseCode) == [
        *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013),
        *(4001, 4002, 4003, 4004),
    ]


def test_message_types_are_spelled_like_their_names() -> None:
    """In capitals."""
    types = {name: value for name, value in vars(MessageType).items() if name.isupper()}
    assert {
        "HELLO",
        "HELLO_ACK",
        "PRESENCE",
        "OPEN_CHAT",
        "CHAT_OPENED",
        "MSG",
        "MSG_ACK",
        "TYPING",
        "PING",
    } <= set(types)
    assert all(name == value for name, value in types.items())


def test_d11_a_plain_client_sees_two_statuses() -> None:
    assert {AckStatus.DELIVERED, AckStatus.STORED} == {"delivered", "stored"}


def test_capabilities_are_lower_case_words() -> None:
    """Those in force; more may come."""
    assert "presence_delta" in CAPABILITIES
    assert all(capability.replace("_", "").islower() for capability in CAPABILITIES)


def test_a_refusal_carries_what_the_client_is_told() -> None:
    refusal = Refusal("VALIDATION", "why", field="to")
    assert (refusal.code, refusal.message, refusal.details) == ("VALIDATION", "why", {"field": "to"})
