"""A request that is not for the chat: whether the page server may see it.

The page server gets the whole connection, so whatever stands behind the head would be its to read. It gets nothing that two readers could
read in two ways (``router.front.request_head``). Nothing here takes a body, so what says that it has one is refused. Bytes in, an
answer out.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from router.front.request_head import Malformed, parse_head
from router.front.upgrade import Answer, refusal

_METHODS: Final = ("GET", "HEAD")


def check(head: bytes) -> Answer | None:
    """Return the answer to a request that the page server must not see, or None; `head` is complete, blank line included."""
    try:
        request = parse_head(head)
    except Malformed as error:
        return refusal(HTTPStatus.BAD_REQUEST, str(error))
    if request.method not in _METHODS:
        return refusal(
            HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are allowed here.", Allow=", ".join(_METHODS)
        )
    if request.has_body:
        return refusal(HTTPStatus.BAD_REQUEST, "Requests with a body are not accepted here.")
    return None
