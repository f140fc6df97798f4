"""``core.wire.plain`` in C, for the compiled core: what ``plain.py`` writes down as a regular expression.

It knows the shape of two messages and no rule of theirs: a content that is not ASCII is ``core.wire.validation``'s to judge. No reading goes
past the end of a payload: Python puts a zero there, and a zero is part of nothing that is looked for.
"""

from core.wire.protocol import CONTENT_MAX
from core.wire.validation import is_kept

#: See ``plain.py``.
Plain = tuple[str | None, bytes | None, str]

cdef extern from *:
    """
    enum { CONTENT = 1, MESSAGE_ID = 2, USER_ID = 4 };
    """
    const int CONTENT
    const int MESSAGE_ID
    const int USER_ID

cdef Py_ssize_t _content_max = CONTENT_MAX
#: For each byte, which strings it may be part of.
cdef unsigned char[256] _part_of


cdef struct Span:
    #: The text of a JSON string, between its quotes.
    const char *start
    Py_ssize_t size
    #: Its bytes, joined by OR: from 0x80 on they are not all ASCII.
    unsigned char bits


cdef void _fill_table() noexcept:
    cdef int byte
    for byte in range(256):
        _part_of[byte] = 0
        if byte >= 0x80:
            _part_of[byte] = CONTENT
        elif 0x20 <= byte <= 0x7E and byte != c'"' and byte != c"\\":
            if byte != c"<":
                _part_of[byte] |= CONTENT
            if byte != c" ":
                _part_of[byte] |= USER_ID
                if byte != c"<" and byte != c">" and byte != c"&" and byte != c"'":
                    _part_of[byte] |= MESSAGE_ID


_fill_table()


cdef bint _past(const unsigned char **at, const char *text) noexcept:
    """Go past a text, and say whether it is there. A space in it may be missing."""
    cdef const unsigned char *here = at[0]
    while text[0]:
        if here[0] == <unsigned char>text[0]:
            here += 1
        elif text[0] != c" ":
            return False
        text += 1
    at[0] = here
    return True


cdef bint _past_string(const unsigned char **at, int kind, Py_ssize_t longest, Span *span) noexcept:
    """Go past a JSON string of 1 to `longest` bytes of that kind, and say whether it is there."""
    cdef const unsigned char *here = at[0]
    if here[0] != c'"':
        return False
    here += 1
    span.start = <const char *>here
    span.bits = 0
    while _part_of[here[0]] & kind:
        span.bits |= here[0]
        here += 1
    span.size = <const char *>here - span.start
    at[0] = here + 1
    return here[0] == c'"' and 1 <= span.size <= longest


cdef str _ascii(Span *span):
    return span.start[: span.size].decode("ascii")


def recognise(bytes payload not None):
    """Return what a payload says; see ``plain.py``."""
    cdef const unsigned char *at = payload
    cdef const unsigned char *end = at + len(payload)
    cdef Span to, content, message_id
    if not _past(&at, b'{"type": "MSG'):
        return None
    if at[0] == c"_":
        return _recognise_acknowledgement(at, end)
    if not (
        _past(&at, b'", "data": {"to": ')
        and _past_string(&at, USER_ID, 128, &to)
        and _past(&at, b', "content": ')
        and _past_string(&at, CONTENT, 4 * _content_max + 1, &content)
        and content.start[0] != c" "
        and _past(&at, b', "message_id": ')
        and _past_string(&at, MESSAGE_ID, 64, &message_id)
        and _past(&at, b"}}")
        and at == end
    ):
        return None
    quoted = (content.start - 1)[: content.size + 2]
    if not (content.size <= _content_max if content.bits < 0x80 else is_kept(quoted)):
        return None
    return _ascii(&to), quoted, _ascii(&message_id)


cdef _recognise_acknowledgement(const unsigned char *at, const unsigned char *end):
    cdef Span sender, message_id
    sender.size = 0
    if not (
        _past(&at, b'_ACK", "data": {"message_id": ')
        and _past_string(&at, MESSAGE_ID, 64, &message_id)
        and (at[0] != c"," or (_past(&at, b', "from": ') and _past_string(&at, USER_ID, 128, &sender)))
        and _past(&at, b"}}")
        and at == end
    ):
        return None
    return _ascii(&sender) if sender.size else None, None, _ascii(&message_id)
