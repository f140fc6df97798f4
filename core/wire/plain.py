"""Recognises what ordinary clients say all day, MSG and MSG_ACK, by its shape: nothing of it is decoded and encoded again.

What is recognised is what ``core.wire.codec.decode`` and ``core.wire.validation`` would have made of it. Whatever they would change,
refuse or look at more closely has another shape and is left to them: another order of fields, other fields, white space that no encoder
writes, escapes, markup, control characters.

The compiled core has ``plain.pyx`` in the place of this module, which says the same in C; the same tests run over both.
"""

from __future__ import annotations

import re
from typing import Final

from core.wire.protocol import CONTENT_MAX
from core.wire.validation import is_kept

#: A JSON string, quotes included, whose text begins with something visible and that neither JSON nor D16 writes in another way, as far as
#: ASCII goes; for the rest see `validation.is_kept`. A character has at most four bytes.
_CONTENT: Final = rb'"[!#-;=-\[\]-~\x80-\xff][ !#-;=-\[\]-~\x80-\xff]{0,%d}+"' % (4 * CONTENT_MAX)
#: What `validation.message_id` takes, but for the backslash, which JSON writes in another way.
_MESSAGE_ID: Final = rb"[!#-%(-;=?-\[\]-~]{1,64}+"
#: Wider than any user id: who has a chat with somebody knows that it is one.
_USER_ID: Final = rb"[!#-\[\]-~]{1,128}+"

_PLAIN: Final = re.compile(
    rb'\{"type": ?"MSG(?:'
    rb'", ?"data": ?\{"to": ?"(%b)", ?"content": ?(%b), ?"message_id": ?"(%b)"'
    rb'|_ACK", ?"data": ?\{"message_id": ?"(%b)"(?:, ?"from": ?"(%b)")?+'
    rb")\}\}" % (_USER_ID, _CONTENT, _MESSAGE_ID, _MESSAGE_ID, _USER_ID)
)

#: Of a MSG: the recipient, the content as JSON, and the id. Of a MSG_ACK: whose message it was, if the client says so; None; and the id.
Plain = tuple[str | None, bytes | None, str]


def recognise(payload: bytes) -> Plain | None:
    """Return what a payload says, if it is a MSG whose content is stored as it is, or a MSG_ACK."""
    match = _PLAIN.fullmatch(payload)
    if match is None:
        return None
    to, content, message_id, acknowledged, sender = match.groups()
    if acknowledged is not None:
        return sender.decode() if sender is not None else None, None, acknowledged.decode()
    if not (len(content) <= CONTENT_MAX + 2 if content.isascii() else is_kept(content)):
        return None
    return to.decode(), content, message_id.decode()
