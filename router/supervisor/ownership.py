"""Whether a directory or file is this user's alone: whoever else can write to it may put something in the place of ours."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from pathlib import Path


def foreign(path: Path, status: os.stat_result) -> str | None:
    """Return what is wrong with something of this status and what mends it, as a sentence that its name begins; None if nothing."""
    name = shlex.quote(str(path))
    if status.st_uid != os.geteuid():
        owner, us = user_name(status.st_uid), user_name(os.geteuid())
        return f"belongs to another user, {owner}, and the server runs as {us}: start the server as {owner}, or run `chown -R {us} {name}`"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return (
            f"is writable by other users (mode {stat.S_IMODE(status.st_mode):04o}): run `chmod go-w {name}`"
        )
    return None


def user_name(uid: int) -> str:
    """Return what a user is called; the number of one who has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
