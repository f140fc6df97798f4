"""The commands about a data directory: ``fastchat check``, ``export``, ``purge``, ``backup`` and ``restore``.

They are tools of another program, ``workers.store``, of which this one knows the name only: it runs them.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import typer

#: Command -> what it does, in a line. The tool itself explains the rest.
_TOOLS: Final = {
    "check": "Look for damage in a data directory.",
    "export": "Print everything that is stored about a user.",
    "purge": "Delete a user of a server that is stopped.",
    "backup": "Copy a data directory, also of a running server.",
    "restore": "Make a data directory of a backup.",
}
_RUN: Final = "import sys; from workers.store.__main__ import main; sys.exit(main(sys.argv[1:], 'fastchat'))"


def add_store_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    for tool, summary in _TOOLS.items():
        app.command(tool, help=summary, context_settings=settings)(_run)


def _run(context: typer.Context) -> None:
    done = subprocess.run([sys.executable, "-c", _RUN, str(context.info_name), *context.args], check=False)  # noqa: S603 - our own program, and no shell
    raise typer.Exit(done.returncode)
