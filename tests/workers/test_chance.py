"""workers.chance: message ids and epochs of mailboxes, never the same twice."""

from __future__ import annotations

import re
from uuid import UUID

from workers.chance import SystemChance


def test_d13_two_mailboxes_never_have_the_same_epoch() -> None:
    epochs = {SystemChance().epoch() for _ in range(100)}
    assert len(epochs) == 100
    assert all(re.fullmatch(r"[0-9a-f]{12}", epoch) for epoch in epochs)


def test_message_ids_are_random_uuids() -> None:
    ids = {SystemChance().message_id() for _ in range(100)}
    assert len(ids) == 100
    assert {UUID(message_id).version for message_id in ids} == {4}
