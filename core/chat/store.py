"""The store as the core calls it: what is kept of users, chats and messages, and the promises that each implementation must keep.

As with the other ports (``core.chat.ports``), no call blocks, and none calls back into the core from within.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.user import Message, User


#: The failure of a message whose deadline had passed before it could be committed (D26).
EXPIRED: Final = "it was not stored in time"

#: Called when a write is durable, with None and the time, or with a sentence that says why it could not be.
Done = Callable[[str | None, float], None]


#: Called with messages that were committed together, None and the time; or with a sentence that says why they could not be.
Appended = Callable[[list["Message"], str | None, float], None]
#: Called with (user_id, position): this user's messages up to that position are gone (retention). The user may be in memory or not.
Purged = Callable[[list[tuple[str, int]], float], None]
#: Called with users without chats who have not been seen for a day, as far as the store knows (D23); `forget` removes them.
Strangers = Callable[[list[str], float], None]


class Covered(NamedTuple):
    """Messages of one chat behind some position: the first of them, and how many there are behind another position."""

    #: (position, message id, whether the sender wants receipts), in order.
    messages: list[tuple[int, str, bool]]
    beyond: int


class Removed(NamedTuple):
    """What one step of `Store.purge_sent` or `Store.purge_user` has removed."""

    #: (user, positions): in the mailbox of this user these count as acknowledged from now on.
    acknowledged: list[tuple[str, list[int]]]
    messages: int
    #: Chats of the user; those of others with the user are not counted.
    chats: int
    #: What the next step is to be called with; None when nothing is left.
    following: int | None


class Listeners(NamedTuple):
    """Who is told what the store has done; the store of a worker is given them before it is used."""

    appended: Appended
    purged: Purged
    strangers: Strangers


T_contra = TypeVar("T_contra", contravariant=True)


class Found(Protocol[T_contra]):
    """Called with what was found, None and the time; or with nothing found, and a sentence that says why it could not be read."""

    def __call__(self, found: T_contra, failure: str | None, now: float, /) -> None: ...


def nobody_waits(failure: str | None, now: float) -> None:
    """Do nothing: the Done of a write whose loss does no harm, since it costs a repeat, or is repaired by the next message."""


class Store(Protocol):
    """Where users, chats and messages are kept.

    *Writes* become durable in the order of the calls, and their callbacks follow in that order: with None once the write is durable,
    or with a sentence that says why it could not be, and then it has left no trace. Nothing may be shown or acknowledged to anyone
    before its callback (D20). *Reads* see every write that was called before them; their callbacks follow in the order of the calls.
    No callback comes from within a call of the store.

    While anything about a user is not finished the user's `pins` are not 0. What is saved is the state at the time of the call or a
    later one. A message or chat whose user or chat has never been saved takes that along, in one transaction.

    Two implementations, tested by one suite: SQLite in a thread, and memory, which keeps all of this but forgets at the end of the
    process.
    """

    @property
    def deletions(self) -> list[str]:
        """Users whose deletion a process before has noted and not ended; once the store is open."""
        ...

    def flush(self, now: float) -> bool:
        """Do what is due and call back; whether to come again in another turn. To be called at least every tenth of a second."""
        ...

    # -- Writes --

    def save_user(self, user: User, done: Done) -> None:
        """Write a new user, a changed name or way of acknowledging, or one without chats who leaves (D23)."""

    def save_chat(self, user: User, chat: Chat, done: Done) -> None:
        """Write a new or changed chat of `user`. One that is being noted as written in (`Chat.noting`) is stored as written in."""

    def append(self, message: Message) -> None:
        """Write a new message; `Messages.appended` follows, with one call for messages that were committed together.

        One that is withheld from the recipient (`Message.withheld`) gets no position: only `find`, `history` and `lasts` know of it.

        A message whose sender has used its id before is not stored: the callback comes without a failure and `original` is what is
        stored (D10). One whose deadline has passed when its turn comes fails (D26). The others take the positions that follow the
        mailbox's head, in order; so the mailbox must `commit` every message as soon as it is told.
        """

    def after_writes(self, done: Done) -> None:
        """Write nothing: `done` is called in its turn, after the callbacks of all writes before it."""

    def save_acknowledged(self, user: User, done: Done | None = None) -> None:
        """Write what the mailbox has as acknowledged, and the chats that may wait (`User.unsaved_chats`).

        Without `done` it may wait for a second, since a repeat does no harm (D7, D12).
        """

    def save_block(self, user: User, peer: str, done: Done) -> None:
        """Write what stands between `user` and `peer` (`User.blocks`), which may be nothing any more (D32)."""

    def save_hook_call(self, user: User, peer: str, done: Done) -> None:
        """Write what the hook is told of the chat of `user` with `peer` (`User.hook_calls`), which may be nothing any more (D33)."""

    def forget(self, user_id: str) -> None:
        """Remove the record and the mailbox of a user without chats who has not been seen for a day (D23)."""

    # -- Writes: a user is deleted (D36), a step at a time, so that nobody waits long --

    def note_deletion(self, user_id: str, done: Found[bool]) -> None:
        """Write that a user is to be deleted, until `purge_user` has removed everything; whether there is such a user."""

    def purge_sent(self, sender: str, after: int, done: Found[Removed]) -> None:
        """Remove some of what `sender` has sent to the users of this shard, their chats with `sender`, and their blocks.

        The first step is called with 0, each other one with what the one before says. Positions stay, as acknowledged holes.
        Chats and blocks that memory has are the core's to remove, before the first step.
        """

    def purge_user(self, user_id: str, done: Found[Removed]) -> None:
        """Remove some of what a user has who is not in memory: mailbox, chats and blocks; with the last of it the user, and the note."""

    # -- Reads --

    def load(self, user_id: str, done: Found[User | None]) -> None:
        """Read a user who is not in memory, with chats and mailbox; None for one never seen."""

    def find(self, user: User, sender: str | None, message_id: str, done: Found[list[Message]]) -> None:
        """Find the messages in the mailbox of `user` with this id, from `sender` or from anybody, oldest first.

        With a sender also one that is withheld from `user`.
        """

    def read(self, user: User, after: int, done: Found[list[Message]]) -> None:
        """Read the messages behind position `after`, in order, about 64 KiB of them; the first may be further on if some were purged.

        Some may be of chats that are being removed (`purge_sent`).
        """

    def senders(self, user: User, after: int, done: Found[list[tuple[int, Chat]]]) -> None:
        """Read (position, chat) of the messages behind position `after`, in order, some thousands of them at most (D20)."""

    def covered(self, user: User, chat: Chat, after: int, through: int, done: Found[Covered]) -> None:
        """Read which messages of a chat of `user` are behind position `after` up to `through`, some hundreds at most; and count those
        behind `through` up to the mailbox's head as it is when this is called.
        """

    def messages_at(self, user: User, positions: list[int], done: Found[list[Message]]) -> None:
        """Read the messages at these positions of the mailbox of `user`, in any order; those that are gone are missing."""

    def lasts(self, sender: str, recipients: list[str], done: Found[dict[str, tuple[int, bytes]]]) -> None:
        """Read the newest message from `sender` in the mailbox of each of these users, withheld ones included.

        Gives recipient -> (Lamport count, frame), without those to whom the sender has written nothing that is stored.
        """

    def history(
        self,
        user_id: str,
        peer: str,
        before: int | None,
        limit: int,
        done: Found[list[tuple[int, int, bytes]]],
        *,
        withheld: bool = False,
    ) -> None:
        """Read (position, Lamport count, frame) of what `peer` sent to `user_id` before that position, newest first, at most `limit`.

        With `withheld` only what is withheld from `user_id`, whose position is its Lamport count; else only what is not.
        """

    # -- Reads for the hook (D33), which may miss what was written in the last seconds --

    def hook_calls_due(self, before: int, limit: int, done: Found[list[tuple[str, str]]]) -> None:
        """Read (user id, peer) of calls of the hook that are due by `before`, in milliseconds since 1970: the first of them, at most
        `limit`.
        """

    def hook_calls_pending(self, done: Found[tuple[int, int]]) -> None:
        """Read how many calls are neither told nor given up, and since when the oldest of them is; 0 if there is none."""

    def untold(self, after: int, done: Found[tuple[int, list[str]]]) -> None:
        """Look through some users for messages that wait in a chat that is not muted and of which no call knows.

        `after` is 0, or what the look before has given: (what the next begins with, user ids); 0 after the last one.
        """
