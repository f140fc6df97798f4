"""Talk to a FastChat server from asyncio. It reconnects and resumes by itself, loses nothing and shows nothing twice.

The public names are these; modules with a leading underscore are not for use.
"""

from fastchat_client._events import Listener
from fastchat_client._tokens import Token, TokenSource
from fastchat_client._transport import ConnectionEnded, Connector, Transport
from fastchat_client.client import FastChat
from fastchat_client.models import (
    Chat,
    ChatEntry,
    ChatPage,
    Closed,
    FastChatError,
    History,
    LastMessage,
    Message,
    Presence,
    Scope,
    Sent,
    State,
    StateChange,
    Status,
    Typing,
)

__all__ = [
    "Chat",
    "ChatEntry",
    "ChatPage",
    "Closed",
    "ConnectionEnded",
    "Connector",
    "FastChat",
    "FastChatError",
    "History",
    "LastMessage",
    "Listener",
    "Message",
    "Presence",
    "Scope",
    "Sent",
    "State",
    "StateChange",
    "Status",
    "Token",
    "TokenSource",
    "Transport",
    "Typing",
]
