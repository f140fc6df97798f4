"""For all tests: which of them take too long for `make test`, how many examples are made, and what their processes inherit."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

import hypothesis
import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

#: Seconds beyond which a test, alone on a quiet machine, has to be marked ``slow``.
SLOW_SECONDS: Final = 5.0

# How long one example takes says more about what else the machine does than about what is tested. `make test` takes the profile `few`.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.register_profile("few", deadline=None, max_examples=20)
hypothesis.settings.load_profile("all")

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Whoever runs the tests with nohup has not meant the servers that they start, to which SIGHUP means something. A handler is not
    # inherited by what is started, unlike SIG_IGN, and keeps this process from ending, unlike SIG_DFL.
    signal.signal(signal.SIGHUP, lambda number, frame: None)


class _SlowTests:
    """Tells at the end which tests are to be marked. It fails nothing, since machines differ."""

    def __init__(self) -> None:
        self._unmarked: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.duration > SLOW_SECONDS and "slow" not in report.keywords:
            self._unmarked.append(report)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._unmarked:
            terminalreporter.section(f"over {SLOW_SECONDS:g} s and not marked slow")
            for report in sorted(self._unmarked, key=lambda report: -report.duration):
                terminalreporter.write_line(f"{report.duration:6.1f} s  {report.nodeid}")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the garbage collector out: there is no garbage yet, and all that was collected stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_SlowTests())
