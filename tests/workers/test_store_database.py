"""workers.store.database and its migrations: a file is created, upgraded or refused, and never half of it."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from core.process.settings import ConfigurationError
from tests.workers.process import PROJECT
from workers.store import database as module
from workers.store import queries, statements
from workers.store.database import open_database, prepare_upgrade, upgrade
from workers.store.migrations import REVISION, migrate
from workers.store.retention import Bite, Probe
from workers.store.schema import metadata
from workers.store.storage import Storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # A name that a URI would take for something else.
    return tmp_path / "a shard %41?mode=memory#1.db"


def old_file(path: Path, revision: str) -> None:
    """Make a file with the tables that a FastChat of that revision made."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    migrate(path, None, revision)


def described(path: Path) -> list[tuple[object, ...]]:
    """Everything about a file that must not depend on how it was made; of the SQL, not where a line ends."""
    with closing(sqlite3.connect(path)) as connection:
        rows: list[tuple[object, ...]] = [
            (kind, name, table, re.findall(r"\w+|\S", sql))
            for kind, name, table, sql in connection.execute(
                "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY rowid"
            )
        ]
        for name in sorted({str(row[2]) for row in rows}):
            rows += [(name, *row) for row in connection.execute(f"SELECT * FROM {name}")]  # noqa: S608
        for pragma in ("page_size", "journal_mode", "user_version", "encoding", "auto_vacuum"):
            rows += [(pragma, *row) for row in connection.execute(f"PRAGMA {pragma}")]
    return rows


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_file_has_the_tables_of_the_schema(path: Path) -> None:
    upgrade(path)
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert tables(path) == {*metadata.tables, "alembic_version"}


def test_a_new_file_is_what_all_migrations_make(path: Path, tmp_path: Path) -> None:
    upgrade(path)
    old_file(migrated := tmp_path / "migrated.db", "head")
    assert described(path) == described(migrated)


