"""What a log call says: the fields of an event, and how severe a close is. How events become lines stands in ``core.process.logs``."""

from __future__ import annotations

import logging
from typing import Any, Final

from core.wire.protocol import CloseCode

#: The loggers of all our modules are below this one, and its level is the one in force.
OURS: Final = logging.getLogger("fastchat")
#: Closes that are nobody's fault: the server ends or restarts, a device made room for another one, or sleeps.
_ORDINARY_CLOSES: Final = frozenset(
    {CloseCode.SHUTTING_DOWN, CloseCode.RESTARTING, CloseCode.REPLACED, CloseCode.NO_SIGN_OF_LIFE}
)


def fields(**values: object) -> dict[str, Any]:
    """Return `extra` of a log call: what the event is about. None is left out."""
    return {"fields": values}


def close_level(code: int) -> int:
    """Return how severe it is that the server closes a connection with this code."""
    if code == CloseCode.INTERNAL_ERROR:
        return logging.ERROR
    return logging.DEBUG if code in _ORDINARY_CLOSES else logging.INFO
