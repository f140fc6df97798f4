"""The list of chats as the server has it: pages that were asked for, with the changes that came since.

The server orders chats by their last activity, which is not on the wire; it is the timestamp of the last message, except where that has
gone, or a clock was put back. So each chat has a *rank*: the timestamp, corrected where a page shows another order. Changes keep the list
true as long as a connection lasts; on the next one all of it is asked for again, and what is not in these pages has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from fastchat_client._wire import canonical
from fastchat_client.models import ChatEntry, LastMessage

#: Characters of a last message that a list shows.
LAST_CHARACTERS: Final = 200
#: Makes a rank later than the timestamp before it, and earlier than the next millisecond.
LATER: Final = "~"
#: Ends of pages that are remembered, to know where the next page begins.
ENDS: Final = 1_000


class _Rank(NamedTuple):
    """Where a chat stands; the highest is the first."""

    at: str
    user_id: str
    #: Of two with the same above, which a page showed in this order.
    depth: int = 0


#: Below all chats.
_BOTTOM: Final = _Rank("", "", -(2**53))


class _Kept(NamedTuple):
    """A chat of the list."""

    entry: ChatEntry
    rank: _Rank


class ChatList:
    """The chats that are known, from the first page on."""

    def __init__(self) -> None:
        #: Whether a page has come.
        self.is_kept = False
        #: The latest timestamp of a message that has come, of which the server may still have to tell the change.
        self.latest = ""
        #: user id -> chat; with those that are hidden.
        self._chats: dict[str, _Kept] = {}
        #: `next` of a page -> the rank of its last chat.
        self._ends: dict[str, _Rank] = {}
        #: The rank down to which pages without a gap have come, None before the first; and down to which they are to come again.
        self._lowest: _Rank | None = None
        self._goal: _Rank | None = None
        #: Chats of the pages since `start_over`.
        self._seen: set[str] = set()
        self._ordered: list[ChatEntry] | None = None

    @property
    def ordered(self) -> list[ChatEntry]:
        """The list: chats that are not hidden, the last one that was written in first."""
        if self._ordered is None:
            shown = [kept for kept in self._chats.values() if not kept.entry.hidden]
            shown.sort(key=lambda kept: kept.rank, reverse=True)
            self._ordered = [kept.entry for kept in shown]
        return self._ordered

    # -- From the server --

    def page(self, before: str | None, entries: list[ChatEntry], following: str | None) -> list[ChatEntry]:
        """Take the page that begins at `before`; the chats that look different now."""
        above = self._ends.get(before) if before is not None else None
        ranks = _ranks(entries, above, self._top())
        end = ranks[-1] if ranks and following is not None else None
        if following is not None and end is not None:
            self._ends[following] = end
            if len(self._ends) > ENDS:
                del self._ends[next(iter(self._ends))]
        if before is None or above is not None:
            self._cover(above, _BOTTOM if following is None else end)
        self.is_kept = True
        return [entry for entry, rank in zip(entries, ranks, strict=True) if self._put(entry, rank)]

    def start_over(self) -> None:
        """Begin with the first page again, until `is_covered`; then `cut`."""
        reached = [rank for rank in (self._goal, self._lowest) if rank is not None]
        self._goal, self._lowest = min(reached, default=None), None
        self._seen.clear()

    @property
    def is_covered(self) -> bool:
        """Whether the pages reach down to where they did before `start_over`."""
        return self._goal is None or (self._lowest is not None and self._lowest <= self._goal)

    def cut(self) -> list[ChatEntry]:
        """Forget what has neither been in a page nor changed since `start_over`. Those that were shown."""
        self._goal = None
        gone = [peer for peer in self._chats if peer not in self._seen]
        entries = [self._chats.pop(peer).entry for peer in gone]
        self._ordered = None
        return [replace(entry, hidden=True) for entry in entries if not entry.hidden]

    def change(self, entries: Iterable[ChatEntry]) -> None:
        """Take a change that the server tells."""
        if not self.is_kept:
            return
        for entry in entries:
            known = self._chats.get(canonical(entry.user_id))
            rank = _own_rank(entry)
            if known is not None and _has_same_last(known.entry, entry):
                # Of a message of this client it is an estimate, and others are compared with it.
                rank = known.rank
            elif known is not None:
                rank = max(known.rank, rank)
            elif entry.last is None and not entry.blocked:
                rank = self._top()  # it was opened just now
            self._put(entry, rank)

    # -- From this client: the server tells only the others of it --

    def is_known(self, user_id: str) -> bool:
        """Return whether the chat with a user is known; it may be hidden."""
        return canonical(user_id) in self._chats

    def wrote(self, user_id: str, message: LastMessage, here: str) -> ChatEntry:
        """Note a message that this client has sent, in a chat that is known. The chat as it is now.

        Nothing that is known is later, whatever its `timestamp`, which is an estimate. `here` is the time by the clock of this device, for
        when nothing else is known.
        """
        known = self._chats[canonical(user_id)].entry
        top = self._top()
        timestamp = max(message.timestamp, top.at.rstrip(LATER)) or here
        rank = max(top, _Rank(timestamp + LATER, known.user_id))
        last = replace(message, content=message.content[:LAST_CHARACTERS], timestamp=timestamp)
        now = replace(known, last=last, hidden=False)
        self._put(now, rank)
        return now

    def read(self, user_id: str, unread: int | None, message_id: str) -> ChatEntry | None:
        """Note that this client has said READ: at most `unread` messages are left, none if it was the last. The chat, if that is new."""
        known = self._chats.get(canonical(user_id))
        if known is None:
            return None
        last = known.entry.last
        if unread is None and last is not None and last.message_id == message_id:
            unread = 0
        if unread is None or unread >= known.entry.unread:
            return None
        now = replace(known.entry, unread=unread)
        self._put(now, known.rank)
        return now

    def online(self, online: Iterable[str], user_ids: Iterable[str] | None = None) -> list[ChatEntry]:
        """Note who is online, of these people or of all. The chats that look different by it."""
        here = {canonical(user_id) for user_id in online}
        peers: Iterable[str] = self._chats if user_ids is None else map(canonical, user_ids)
        different = []
        for peer in list(peers):
            known = self._chats.get(peer)
            if known is not None and known.entry.online != (peer in here):
                now = replace(known.entry, online=peer in here)
                self._put(now, known.rank)
                different.append(now)
        return different

    # -- Inside --

    def _put(self, entry: ChatEntry, rank: _Rank) -> bool:
        """Put a chat where it belongs: whether it looks different."""
        peer = canonical(entry.user_id)
        known = self._chats.get(peer)
        self._chats[peer] = _Kept(entry, rank)
        self._seen.add(peer)
        self._ordered = None
        return known is None or known.entry != entry

    def _cover(self, above: _Rank | None, lowest: _Rank | None) -> None:
        """Note how far down the pages reach that have come."""
        if above is not None and (self._lowest is None or above < self._lowest):
            return  # there is a gap
        if lowest is not None and (self._lowest is None or lowest < self._lowest):
            self._lowest = lowest

    def _top(self) -> _Rank:
        """Return the rank above all others."""
        heard = _Rank(self.latest + LATER if self.latest else "", "")
        highest = max((kept.rank for kept in self._chats.values()), default=heard)
        highest = max(highest, heard)
        return highest._replace(depth=highest.depth + 1)


def _has_same_last(one: ChatEntry, other: ChatEntry) -> bool:
    return one.last is other.last or (
        one.last is not None and other.last is not None and one.last.message_id == other.last.message_id
    )


def _own_rank(entry: ChatEntry) -> _Rank:
    return _Rank(entry.last.timestamp if entry.last is not None else "", entry.user_id)


def _ranks(entries: Sequence[ChatEntry], above: _Rank | None, top: _Rank) -> list[_Rank]:
    """Return the ranks of a page, which fall from one chat to the next.

    All are below the rank `above`, the end of the page before. Without one it is the first page, and `top` is above all that is known.
    """
    ranks: list[_Rank] = []
    for entry in reversed(entries):
        rank = _own_rank(entry)
        if ranks and rank <= ranks[-1]:
            rank = ranks[-1]._replace(depth=ranks[-1].depth + 1)
        if ranks or entry.last is not None:
            ranks.append(rank)
    ranks.reverse()
    # Those at the end have no last message: they are just below the others.
    while len(ranks) < len(entries):
        lowest = ranks[-1] if ranks else above or top._replace(depth=top.depth + len(entries))
        ranks.append(lowest._replace(depth=lowest.depth - 1))
    ceiling = above
    for at, rank in enumerate(ranks):
        if ceiling is None or rank < ceiling:
            break
        ceiling = ranks[at] = ceiling._replace(depth=ceiling.depth - 1)
    return ranks
