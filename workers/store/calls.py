"""What the core calls of the store on disk: noted in the order of the calls, until ``workers.store.sqlite`` gathers it for the thread."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from core.chat.chat import Chat
from core.chat.store import Covered, Done, Found, Removed
from core.chat.user import Message, User
from workers.store.deletion import NoteDeletion, PurgeSent, PurgeUser
from workers.store.hook_reads import HookCallsDue, HookCallsPending, Untold
from workers.store.reads import Cover, Find, History, Lasts, Load, MessagesAt, Question, Read, Senders
from workers.store.writes import (
    After,
    Forget,
    SaveAcknowledged,
    SaveBlock,
    SaveChat,
    SaveHookCall,
    SaveUser,
    Write,
)

#: Seconds that acknowledgements, and chats that may wait, wait to be collected.
ACKNOWLEDGED_DELAY: Final = 0.8


class Calls:
    """The calls of ``core.chat.store.Store`` but `flush`. Whose users are named is pinned until the callback."""

    def __init__(self) -> None:
        self._waiting: deque[Message | Write] = deque()
        self._questions: deque[Question[Any]] = deque()
        #: How many writes have been called.
        self._called = 0
        #: Users with acknowledgements to be saved, or chats that may wait -> when, soonest first.
        self._unsaved: dict[User, float] = {}
        #: When `flush` was called last.
        self._now = 0.0

    # -- Writes --

    def save_user(self, user: User, done: Done) -> None:
        self._write(SaveUser(user, done))

    def save_chat(self, user: User, chat: Chat, done: Done) -> None:
        self._write(SaveChat(user, chat, done))

    def append(self, message: Message) -> None:
        message.user.pins += 1
        self._called += 1
        self._waiting.append(message)

    def after_writes(self, done: Done) -> None:
        self._write(After(None, done))

    def save_acknowledged(self, user: User, done: Done | None = None) -> None:
        if done is not None:
            self._write(SaveAcknowledged(user, done))
            if self._unsaved.pop(user, None) is not None:
                user.pins -= 1
        elif user not in self._unsaved:
            user.pins += 1
            self._unsaved[user] = self._now + ACKNOWLEDGED_DELAY

    def save_block(self, user: User, peer: str, done: Done) -> None:
        self._write(SaveBlock(user, peer, done))

    def save_hook_call(self, user: User, peer: str, done: Done) -> None:
        self._write(SaveHookCall(user, peer, done))

    def forget(self, user_id: str) -> None:
        self._write(Forget(user_id))

    def note_deletion(self, user_id: str, done: Found[bool]) -> None:
        self._write(NoteDeletion(user_id, done))

    def purge_sent(self, sender: str, after: int, done: Found[Removed]) -> None:
        self._write(PurgeSent(sender, after, done))

    def purge_user(self, user_id: str, done: Found[Removed]) -> None:
        self._write(PurgeUser(user_id, done))

    def _write(self, write: Write) -> None:
        if write.user is not None:
            write.user.pins += 1
        self._called += 1
        self._waiting.append(write)

    # -- Reads --

    def load(self, user_id: str, done: Found[User | None]) -> None:
        self._ask(Load(user_id, done))

    def find(self, user: User, sender: str | None, message_id: str, done: Found[list[Message]]) -> None:
        self._ask(Find(user, sender, message_id, done))

    def read(self, user: User, after: int, done: Found[list[Message]]) -> None:
        self._ask(Read(user, after, done))

    def senders(self, user: User, after: int, done: Found[list[tuple[int, Chat]]]) -> None:
        self._ask(Senders(user, after, done))

    def covered(self, user: User, chat: Chat, after: int, through: int, done: Found[Covered]) -> None:
        self._ask(Cover(user, chat, after, through, done))

    def messages_at(self, user: User, positions: list[int], done: Found[list[Message]]) -> None:
        self._ask(MessagesAt(user, positions, done))

    def lasts(self, sender: str, recipients: list[str], done: Found[dict[str, tuple[int, bytes]]]) -> None:
        self._ask(Lasts(sender, recipients, done))

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
        self._ask(History(user_id, peer, before, limit, done, withheld=withheld))

    def hook_calls_due(self, before: int, limit: int, done: Found[list[tuple[str, str]]]) -> None:
        self._ask(HookCallsDue(before, limit, done))

    def hook_calls_pending(self, done: Found[tuple[int, int]]) -> None:
        self._ask(HookCallsPending(done))

    def untold(self, after: int, done: Found[tuple[int, list[str]]]) -> None:
        self._ask(Untold(after, done))

    def _ask(self, question: Question[Any]) -> None:
        if question.user is not None:
            question.user.pins += 1
        question.after = self._called
        self._questions.append(question)
