"""What the sender of an accepted message is told: the status in MSG_ACK for each Outcome (D11)."""

from __future__ import annotations

from typing import Final

from core.chat.envelope import Outcome
from core.wire.protocol import AckStatus

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
