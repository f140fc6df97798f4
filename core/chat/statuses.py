"""What the sender of an accepted message is told: the status in MSG_ACK for each Outcome, and what was stored (D11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.chat.envelope import Outcome
from core.wire import codec
from core.wire.protocol import AckStatus

if TYPE_CHECKING:
    from core.chat.exchange import Request

#: What a plain client is told, and one with `receipts` (D11).
PLAIN_STATUS: Final[dict[int, str]] = {
    Outcome.DELIVERED: AckStatus.DELIVERED,
    Outcome.STORED: AckStatus.STORED,
    Outcome.REPEAT_STORED: AckStatus.STORED,
    Outcome.REPEAT_DELIVERED: AckStatus.DELIVERED,
    Outcome.REPEAT_ACKNOWLEDGED: AckStatus.DELIVERED,
    Outcome.REPEAT_READ: AckStatus.DELIVERED,
}
RECEIPT_STATUS: Final[dict[int, str]] = {
    Outcome.DELIVERED: AckStatus.ACCEPTED,
    Outcome.STORED: AckStatus.ACCEPTED,
    Outcome.REPEAT_STORED: AckStatus.ACCEPTED,
    Outcome.REPEAT_DELIVERED: AckStatus.ACCEPTED,
    Outcome.REPEAT_ACKNOWLEDGED: AckStatus.DELIVERED,
    Outcome.REPEAT_READ: AckStatus.READ,
}


def stored_text(request: Request) -> bytes:
    """Return the content of a message as JSON, for a sender who wrote something else (D11).

    The answer to a repeat has it whatever the status is by then, since the first answer may have been lost.
    """
    assert request.message_id is not None, "every message has an id"
    return codec.msg_parts(request.frame, request.user.user_id, request.peer, request.message_id)[0]