def test_a_first_start_needs_neither_alembic_nor_sqlalchemy_nor_pydantic(tmp_path: Path) -> None:
    """They take longer to import than all the rest, and the server waits for this."""
    script = (
        "import sys; from pathlib import Path; from workers.store.__main__ import main; "
        "code = main(['prepare', sys.argv[1], '--workers', '2']); "
        "sys.exit(code or not {'alembic', 'sqlalchemy', 'pydantic'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=PROJECT)
    assert tables(tmp_path / "shards-1" / "shard-1.db") == {*metadata.tables, "alembic_version"}


def test_the_newest_revision_is_known_without_alembic() -> None:
    migrations = str(Path(module.__file__).parent / "migrations")
    config = Config()
    config.set_main_option("script_location", migrations)
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_the_statements_are_those_that_the_queries_make() -> None:
    """`python -m workers.store.queries` writes them."""
    assert Path(statements.__file__).read_text() == queries.source()


def test_a_file_that_is_up_to_date_needs_no_alembic(path: Path) -> None:
    upgrade(path)
    script = (
        "import sys; from pathlib import Path; from workers.store.database import open_database; "
        "open_database(Path(sys.argv[1]), 'os').close(); sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=PROJECT)


def test_what_an_upgrade_needs_is_loaded_before_without_a_change(path: Path) -> None:
    """A process that takes over from one of an older version does so, while nobody waits for it."""
    prepare_upgrade(path)
    assert not path.exists()
    migrate(path, None, "0006")
    prepare_upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0006",)
    upgrade(path)
    prepare_upgrade(path)


def test_upgrading_again_changes_nothing(path: Path) -> None:
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO users VALUES (1, 'bob', 0, 'Bob', 0, 'e', 0, 0, 0, 0, 0, 0, 0, 0)")
        connection.commit()
    upgrade(path)
    with closing(open_database(path, "os")) as database:
        assert database.value("SELECT count(*) FROM users") == 1


def test_chats_of_before_are_confirmed_as_they_were_announced_and_have_been_written_in(
    path: Path,
) -> None:
    """Nobody who could write yesterday is a stranger today (D20)."""
    old_file(path, "0001")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO users VALUES (1, 'bob', 0, 'Bob', 0, 'e', 0, 0, 0)")
        connection.execute("INSERT INTO chats VALUES (1, 1, 'ann', 'Ann', 0), (2, 1, 'cat', 'Cat', 1)")
        connection.commit()
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT peer, confirmed, written FROM chats ORDER BY number").fetchall()
    assert rows == [("ann", 0, 1), ("cat", 1, 1)]


def test_a_newer_file_is_refused(path: Path) -> None:
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(
        ConfigurationError, match=rf"newer version of FastChat.*revision 9999.*up to {REVISION}"
    ):
        open_database(path, "fsync")


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    path.write_bytes(b"This is a letter to my aunt. " * 100)
    with pytest.raises(ConfigurationError, match="can't be used: file is not a database"):
        open_database(path, "fsync")


def test_a_directory_that_does_not_exist(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be used: unable to open"):
        open_database(path / "shard.db", "fsync")


def test_an_interrupted_upgrade_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import command

    def interrupted(config: Config, revision: str) -> None:
        upgraded(config, revision)
        raise KeyboardInterrupt

    old_file(path, "0001")
    before = described(path)
    upgraded = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", interrupted)
        with pytest.raises(KeyboardInterrupt):
            upgrade(path)
    assert described(path) == before
    upgrade(path)
    assert "marks" in tables(path)


def test_a_killed_upgrade_leaves_the_file_as_it_was(path: Path) -> None:
    script = """if True:
        import os, sys
        from pathlib import Path
        from alembic import command
        from workers.store.database import upgrade
        upgraded = command.upgrade
        def killed(config, revision):
            upgraded(config, revision)
            os.kill(os.getpid(), 9)
        command.upgrade = killed
        upgrade(Path(sys.argv[1]))
    """
    old_file(path, "0001")
    before = described(path)
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=PROJECT).returncode == -9
    assert described(path) == before
    upgrade(path)
    assert "marks" in tables(path)


@pytest.mark.parametrize(("durability", "synchronous"), [("fsync", 2), ("os", 1)])
def test_durability(path: Path, durability: module.Durability, synchronous: int) -> None:
    """D20: FULL syncs every commit, NORMAL only when the log is moved into the file."""
    with closing(open_database(path, durability)) as database:
        assert database.value("PRAGMA synchronous") == synchronous
        assert database.value("PRAGMA journal_mode") == "wal"
        database.reconnect()
        assert database.value("PRAGMA synchronous") == synchronous


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    with closing(open_database(path, "os")) as database:
        with pytest.raises(ZeroDivisionError), database.transaction():
            database.execute("INSERT INTO acknowledged VALUES (1, 1)")
            raise ZeroDivisionError
        with database.transaction():
            database.execute("INSERT INTO acknowledged VALUES (2, 2)")
        assert database.value("SELECT group_concat(mailbox) FROM acknowledged") == "2"


def test_a_probe_mends_a_broken_connection(path: Path) -> None:
    with closing(Storage(path, "os")) as storage:
        storage.database.close()
        bite, probe = Bite(0, 0, 0), Probe()
        bite.execute(storage)
        assert bite.failure is not None
        assert "closed" in bite.failure
        probe.execute(storage)
        assert probe.failure is None
        assert storage.database.value("SELECT count(*) FROM users") == 0


def test_a_probe_does_not_make_a_file(path: Path) -> None:
    """A file that was taken away is a failure, and not a reason to begin with an empty one."""
    with closing(Storage(path, "os")) as storage:
        for file in path.parent.iterdir():
            file.unlink()
        probe = Probe()
        probe.execute(storage)
        assert probe.failure is not None
        assert "unable to open" in probe.failure
        assert list(path.parent.iterdir()) == []
