"""Ends children in order: those that are ready close their connections first, and those that do not end in time are killed."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Final

from core.events import fields
from core.process.control import STOP, STOP_REASON
from core.wire.protocol import CloseCode
from router.supervisor.children import Child

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that children have for telling their clients and ending; they take less than half of it.
_PATIENCE: Final = 5.0
#: That time is passed in so many parts: if this process is suspended, it loses no more than one of them.
_LOOKS: Final = 20


async def stop_children(children: Sequence[Child]) -> None:
    """End all of them; none runs when this returns."""
    for child in children:
        if child.ready:
            child.send(STOP, code=int(CloseCode.SHUTTING_DOWN), reason=STOP_REASON)
        else:
            child.signal(signal.SIGTERM)  # it may not listen yet, and nobody is connected to it
    if not children:
        return
    gone = [child.gone for child in children]
    for _ in range(_LOOKS):
        await asyncio.wait(gone, timeout=_PATIENCE / _LOOKS)
    for child in children:
        if child.exit_code is None:
            about = fields(pid=child.pid, seconds=_PATIENCE)
            _log.error("%s did not stop in time and is killed", child.name, extra=about)
            child.signal(signal.SIGKILL)
    await asyncio.wait(gone)
