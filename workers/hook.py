"""Calls of the hook (D33): POST requests to the operator's web server, signed as Standard Webhooks says.

The core has at most so many calls on their way (``core.chat.hook_calls.CALLS_MAX``), so there are never more tasks or connections here.
What the web server answers is not trusted: redirects are not followed, and hardly any of a body is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import aiohttp

from core.auth.hook_secrets import load_secrets, signatures
from core.chat.ports import HookOutcome, WaitingCall
from core.events import fields
from core.process.private_files import read_private
from core.process.settings import Settings

_log = logging.getLogger("fastchat.worker")

#: Seconds in which a call has to be answered.
TIMEOUT: Final = 10.0
#: Bytes that are read of an answer's body: a short one leaves the connection of use for the next call.
_BODY_MAX: Final = 4096
_GONE: Final = 410


class HookClient:
    """Implements ``core.chat.ports.Hook``. Make it within the event loop."""

    def __init__(self, settings: Settings, answered: Callable[[WaitingCall, HookOutcome], None]) -> None:
        """`answered` is called with each call that has ended. Raises ConfigurationError when the settings are no good."""
        self._settings = settings
        self._answered = answered
        self._secrets = load_secrets(settings, read_private)
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def reload_secrets(self) -> None:
        """Read the secrets again. When that raises ConfigurationError, those that there are stay in use."""
        self._secrets = load_secrets(self._settings, read_private)

    def send(self, call: WaitingCall) -> None:
        task = asyncio.get_running_loop().create_task(self._send(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up the calls that are on their way; nobody is told how they end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _send(self, call: WaitingCall) -> None:
        outcome, reason = HookOutcome.FAILED, ""
        try:
            status = await self._post(call)
        except TimeoutError:
            reason = f"no answer within {TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
        except Exception:
            _log.exception("bug while the hook was called")
            reason = "bug"
        else:
            if 200 <= status < 300:
                outcome = HookOutcome.TOLD
            elif status == _GONE:
                outcome = HookOutcome.GONE
            else:
                reason = f"the answer had the status {status}"
        if reason:
            _log.warning("a call of the hook failed, and will be repeated", extra=fields(reason=reason))
        self._answered(call, outcome)

    async def _post(self, call: WaitingCall) -> int:
        """Return the status of the answer."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = signatures(self._secrets, call.call_id, int(time.time()), call.body)
        async with self._session.post(
            self._settings.hook_url,
            data=call.body,
            headers={"Content-Type": "application/json", "User-Agent": "FastChat", **headers},
            allow_redirects=False,
        ) as answer:
            await answer.content.read(_BODY_MAX)
            return answer.status
