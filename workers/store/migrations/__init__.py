"""The history of the schema, as Alembic revisions.

To change the schema: change ``workers/store/schema.py``, add a file in ``versions`` and name it here, and change
``workers/store/new_file.py``, of which new files are made. Tests compare the three.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.process.settings import ConfigurationError
from workers.store.data_directory import file_uri

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest revision, which the tables in ``workers.store.schema`` describe. Alembic knows it too, but takes 0.3 s to import.
REVISION: Final = "0009"


def load() -> None:
    """Import what `migrate` needs, which takes longer than most migrations."""
    from alembic import command  # noqa: F401 - it is to be there
    from alembic.script import ScriptDirectory

    for revision in ScriptDirectory.from_config(_config()).walk_revisions():
        assert revision.module is not None, "each has a file"


def migrate(path: Path, revision: str | None, target: str = "head") -> None:
    """Bring the tables of a file from `revision` to `target`, in one transaction.

    Raises ConfigurationError for a revision that only a newer FastChat knows, and sqlite3.Error.
    """
    # Only here, since most starts have nothing to do and these take longer to import than all the rest.
    from alembic import command
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    config = _config()
    if revision is not None:
        _check_known(config, path, revision)
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(file_uri(path, "rwc"), uri=True, check_same_thread=False),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
    )
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                command.upgrade(config, target)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
    except DBAPIError as error:
        raise sqlite3.OperationalError(str(error.orig)) from error


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _check_known(config: Config, path: Path, revision: str) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError:
        raise ConfigurationError(
            f"the database {path} was written by a newer version of FastChat: the tables have revision {revision}, "
            f"and this version supports revisions up to {REVISION}; start the newer version, or use another data directory"
        ) from None
