"""Whether a mailbox has capacity for one more message, of this sender (D20). What has to be known for that is in ``core.chat.shares``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.chat.envelope import Outcome
from core.chat.shares import Shares, sender_share, strangers_share

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.store import Done, Store
    from core.chat.user import User


class Capacity:
    """Decides whether one more message is taken. `free_below` messages may wait in a mailbox before anybody has to ask."""

    __slots__ = ("_of_sender", "_of_strangers", "_store", "_whole", "counting", "free_below")

    def __init__(self, store: Store, mailbox_max: int) -> None:
        self._store = store
        self._whole = mailbox_max
        self._of_sender, self._of_strangers = sender_share(mailbox_max), strangers_share(mailbox_max)
        self.free_below = self._of_sender
        #: Users about whose mailboxes the store is being asked -> those who wait for that.
        self.counting: dict[User, list[Done]] = {}

    def must_wait(self, user: User, service: bool) -> bool:
        """Return whether it is not known yet if there is capacity. After this, `wait` must be called.

        A `service`, for which there are no shares, waits only behind those who do: what came meanwhile would be counted wrong.
        """
        mailbox = user.mailbox
        if user in self.counting:
            return True
        return not service and mailbox.shares is None and self._of_sender <= mailbox.waiting < self._whole

    def refusal(self, user: User, chat: Chat | None, service: bool) -> Outcome | None:
        """Return why a message of this chat is not taken; None if it is. Only a `service` may write without a chat."""
        mailbox = user.mailbox
        if mailbox.waiting >= self._whole:
            return Outcome.MAILBOX_FULL
        shares = mailbox.shares
        if shares is None or service or chat is None:
            return None
        if shares.of(chat) >= self._of_sender:
            return Outcome.SENDERS_SHARE_FULL
        if not chat.written and shares.of_strangers >= self._of_strangers:
            return Outcome.STRANGERS_SHARE_FULL
        return None

    def refusal_of_withheld(self, user: User, sender: str) -> Outcome | None:
        """Return why a message of somebody whom `user` has blocked is not taken; None if it is. It is withheld from the user (D32).

        The sender's share fills as if the user were away: nothing that is withheld is ever acknowledged.
        """
        full = user.between(sender).withheld >= self._of_sender
        return Outcome.SENDERS_SHARE_FULL if full else None

    def wait(self, user: User, known: Done) -> None:
        """Call `known` when the store has answered, or could not; behind those who wait already."""
        line = self.counting.get(user)
        if line is not None:
            line.append(known)
            return
        self.counting[user] = [known]
        shares = user.mailbox.shares = Shares(user.mailbox.acknowledged_through)
        self._ask(user, shares)

    def _ask(self, user: User, shares: Shares) -> None:
        answer = partial(self._page, user, shares, user.mailbox.head)
        self._store.senders(user, shares.known_through, answer)

    def _page(
        self,
        user: User,
        shares: Shares,
        head: int,
        found: list[tuple[int, Chat]],
        failure: str | None,
        now: float,
    ) -> None:
        mailbox = user.mailbox
        if failure is None:
            for seq, chat in found:
                shares.learn(seq, None if mailbox.is_acknowledged(seq) else chat)
            if not found:
                shares.learn(head, None)  # what was between is gone
            if shares.known_through < mailbox.head:
                self._ask(user, shares)
                return
            # Nothing is on its way into the mailbox: what came while the store was asked waits, and what came before it is decided.
            shares.complete = True
        else:
            mailbox.shares = None
        for known in self.counting.pop(user):
            known(failure, now)
