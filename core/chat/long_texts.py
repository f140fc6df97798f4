"""Texts that are longer than any may be once their markup is gone: one in each turn of the loop, for all connections together (D23).

Taking the markup out of 16 KiB of it takes as long as a thousand ordinary messages. So who sends such a text waits in line, like behind any
other command that takes its time, and everybody else is served between two of them; and it is charged as some messages.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from core.chat.command_queue import EVERYTHING
from core.wire.protocol import CONTENT_MAX

if TYPE_CHECKING:
    from core.chat.session import Session

#: What a long text weighs, in messages that come to nothing: so that D23's 20 a second are left of `core.chat.pace.RATE`.
_WEIGHT: Final = 3


class LongTexts:
    """The line of one shard."""

    __slots__ = ("_line", "_turn")

    def __init__(self) -> None:
        #: Who has a command with such a text in front of all that waits.
        self._line: deque[Session] = deque()
        #: Whose turn it is.
        self._turn: Session | None = None

    def __bool__(self) -> bool:
        """Return whether somebody waits."""
        return bool(self._line)

    def must_wait(self, session: Session, kind: str, data: dict[str, Any], text: Any, now: float) -> bool:
        """Return whether a command is to be left for later, since its `text` is a long one; it is kept then."""
        if type(text) is not str or len(text) <= CONTENT_MAX:
            return False
        if self._turn is session:
            self._turn = None
            session.charge(now, _WEIGHT)
            return False
        session.hold_back(kind, data)
        self._line.append(session)
        return True

    def next(self) -> tuple[Session, str] | None:
        """Return who may go on now, and the key that is to be released."""
        if not self._line:
            return None
        self._turn = self._line.popleft()
        return self._turn, EVERYTHING
