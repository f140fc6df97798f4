"""What a call that can't be done is answered with: a problem document (RFC 9457)."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from core.wire.codec import to_json
from core.wire.protocol import ErrorCode, Refusal

CONTENT_TYPE: Final = "application/problem+json"

#: Seconds after which a worker that is away is probably back.
AWAY_SECONDS: Final = 1.0


class Problem(Exception):
    """A call that can't be done. `code` is for programs, `detail` a sentence for people; `details` says what to mend."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.details = details

    def answer(self) -> web.Response:
        """Return the answer to the client."""
        body = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "code": self.code,
            "detail": str(self),
        }
        if self.details:
            body["details"] = self.details
        headers = {"Content-Type": CONTENT_TYPE}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="FastChat"'
        return web.Response(status=self.status, body=to_json(body), headers=headers)


#: A code of the protocol -> the status of HTTP that says the same.
_STATUS: Final = {
    ErrorCode.VALIDATION: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.USER_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.CHAT_NOT_OPENED: HTTPStatus.CONFLICT,
    ErrorCode.UNAUTHORIZED: HTTPStatus.CONFLICT,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.MESSAGE_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
}


def refused(code: str, message: str, details: dict[str, Any]) -> Problem:
    """Return what an ERROR of the protocol is to a backend."""
    status = _STATUS[code]
    retry_after = details.get("retry_after")
    if details.get("field") == "message_id" and "already used" in message:
        status = HTTPStatus.CONFLICT
    elif details.get("reason") == "mailbox_full":
        status = HTTPStatus.INSUFFICIENT_STORAGE
    elif code == ErrorCode.MESSAGE_FAILED:
        retry_after = AWAY_SECONDS
    return Problem(status, code, message, retry_after, {k: v for k, v in details.items() if k != "type"})


def of_refusal(refusal: Refusal) -> Problem:
    """Return what a refusal is to a backend."""
    return refused(refusal.code, refusal.message, refusal.details)


def away(sentence: str) -> Problem:
    """Return what a worker is to a backend that does not answer now."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", sentence, AWAY_SECONDS)
