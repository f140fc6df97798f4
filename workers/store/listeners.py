"""Who is told what the store has done: the core, which `listen` of every implementation is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from core.chat.user import Message

#: Called with messages that were committed together, None and the time; or with a sentence that says why they could not be.
Appended = Callable[[list[Message], str | None, float], None]
#: Called with (user_id, position): this user's messages up to that position are gone (retention). The user may be in memory or not.
Purged = Callable[[list[tuple[str, int]], float], None]
#: Called with users without chats who have not been seen for a day, as far as the store knows (D23); `forget` removes them.
Strangers = Callable[[list[str], float], None]


class Listeners(NamedTuple):
    """All of them."""

    appended: Appended
    purged: Purged
    strangers: Strangers
