"""What calls take and answer: types from which bodies are decoded, and the OpenAPI document is made."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, field

#: Users in one call.
USERS_MAX: Final = 1000
#: Characters of a text as it comes, before it is cleaned: more than any that is accepted afterwards.
_TEXT_MAX: Final = 16_000

UserId = Annotated[str, Meta(max_length=128, description="The id of a user, as FASTCHAT_USER_IDS says.")]
DisplayName = Annotated[
    str, Meta(max_length=_TEXT_MAX, description="A name of 3 to 50 characters, cleaned as in HELLO.")
]
MessageId = Annotated[
    str,
    Meta(
        max_length=64,
        description="Chosen by the backend. A call that is repeated with the same id stores the message only once.",
    ),
]


class Shape(Struct, kw_only=True, omit_defaults=True):
    """A JSON object; fields that are not known are ignored."""


class NewUser(Shape):
    user_id: UserId
    display_name: DisplayName


class NewUsers(Shape):
    users: Annotated[list[NewUser], Meta(min_length=1, max_length=USERS_MAX)]


class Name(Shape):
    display_name: DisplayName


class NewMessage(Shape):
    sender: UserId = field(name="from")
    to: UserId
    content: Annotated[
        str, Meta(max_length=_TEXT_MAX, description="The text, 1 to 1,000 characters once it is cleaned.")
    ]
    message_id: MessageId | None = None


class UserIds(Shape):
    user_ids: Annotated[list[UserId], Meta(max_length=USERS_MAX)]


# -- Answers --


class Named(Shape):
    created: Annotated[list[UserId], Meta(description="Users who were not there before.")]
    renamed: Annotated[list[UserId], Meta(description="Users who had another name.")]


class Close(Shape):
    by: Annotated[str, Meta(description="`server`, `client`, or `nobody` for a lost connection.")]
    code: int
    reason: str
    ago: Annotated[float, Meta(description="Seconds since then.")]


class User(Shape):
    user_id: UserId
    display_name: str
    online: bool
    banned: bool
    chats: Annotated[int, Meta(description="Number of chats.")]
    waiting: Annotated[int, Meta(description="Messages that no device has acknowledged.")]
    last_close: Annotated[Close | None, Meta(description="How the last connection ended, for some minutes.")]


class Connection(Shape):
    connection: Annotated[str, Meta(description="The name of the connection in the logs.")]
    address: str
    connected: Annotated[float, Meta(description="Seconds since the client connected.")]
    heard: Annotated[float, Meta(description="Seconds since the client sent anything.")]
    capabilities: list[str]
    unsent: Annotated[int, Meta(description="Bytes that the client has not taken.")]
    behind: Annotated[int, Meta(description="Messages that were not written to the client yet.")]


class Connections(Shape):
    connections: list[Connection]


class Closed(Shape):
    closed: Annotated[int, Meta(description="How many connections were closed.")]


class Ban(Shape):
    changed: Annotated[bool, Meta(description="Whether it was not so before.")]
    closed: Annotated[int, Meta(description="How many connections were closed.")]


class Deleted(Shape):
    state: Annotated[
        str,
        Meta(description="`deleted`, or `deleting` while it goes on: repeat the call to wait for its end."),
    ]
    received: Annotated[int, Meta(description="Messages removed from the user's mailbox.")] = 0
    sent: Annotated[int, Meta(description="Messages removed from the mailboxes of others.")] = 0
    chats: int = 0
    closed: Annotated[int, Meta(description="How many connections were closed.")] = 0


class Sent(Shape):
    message_id: MessageId
    status: Annotated[str, Meta(description="`delivered` to a device, or `stored` for later.")]


class History(Shape):
    messages: Annotated[list[dict[str, Any]], Meta(description="`data` of each MSG, newest first.")]
    next: Annotated[str | None, Meta(description="`before` of the following page; null on the last one.")]


class Chats(Shape):
    chats: Annotated[list[dict[str, Any]], Meta(description="The entries of CHATS, the newest chat first.")]
    next: Annotated[str | None, Meta(description="`before` of the following page; null on the last one.")]


class Presence(Shape):
    online: Annotated[list[UserId], Meta(description="Those of the users who are online.")]
    offline: Annotated[list[UserId], Meta(description="All others, also those who have never been here.")]


class Problem(Shape):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    code: Annotated[str, Meta(description="What is wrong, for programs.")]
    detail: Annotated[str, Meta(description="What is wrong, for people.")]
    details: Annotated[dict[str, Any] | None, Meta(description="What to mend.")] = None
