"""The core compiled to machine code: find it, or compile it. ``python -m scripts.compiled_core`` prints the directory to put on PYTHONPATH.

A build is a directory of ``build/compiled/`` (or of the directory that the environment variable COMPILED_CORES names). Its name is made of
the contents of the sources, the version of Python and of mypy, and the C compiler. So a build of something else is never taken, one that a
running server uses is never written to, and there is nothing to invalidate. A build gets its name when it is complete and all of its
modules could be loaded; until then it has a name that nobody looks for. One process at a time builds, under a lock.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Final

PROJECT: Final = Path(__file__).resolve().parents[1]
#: Environment variable: the directory of all builds.
CORES: Final = "COMPILED_CORES"
#: What compiles, and what is compiled.
_COMPILE: Final = PROJECT / "scripts" / "compile_core.py"
_SOURCES: Final = (PROJECT / "core", PROJECT / "workers")
_KINDS_OF_SOURCES: Final = ("*.py", "*.pyx", "*.pxd")
_LOCK_FILE: Final = PROJECT / "requirements.lock"
#: The end of the name of a build that is not complete.
_UNFINISHED: Final = ".new"
#: C compilers, by preference, unless the environment variable CC names one.
_COMPILERS: Final = ("cc", "gcc", "clang")
#: What Debian and Ubuntu call what is needed.
_NEEDED: Final = "a C compiler and Python's headers (apt-get install gcc libc6-dev python3-dev)"
#: Builds that are kept, the last used ones: servers of other versions of the sources may run.
_KEPT: Final = 3
#: Seconds for a question to the compiler, for the packages, and for all of the compiling. None of them may keep a server from starting.
_PATIENCE: Final = 30.0
_INSTALL_PATIENCE: Final = 120.0
_COMPILE_PATIENCE: Final = 600.0
#: Loads each compiled module of the core, and nothing else in its place. The other modules are those of the sources.
_LOAD: Final = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
compiled = list(root.glob("*/**/*.so"))
for path in compiled:
    name = ".".join(path.relative_to(root).parts).split(".cpython-")[0].removesuffix(".so")
    assert importlib.import_module(name).__file__ == str(path), name
assert compiled, "no module is compiled"
"""


class Unavailable(Exception):
    """There is no compiled core; the message is a sentence that says why, and what to do."""


def find(cores: Path | None = None) -> Path | None:
    """Return the build of the present sources, Python and compiler, if there is one. Without a compiler the last one of any compiler."""
    cores = cores or _cores()
    compiler = _compiler()
    if compiler is not None:
        path = cores / f"{_key_of_sources()}-{_key_of_compiler(compiler)}"
        return path if path.is_dir() else None
    builds = [path for path in cores.glob(f"{_key_of_sources()}-*") if path.suffix != _UNFINISHED]
    return max(builds, key=lambda path: path.stat().st_mtime, default=None)


def find_or_build() -> Path:
    """Return the build of the present sources, Python and compiler, and compile it first if there is none that works.

    Says on standard error that it compiles and how long that took. Raises Unavailable.
    """
    cores = _cores()
    try:
        found = find(cores)
        if found is not None and _loads(found):
            with suppress(OSError):  # it may belong to somebody else
                os.utime(found)
            return found
        compiler = _compiler()
        if compiler is None:
            raise Unavailable(f"there is no C compiler; install {_NEEDED}")
        cores.mkdir(parents=True, exist_ok=True)
        with _lock(cores / ".lock", "waiting for another process that compiles the core ..."):
            found = find(cores)
            if found is not None and _loads(found):
                return found
            return _build(cores, compiler)
    except OSError as error:
        raise Unavailable(f"the core can't be compiled: {error}") from None


