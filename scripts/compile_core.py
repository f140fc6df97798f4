"""Compile the core to machine code, into a directory that does not exist yet. ``python scripts/compile_core.py DIRECTORY``

The result is a second ``core`` and a second ``workers`` in DIRECTORY, and a server that finds them there first uses them; nothing in the
source tree changes. What can't be compiled, or what takes no time, stays as it is. ``scripts/compiled_core.py`` decides when this has to be
done.

mypyc makes C of the typed Python of ``core/``, and of the store in memory, unchanged. Cython, in which picows is written, makes C of what
stands between picows and the core: also of unchanged Python, with the C types that the ``.pxd`` files beside it add.
``core/wire/plain.pyx`` takes the place of ``plain.py``.
"""

from __future__ import annotations

import os
import shutil
import sys
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Final

from Cython.Build import cythonize
from mypyc.build import mypycify
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

_PROJECT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("core", "workers")
#: Beyond ``core/``, what mypyc compiles.
_WITH_THE_CORE: Final = ("workers/store/memory.py",)
#: What Cython compiles.
_BESIDE_PICOWS: Final = ("core/wire/plain.pyx", "workers/connection.py", "workers/turn.py")
#: Protocols with positional-only arguments, enumerations, handlers of logging, tables, and what is done once for a
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
    "wire/plain.py",
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
    for package in _PACKAGES:
        shutil.copytree(_PROJECT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(target)
    modules = [
        str(path)
        for path in sorted(Path("core").rglob("*.py"))
        if path.name != "__init__.py" and str(path.relative_to("core")) not in _AS_IT_IS
    ]
    # A C file for each module: all of them in one file keep one processor busy for 83 s, for 1 % less time a message. Level 1: with
    # level 3 the compiler takes 55 s of CPU time in place of 36, for 2 % less time a message.
    extensions = mypycify(
        [*modules, *_WITH_THE_CORE, "--strict", "--explicit-package-bases"],
        opt_level="1",
        debug_level="0",
        target_dir="c",
        multi_file=True,
    )
    extensions += cythonize(  # type: ignore[no-untyped-call]
        [_extension(path) for path in _BESIDE_PICOWS],
        build_dir="c",
        # Types are those of the .pxd files: an annotation also admits subclasses, and None where C has none.
        compiler_directives={"language_level": 3, "annotation_typing": False},
        quiet=True,
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


def _extension(path: str) -> Extension:
    """Return what setuptools builds of a file."""
    name = path.rpartition(".")[0].replace("/", ".")
    return Extension(name, [path], extra_compile_args=["-O2", "-g0", "-Wno-sign-compare"])


if __name__ == "__main__":
    main()
