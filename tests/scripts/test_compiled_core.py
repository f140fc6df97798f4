"""Tests of which compiled core is taken, and when one is compiled. What compiles is replaced by what compiles one small module."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from scripts import compiled_core
from scripts.compiled_core import Unavailable, find, find_or_build

#: In place of scripts/compile_core.py: a core with one compiled module, in a second.
_SMALL: Final = """
import os, pathlib, subprocess, sys, sysconfig
core = pathlib.Path(sys.argv[1], "core")
core.mkdir(parents=True)
(core / "__init__.py").touch()
(core / "small.c").write_text('''#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "small"};
PyMODINIT_FUNC PyInit_small(void) { return PyModule_Create(&module); }''')
include = "-I" + sysconfig.get_path("include")
target = core / ("small" + sysconfig.get_config_var("EXT_SUFFIX"))
subprocess.run([os.environ["CC"], "-shared", "-fPIC", include, core / "small.c", "-o", target], check=True)
"""
#: The same, killed half-way.
_KILLED: Final = _SMALL + "\ntarget.write_bytes(b'half')\nos.kill(os.getpid(), 9)\n"


@pytest.fixture
def cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the builds, for this test alone."""
    directory = tmp_path / "cores"
    monkeypatch.setenv(compiled_core.CORES, str(directory))
    monkeypatch.delenv("CC", raising=False)
    compile_with(_SMALL, tmp_path, monkeypatch)
    return directory


def compile_with(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compile.py"
    path.write_text(program)
    monkeypatch.setattr(compiled_core, "_COMPILE", path)
    monkeypatch.setattr(compiled_core, "PROJECT", tmp_path)
    monkeypatch.setattr(compiled_core, "_SOURCES", (tmp_path / "sources",))


def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make this the only C compiler."""
    path = tmp_path / "bin" / "cc"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def builds(cores: Path) -> list[str]:
    return sorted(path.name for path in cores.iterdir() if path.is_dir())


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@needs_cc
def test_it_is_compiled_once(cores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find() is None
    path = find_or_build()
    assert capsys.readouterr().err.startswith(
        "compiling the core to machine code (COMPILED=0 leaves it) ... done, "
    )
    assert (find(), find_or_build()) == (path, path)
    assert capsys.readouterr().err == ""
    assert builds(cores) == [path.name]


@pytest.mark.slow
@needs_cc
@pytest.mark.parametrize("changed", ["sources", "compiler"])
def test_what_was_made_of_something_else_is_not_taken(
    cores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    path = find_or_build()
    if changed == "sources":
        (tmp_path / "sources").mkdir()
        (tmp_path / "sources" / "chat.py").write_text("")
    else:
        compiler(tmp_path, monkeypatch, 'exec cc "$@"')
    assert find() is None
    assert find_or_build() != path
    assert path.exists(), "a server may run on it"


@pytest.mark.slow
@needs_cc
def test_without_the_compiler_a_build_is_still_good(cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_or_build()
    path.with_name(f"{path.name}.1.new").mkdir()
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_or_build() == path


@pytest.mark.slow
@needs_cc
def test_only_the_last_builds_are_kept(cores: Path, tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    for number in range(5):
        (tmp_path / "sources" / "chat.py").write_text(f"NUMBER = {number}")
        path = find_or_build()
        os.utime(path, (number, number))
    assert len(builds(cores)) == 3
    assert find() == path


def test_no_compiler(cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        Unavailable, match="there is no C compiler; install a C compiler and Python's headers"
    ):
        find_or_build()
    assert not cores.exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo no licence >&2; exit 1", "no licence"), ("exit 0", "wrote nothing"), ("kill -9 $$", "SIGKILL")],
)
def test_a_compiler_that_does_not_work(
    cores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    compiler(tmp_path, monkeypatch, script)
    with pytest.raises(Unavailable, match=str(cores / "compile.log")):
        find_or_build()
    assert reason in (cores / "compile.log").read_text()
    assert builds(cores) == []


@needs_cc
def test_compiling_that_is_killed_leaves_nothing_that_is_taken(
    cores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_with(_KILLED, tmp_path, monkeypatch)
    with pytest.raises(Unavailable):
        find_or_build()
    assert (find(), builds(cores)) == (None, [])


@pytest.mark.slow
@needs_cc
def test_a_build_that_can_not_be_loaded_is_made_again(cores: Path) -> None:
    """As after a change of the C library, or a disk that failed."""
    path = find_or_build()
    [module] = path.rglob("*.so")
    module.unlink()
    module.write_bytes(b"\x7fELF of another machine")
    assert find_or_build() == path
    assert compiled_core._loads(path)


@pytest.mark.slow
@needs_cc
def test_packages_that_can_not_be_installed(
    cores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_core, "_installed", lambda name: None)
    shutil.copy(compiled_core._LOCK_FILE, tmp_path)
    (tmp_path / "Makefile").touch()
    (tmp_path / "pyproject.toml").write_text('[project]\noptional-dependencies = {compile = ["mypy"]}\n')
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_IGNORE_INSTALLED", "1")
    with pytest.raises(Unavailable):
        find_or_build()
    assert "ERROR: " in (cores / "compile.log").read_text()


def test_a_directory_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled_core.CORES, "/dev/null/cores")
    with pytest.raises(Unavailable, match="Not a directory"):
        find_or_build()


@pytest.mark.slow
@needs_cc
def test_two_at_once_compile_once(cores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.submit(find_or_build), pool.submit(find_or_build)
        assert first.result() == second.result()
    assert capsys.readouterr().err.count("compiling the core") == 1


def test_the_environment_of_a_server_keeps_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/others")
    assert compiled_core.environment_for(Path("/core"))["PYTHONPATH"] == "/core:/others"
    assert sys.path, "of this process it changes nothing"
