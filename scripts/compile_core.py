"""Compile the core to machine code: ``make run COMPILED=1`` does it. ``python scripts/compile_core.py DIRECTORY``

mypyc makes C of the typed Python of ``core/``, unchanged. The result is a second ``core`` package in DIRECTORY, and a server that finds it
there first uses it; nothing in the source tree changes, so nothing there can be out of date. What mypyc can't compile stays as it is.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from mypyc.build import mypycify
from setuptools import Distribution

_CORE: Final = Path(__file__).parents[1] / "core"
#: Protocols with positional-only arguments, enumerations, models of pydantic, handlers of logging, and tables: nothing that takes time.
_AS_IT_IS: Final = (
    "chat/ports.py",
    "chat/store.py",
    "process/allocator.py",
    "process/capacity.py",
    "process/cgroups.py",
    "process/child.py",
    "process/configuration.py",
    "process/control.py",
    "process/data_directory.py",
    "process/log_output.py",
    "process/log_throttle.py",
    "process/logs.py",
    "process/settings.py",
    "reference/codes.py",
    "reference/error_details.py",
    "reference/messages.py",
    "wire/protocol.py",
)


def main() -> None:
    """Compile into a new directory and put it in place of the old one."""
    target = Path(sys.argv[1]).absolute()
    building = target.with_name(f"{target.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(_CORE, building / "core", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(building)
    modules = [
        str(path)
        for path in sorted(Path("core").rglob("*.py"))
        if path.name != "__init__.py" and str(path.relative_to("core")) not in _AS_IT_IS
    ]
    distribution = Distribution(
        {
            "name": "fastchat-core",
            "ext_modules": mypycify(
                [*modules, "--strict", "--explicit-package-bases"],
                opt_level="3",
                debug_level="0",
                target_dir="c",
            ),
        }
    )
    command = distribution.get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


if __name__ == "__main__":
    main()
