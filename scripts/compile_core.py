"""Compile the core to machine code, into a directory that does not exist yet. ``python scripts/compile_core.py DIRECTORY``

mypyc makes C of the typed Python of ``core/``, unchanged. The result is a second ``core`` package in DIRECTORY, and a server that finds it
there first uses it; nothing in the source tree changes. What mypyc can't compile, or what takes no time, stays as it is.
``scripts/compiled_core.py`` decides when this has to be done.
"""

from __future__ import annotations

import os
import shutil
import sys
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Final

from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

_CORE: Final = Path(__file__).parents[1] / "core"
#: Protocols with positional-only arguments, enumerations, models of pydantic, handlers of logging, tables, and what is done once for a
#: connection or a process: nothing that takes time.
_AS_IT_IS: Final = (
    "auth/keys.py",
    "auth/tokens.py",
    "chat/kept_limits.py",
    "chat/operator.py",
    "chat/ports.py",
    "chat/store.py",
    "process/addresses.py",
    "process/allocator.py",
    "process/capacity.py",
    "process/cgroups.py",
    "process/child.py",
    "process/configuration.py",
    "process/control.py",
    "process/data_directory.py",
    "process/layout.py",
    "process/log_output.py",
    "process/log_throttle.py",
    "process/logs.py",
    "process/metrics.py",
    "process/service_links.py",
    "process/settings.py",
    "reference/codes.py",
    "reference/error_details.py",
    "reference/messages.py",
    "reference/rows.py",
    "wire/html_names.py",
    "wire/protocol.py",
    "wire/unicode_tables.py",
)


class _ParallelBuild(build_ext):  # type: ignore[misc]
    """Compiles several files at a time; setuptools by itself builds only whole extension modules beside each other."""

    def build_extensions(self) -> None:
        compile_files = self.compiler.compile

        def compile_in_parallel(sources: list[str], *arguments: Any, **keywords: Any) -> list[str]:
            with ThreadPool(self.parallel) as pool:
                objects = pool.map(
                    lambda source: compile_files([source], *arguments, **keywords), sources, chunksize=1
                )
            return list(chain.from_iterable(objects))

        self.compiler.compile = compile_in_parallel
        super().build_extensions()


def main() -> None:
    """Compile into the directory that the command line names."""
    target = Path(sys.argv[1]).absolute()
    shutil.copytree(_CORE, target / "core", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(target)
    modules = [
        str(path)
        for path in sorted(Path("core").rglob("*.py"))
        if path.name != "__init__.py" and str(path.relative_to("core")) not in _AS_IT_IS
    ]
    # A C file for each module: all of them in one file keep one processor busy for 83 s, for 1 % less time a message. Level 1: with
    # level 3 the compiler takes 55 s of CPU time in place of 36, for 2 % less time a message.
    extensions = mypycify(
        [*modules, "--strict", "--explicit-package-bases"],
        opt_level="1",
        debug_level="0",
        target_dir="c",
        multi_file=True,
    )
    attributes = {
        "name": "fastchat-core",
        "ext_modules": extensions,
        "cmdclass": {"build_ext": _ParallelBuild},
    }
    command = Distribution(attributes).get_command_obj("build_ext")
    command.inplace = True
    command.parallel = len(os.sched_getaffinity(0))
    command.ensure_finalized()
    command.run()
    # Megabytes of C and object files that nobody needs any more.
    for directory in ("build", "c"):
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