def _build(cores: Path, compiler: str) -> Path:
    path = cores / f"{_key_of_sources()}-{_key_of_compiler(compiler)}"
    for useless in [path, *cores.glob(f"*{_UNFINISHED}")]:
        shutil.rmtree(useless, ignore_errors=True)
    # What a killed one has left running does not write into this one.
    building = path.with_name(f"{path.name}.{os.getpid()}{_UNFINISHED}")
    started = time.monotonic()
    log_path = cores / "compile.log"
    print(
        "compiling the core to machine code (COMPILED=0 leaves it) ...", end="", file=sys.stderr, flush=True
    )
    outcome = "failed"
    try:
        with log_path.open("w") as log:
            _try_compiler(compiler, log)
            _install_tools(log)
            _run([sys.executable, str(_COMPILE), str(building)], _COMPILE_PATIENCE, log, compiler)
            if not _loads(building, log):
                raise subprocess.SubprocessError
        building.rename(path)
        outcome = "done"
    except subprocess.SubprocessError:
        raise Unavailable(
            f"the core could not be compiled, and {log_path} has the reason; it takes {_NEEDED}"
        ) from None
    finally:
        print(f" {outcome}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        if outcome == "failed":
            shutil.rmtree(building, ignore_errors=True)
    builds = [each for each in cores.iterdir() if each.is_dir()]
    for old in sorted(builds, key=lambda each: each.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


# -- What a build depends on --


def _cores() -> Path:
    return Path(os.environ.get(CORES) or PROJECT / "build" / "compiled").absolute()


def _key_of_sources() -> str:
    """Return a digest of the sources, and of Python and the packages that compile them."""
    digest = sha256()
    facts = [sys.version, sysconfig.get_config_var("SOABI"), platform.machine(), _LOCK_FILE.read_text()]
    sources = (path for package in _SOURCES for kind in _KINDS_OF_SOURCES for path in package.rglob(kind))
    for path in [_COMPILE, *sorted(sources)]:
        facts += [str(path.relative_to(PROJECT)), path.read_text()]
    for fact in facts:
        digest.update(f"{fact}\0".encode())
    return digest.hexdigest()[:16]


def _compiler() -> str | None:
    """Return the path of the C compiler; None if there is none."""
    chosen = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [chosen] if chosen else _COMPILERS)), None)


@cache
def _key_of_compiler(compiler: str) -> str:
    """Return a digest of which compiler it is; one that can't even say so is another."""
    try:
        asked = subprocess.run([compiler, "--version"], capture_output=True, timeout=_PATIENCE)
        said = asked.stdout
    except (OSError, subprocess.SubprocessError):
        said = b""
    return sha256(os.path.realpath(compiler).encode() + said).hexdigest()[:8]


# -- Steps of a build: each raises SubprocessError when it fails, and the log says why --


def _try_compiler(compiler: str, log: IO[str]) -> None:
    """Compile a file that needs the headers of Python, which takes a moment, before everything that takes long."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "trial.c")
        source.write_text("#include <Python.h>\nPyObject *trial(void) { return PyLong_FromLong(1); }\n")
        include = f"-I{sysconfig.get_path('include')}"
        command = [compiler, "-shared", "-fPIC", include, str(source), "-o", f"{directory}/trial.so"]
        _run(command, _PATIENCE, log, compiler)
        if not Path(directory, "trial.so").exists():
            log.write(f"{compiler} reported success and wrote nothing\n")
            raise subprocess.SubprocessError


def _install_tools(log: IO[str]) -> None:
    """Install Cython, mypy and setuptools in the versions of requirements.lock, if they are not there."""
    pinned = dict(line.split("==") for line in _LOCK_FILE.read_text().splitlines() if "==" in line)
    if all(_installed(name) == pinned[name] for name in ("cython", "mypy", "setuptools")):
        return
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    words = ["install", "-qq", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    words += ["--constraint", str(_LOCK_FILE), *project["optional-dependencies"]["compile"]]
    # The lock of the Makefile, which may be installing too.
    with _lock(PROJECT / "Makefile", "waiting for another process that installs packages ..."):
        _run([sys.executable, "-m", "pip", *words], _INSTALL_PATIENCE, log)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _loads(path: Path, log: IO[str] | None = None) -> bool:
    """Return whether all modules of a build can be loaded, which is tried in a process of its own: they may even crash."""
    environment = os.environ | environment_for(path)
    try:
        loaded = subprocess.run(
            [sys.executable, "-c", _LOAD, str(path)],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log or subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except subprocess.SubprocessError:
        return False
    return loaded.returncode == 0


def environment_for(path: Path) -> dict[str, str]:
    """Return the environment variables with which Python takes the core of this build."""
    others = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{path}{os.pathsep}{others}" if others else str(path), "PYTHONSAFEPATH": "1"}


def _run(command: list[str], patience: float, log: IO[str], compiler: str | None = None) -> None:
    environment = os.environ | ({} if compiler is None else {"CC": compiler})
    log.write(f"$ {' '.join(command)}\n")
    log.flush()
    try:
        subprocess.run(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=patience,
            check=True,
        )
    except subprocess.SubprocessError as error:
        log.write(f"{error}\n")
        raise


@contextmanager
def _lock(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock of a file, which ends with the process; say `waiting` when another one has it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Print the directory of the compiled core; the exit code."""
    try:
        print(find_or_build())
    except Unavailable as reason:
        print(f"compiled core: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
