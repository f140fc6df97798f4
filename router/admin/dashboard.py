"""The dashboard on the admin port: a page, the files that it needs, and the numbers that it shows. It only reads.

| path | what |
|---|---|
| ``/`` | goes to the page |
| ``/dashboard/`` | the page; its files, those in ``web/dashboard``, are beside it |
| ``/dashboard/plotly-VERSION.min.js`` | the library for charts, out of the package plotly; browsers keep it for good |
| ``/dashboard/about`` | what stays the same while the server runs: the ends of the histograms' ranges, versions |
| ``/dashboard/samples?step=1&after=N&events=M`` | samples of 1 or 60 s behind number N, events behind number M, and how everything is now |

The page asks for samples once a second; the answer has what is new and is about as large as its headers. Nothing comes from elsewhere, and
the page's policy (CSP, ``router.security_headers``) makes sure of it.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from core.wire.codec import to_json
from router.admin.samples import MINUTE, SECOND, Samples, bounds
from router.security_headers import page_policy
from router.static_files import WEB, StaticFile, accepts_gzip, read_static_files

_PAGE: Final = "dashboard.html"
#: An answer of more bytes is compressed, for who looks through a tunnel.
_COMPRESS_BYTES: Final = 16 * 1024
#: Little work; a stronger one makes samples hardly smaller.
_COMPRESS_LEVEL: Final = 1
#: A year, which is how one says for ever.
_FOR_GOOD: Final = "public, max-age=31536000, immutable"
#: Of a number in a query.
_DIGITS_MAX: Final = 15

#: Inline style is what plotly can't do without.
_HEADERS: Final = {"Content-Security-Policy": page_policy(style="'self' 'unsafe-inline'")}

#: What `/status` says of each process that the page shows.
_SHOWN: Final = ("kind", "index", "pid", "state", "problem", "uptime", "restarts", "replaced", "last_end")
#: What the process has reported of that it shows: of its replacement.
_REPORTED: Final = ("takeover_seconds", "not_moved_total")


class Dashboard:
    """`status` returns what `/status` shows."""

    def __init__(
        self, samples: Samples, status: Callable[[], Mapping[str, Any]], instance: str | None = None
    ) -> None:
        """`instance` is that of the program whose samples these were, if a page of its need not be loaded again."""
        self._samples = samples
        self._status = status
        #: Tells this start of the server from others, whose samples were numbered from 1 too.
        self.instance = instance or f"{time.time_ns():x}"
        self._plotly_version = _plotly_version()
        self._files = read_static_files(WEB / "dashboard")
        #: The bundle, once somebody has asked for it.
        self._plotly: asyncio.Future[StaticFile] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return its routes, for `AdminServer`."""
        return [
            web.get("/", self._go_to_page),
            web.get("/dashboard", self._go_to_page),
            web.get("/dashboard/", self._get_page),
            web.get("/dashboard/about", self._get_about),
            web.get("/dashboard/samples", self._get_samples),
            web.get("/dashboard/{name}", self._get_file),
        ]

    # -- Files --

    async def _go_to_page(self, request: web.Request) -> web.StreamResponse:
        # Relative, so that it holds behind a proxy that serves all this below a path of its own.
        raise web.HTTPFound("dashboard/")

    async def _get_page(self, request: web.Request) -> web.StreamResponse:
        return self._files[_PAGE].answer(request, _HEADERS)

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name == self._plotly_name():
            return await self._get_plotly(request)
        if name not in self._files:
            raise web.HTTPNotFound(text="There is no such file.\n")
        return self._files[name].answer(request, _HEADERS)

    async def _get_plotly(self, request: web.Request) -> web.StreamResponse:
        path = _plotly_path()
        if path is None:
            raise web.HTTPNotFound(
                text="The package plotly is not installed: pip install 'fastchat[charts]'.\n"
            )
        if self._plotly is None:
            # It has megabytes, and compressing them takes most of a second.
            self._plotly = asyncio.ensure_future(asyncio.to_thread(StaticFile.read, path, _FOR_GOOD))
        return (await asyncio.shield(self._plotly)).answer(request, _HEADERS)

    def _plotly_name(self) -> str:
        return f"plotly-{self._plotly_version}.min.js"

    # -- Numbers --

    async def _get_about(self, request: web.Request) -> web.StreamResponse:
        status = self._status()
        about = {name: status[name] for name in ("version", "core", "settings")}
        return await _json(request, {**about, "plotly": self._plotly_name(), "bounds": bounds()})

    async def _get_samples(self, request: web.Request) -> web.StreamResponse:
        step = _number(request, "step", SECOND)
        if step not in (SECOND, MINUTE):
            raise web.HTTPBadRequest(text=f"step is {SECOND} or {MINUTE}, in seconds\n")
        answer = self._samples.tiers[step].after(_number(request, "after", 0))
        answer["instance"] = self.instance
        answer["latest"] = {str(tier.step): tier.last for tier in self._samples.tiers.values()}
        answer["events"] = self._samples.events_after(_number(request, "events", 0))
        answer["now"] = self._now()
        return await _json(request, answer)

    def _now(self) -> dict[str, Any]:
        status = self._status()
        processes = [
            {name: each[name] for name in _SHOWN} | {name: each["stats"].get(name) for name in _REPORTED}
            for each in status["processes"]
        ]
        reasons = list(status["reasons"])
        for each in processes:
            reason = f"{each['kind']} {each['index']}: {each['problem']}"
            if each["problem"] and reason not in reasons:
                reasons.append(reason)
        return {
            **{name: status[name] for name in ("status", "version", "pid", "uptime")},
            "reasons": reasons,
            "drain": status["drain"],
            "processes": processes,
        }


def _number(request: web.Request, name: str, default: int) -> int:
    """Parse a parameter of the query; 400 when it is not a number that could be meant."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise web.HTTPBadRequest(text=f"{name} is a number from 0 on\n")
    return int(text)


async def _json(request: web.Request, value: Mapping[str, Any]) -> web.Response:
    body, headers = to_json(value), {}
    if len(body) > _COMPRESS_BYTES and accepts_gzip(request):
        body = await asyncio.to_thread(gzip.compress, body, _COMPRESS_LEVEL)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, content_type="application/json", headers=headers)


def _plotly_version() -> str | None:
    try:
        return version("plotly")
    except PackageNotFoundError:
        return None


def _plotly_path() -> Path | None:
    """Return where the bundle is; the package is not imported for that, since it takes time and memory."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return path if path.is_file() else None
