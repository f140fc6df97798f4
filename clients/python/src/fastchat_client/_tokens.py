"""Tokens that prove who the client is: a string, or a function that is asked for one. What a token is, is never shown or logged."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastchat_client._codes import TOKEN, VALIDATION
from fastchat_client.models import FastChatError

#: Gives a token, or a coroutine that does.
TokenSource = Callable[[], str | Awaitable[str]]
#: A token, or where there are more.
Token = str | TokenSource

#: Seconds that a function has to give one.
ANSWER_TIMEOUT: Final = 15.0
#: As long as the server takes them.
_FORM: Final = re.compile(r"[!-~]{1,8192}", re.ASCII)


def split(token: Token | None) -> tuple[str | None, TokenSource | None]:
    """Tell the string or the function that it is. Raises FastChatError(VALIDATION) when it can be no token."""
    if token is None or callable(token):
        return None, token
    if not _is_token(token):
        raise FastChatError(
            VALIDATION, "a token is 1 to 8192 visible ASCII characters, or a function that gives one"
        )
    return token, None


async def get_token(source: TokenSource) -> str:
    """Get a token of a function. Raises FastChatError(TOKEN)."""
    try:
        answer = source()
        token = await answer if inspect.isawaitable(answer) else answer
    except Exception as error:
        raise no_token("failed") from error
    if not _is_token(token):
        raise no_token("did not give a token")
    return token


def no_token(problem: str) -> FastChatError:
    """Make the error that is told when a function did not give a token."""
    return FastChatError(TOKEN, f"the function `token` {problem}")


def _is_token(value: object) -> bool:
    return isinstance(value, str) and _FORM.fullmatch(value) is not None
