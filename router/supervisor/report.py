"""What the supervisor tells of the server: the ready line, ``/status``, ``/metrics``, and the line for the service manager."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from core.process.settings import Settings
from router.admin.metrics import MetricsCollector
from router.supervisor.build import core_advice, core_kind, fastchat_version
from router.supervisor.draining import Drain
from router.supervisor.health import Health, Phase
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.resources import Resources
from router.supervisor.roles import Role

_log = logging.getLogger("fastchat.supervisor")

#: The settings that `/status` shows; others may be secret one day.
_SHOWN: Final = (
    "host",
    "port",
    "admin_host",
    "admin_port",
    "api_host",
    "api_port",
    "workers",
    "fronts",
    "data_dir",
    "run_dir",
    "store",
    "user_ids",
    "auth",
    "presence",
    "log_level",
    "log_format",
)


class Report:
    """Reads what the parts of the supervisor know. `is_preparing` tells whether the files of the store are being made."""

    def __init__(
        self,
        resources: Resources,
        roles: Sequence[Role],
        health: Health,
        drain: Drain,
        phase: Callable[[], Phase],
        is_preparing: Callable[[], bool],
    ) -> None:
        self._resources = resources
        self._roles = roles
        self._health = health
        self._drain = drain
        self._phase = phase
        self._is_preparing = is_preparing
        #: When the server was started, on the monotonic clock.
        self.started_at = time.monotonic()
        #: How often the supervisor became another program since.
        self.replaced = 0

    @property
    def _settings(self) -> Settings:
        return self._resources.settings

    def announce(self) -> None:
        """Print the line that says that the server is ready."""
        settings = self._settings
        line = (
            f"fastchat ready: ws://{_url_host(settings.host)}:{settings.port}/ws"
            f" admin http://{_url_host(settings.admin_host)}:{settings.admin_port}"
            f" workers={settings.workers} fronts={settings.fronts} pid={os.getpid()}\n"
        )
        with suppress(OSError):  # nobody may be reading, and the server is no worse for it
            os.write(1, line.encode())
        if settings.api_port is not None:
            _log.info("the server API is at http://%s:%d", _url_host(settings.api_host), settings.api_port)

    def collector(
        self, usage: ProcessUsage, api_calls: Callable[[], Mapping[tuple[str, int], int]]
    ) -> MetricsCollector:
        """Return what collects the metrics."""
        build = {"version": fastchat_version(), "python": platform.python_version(), "core": core_kind()}
        is_ready = self._health.is_ready
        return MetricsCollector(self._roles, usage, is_ready, build, lambda: self.replaced, api_calls)

    def in_a_line(self) -> str:
        """Return the state of everything, for the service manager."""
        settings = self._settings
        if self._is_preparing():
            return f"starting: making the files for {settings.workers} workers"
        if self._phase() is not Phase.SERVING:
            return self._phase()
        serving = f"serving on port {settings.port}, workers={settings.workers} fronts={settings.fronts}"
        return "; ".join(self._health.reasons()) or serving

    def status(self) -> dict[str, Any]:
        """Return the state of everything, as JSON takes it; `status` is what `/healthz` says, `reasons` what `/readyz` does."""
        return {
            "status": self._health.status,
            "reasons": self._health.reasons(),
            "version": fastchat_version(),
            "core": core_kind(),
            "core_advice": core_advice(),
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self.started_at, 1),
            "settings": {name: value for name, value in self._settings.as_json().items() if name in _SHOWN},
            "drain": self._drain.status(),
            "supervisor_replaced": self.replaced,
            "processes": [role.status() for role in self._roles],
        }


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
