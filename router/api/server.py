"""The port of the server API: who may call, how much at once, and what of it is counted."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web

from core.chat.ratelimit import TokenBucket
from core.events import fields
from core.process.settings import PREFIX, Settings
from core.wire.codec import to_json
from core.wire.validation import Validator
from router.api.calls import Call, Calls, Request, decode
from router.api.document import LINES, make_document, make_page
from router.api.keys import HOSTS_SETTING, Keys, load_keys
from router.api.problems import Problem, away
from router.guarded_port import GuardedPort, Handler
from router.operator.workers import Away, Workers
from router.security_headers import page_policy
from router.static_files import WEB, StaticFile

_log = logging.getLogger("fastchat.supervisor")

#: Bytes of a body: 1,000 users with long names fit.
BODY_MAX_BYTES: Final = 1024 * 1024
#: Seconds in which a body has to come.
_BODY_PATIENCE: Final = 10.0
#: Calls that are being answered at once; exports, which are read by other processes, apart.
CALLS_MAX: Final = 128
_EXPORTS_MAX: Final = 2
_CHUNK: Final = 64 * 1024
#: Calls beyond the rate that come at once may be so many.
_BURST_SECONDS: Final = 1.0


class ApiServer(GuardedPort):
    """Answers calls. `counts` are those that were answered, by call and status."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[socket.socket],
        workers: Workers,
        version: str,
        names: Collection[str] = (),
    ) -> None:
        """`names` are those that Host may have besides. Raises ConfigurationError when there is no good key."""
        assert settings.api_key_file is not None, "the settings have been checked"
        self.counts = Counter({("other", 404): 0})
        self._settings = settings
        self._keys = Keys(load_keys(settings.api_key_file))
        rate = settings.api_calls_per_second
        self._rate = TokenBucket(rate, max(1, int(rate * _BURST_SECONDS)), time.monotonic())
        self._answering = self._exporting = 0
        #: The processes that read exports.
        self.exports: set[int] = set()
        calls = Calls(workers, Validator(settings.user_ids)).table()
        document = make_document(calls, version)
        self._document, self._page = to_json(document), make_page(document)
        self._style = StaticFile.read(WEB / "api" / "api.css")
        application = web.Application(middlewares=[self._explain], client_max_size=BODY_MAX_BYTES)
        add = application.router.add_route
        add("GET", "/", self._get_page)
        add("GET", "/api.css", self._get_style)
        add("GET", "/openapi.json", self._get_document)
        for call in calls:
            is_export = call.run is None
            add(call.method, call.path, self._export if is_export else partial(self._answer, call))
        super().__init__(settings.api_host, listeners, application, HOSTS_SETTING, names)

    def reread_keys(self) -> None:
        """Read the file with the keys again. Raises ConfigurationError, and the keys stay as they are."""
        assert self._settings.api_key_file is not None, "the settings have been checked"
        self._keys.replace(load_keys(self._settings.api_key_file))

    # -- Every request --

    @web.middleware
    async def _explain(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer with a problem document whatever goes wrong, and count what was answered."""
        try:
            response = await handler(request)
        except Problem as problem:
            response = problem.answer()
        except Away as problem:
            response = away(str(problem)).answer()
        except web.HTTPException as refused:
            status = HTTPStatus(refused.status)
            response = Problem(
                status,
                status.name,
                f"{request.method} {request.path[:200]}: {status.description or status.phrase}",
            ).answer()
            if "Allow" in refused.headers:
                response.headers["Allow"] = refused.headers["Allow"]
        except ConnectionError:
            raise  # the client has gone, or must not take what it has for all there is
        except Exception:
            _log.exception("bug while answering a call of the server API")
            response = Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR, "BUG", "the server has a bug; it has been logged"
            ).answer()
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        self.counts[f"{request.method} {path}" if resource is not None else path, response.status] += 1
        return response

    def _admit(self, request: web.Request) -> None:
        """Check key and rate. Raises Problem."""
        now = time.monotonic()
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._keys.is_good(key.strip()):
            address = request.remote or ""
            wait = self._keys.tried(address, now) if key else 0.0
            if wait:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "RATE_LIMITED",
                    "too many wrong keys from this address",
                    wait,
                )
            if key:
                _log.warning("a call of the server API had a wrong key", extra=fields(address=address))
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "UNAUTHORIZED",
                f"this call needs a key of {PREFIX}API_KEY_FILE as `Authorization: Bearer KEY`;"
                f" {'the one that came is wrong' if key else 'none came'}",
            )
        if wait := self._rate.retry_after(now):
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "RATE_LIMITED", "too many calls", wait)

    async def _answer(self, call: Call, request: web.Request) -> web.Response:
        self._admit(request)
        if self._answering >= CALLS_MAX:
            raise away(f"{CALLS_MAX} calls are being answered already: try again in a moment")
        self._answering += 1
        try:
            body = None
            if call.body is not None:
                body = decode(await self._read(request), call.body)
            for name in request.query:
                if name not in call.query:
                    raise Problem(
                        HTTPStatus.UNPROCESSABLE_ENTITY,
                        "VALIDATION",
                        f"this call has no parameter {name[:64]!r}; it has {', '.join(call.query) or 'none'}",
                        details={"field": name[:64]},
                    )
            assert call.run is not None, "an export has its own way"
            answer = await call.run(Request(request.match_info, request.query, body))
            return web.Response(body=to_json(answer), content_type="application/json")
        finally:
            self._answering -= 1

    async def _read(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(_BODY_PATIENCE):
                return await request.read()
        except TimeoutError:
            raise Problem(
                HTTPStatus.REQUEST_TIMEOUT, "TIMEOUT", f"the body did not come within {_BODY_PATIENCE:g} s"
            ) from None

    # -- What has no shape --

    async def _get_page(self, request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": page_policy()}
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def _get_style(self, request: web.Request) -> web.Response:
        return self._style.answer(request, {})

    async def _get_document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    async def _export(self, request: web.Request) -> web.StreamResponse:
        """Answer with everything that is stored about a user, as another process reads it from the files."""
        self._admit(request)
        if self._settings.store != "sqlite":
            raise Problem(
                HTTPStatus.NOT_IMPLEMENTED,
                "NOT_STORED",
                f"with {PREFIX}STORE=memory nothing is stored that could be exported",
            )
        if self._exporting >= _EXPORTS_MAX:
            raise away(f"{_EXPORTS_MAX} exports are under way already: try again in a moment")
        self._exporting += 1
        try:
            return await self._run_export(request)
        finally:
            self._exporting -= 1

    async def _run_export(self, request: web.Request) -> web.StreamResponse:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.store", "export", str(self._settings.data_dir), "--"),
            request.match_info["user_id"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.exports.add(process.pid)
        try:
            return await self._stream(request, process)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self.exports.discard(process.pid)

    async def _stream(self, request: web.Request, process: asyncio.subprocess.Process) -> web.StreamResponse:
        assert process.stdout is not None and process.stderr is not None
        first = await process.stdout.read(_CHUNK)
        if not first:
            sentence = (await process.stderr.read(_CHUNK)).decode(errors="replace").strip()
            if "there is no user" in sentence:
                raise Problem(HTTPStatus.NOT_FOUND, "USER_NOT_FOUND", "there is no user with this id")
            _log.error("an export for the server API has failed", extra=fields(reason=sentence))
            raise away("the files of this user can't be read now")
        response = web.StreamResponse(headers={"Content-Type": LINES})
        await response.prepare(request)
        while first:
            await response.write(first)
            first = await process.stdout.read(_CHUNK)
        if await process.wait() != 0:
            # The client must not take this for all there is.
            raise ConnectionResetError("the export has failed in the middle")
        await response.write_eof()
        return response
