"""workers.store.memory: what it does beyond the contract, which test_store_contract.py checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.store_driver import StoreDriver
from workers.store.memory import ACKNOWLEDGED_KEPT


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver("memory", tmp_path)
    yield driver
    driver.close()


def test_only_so_many_acknowledged_messages_are_kept(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    driver.append(bob, "alice", *(str(number) for number in range(1, 2001)))
    driver.settle()
    bob.mailbox.acknowledge_through(1500)
    driver.store.save_acknowledged(bob)
    driver.settle()
    (user_id, through) = driver.purged[-1]
    assert user_id == "bob"
    assert 1500 - ACKNOWLEDGED_KEPT <= through < 1500
    assert bob.mailbox.purged_through == through
    assert driver.read(bob, 0)[0].seq == through + 1
    assert driver.find(bob, "alice", str(through)) == []
    assert [message.seq for message in driver.find(bob, "alice", "2000")] == [2000]


def test_what_waits_for_an_acknowledgement_is_kept(driver: StoreDriver) -> None:
    """D20: a mailbox evicts nothing."""
    bob = driver.user("bob")
    driver.append(bob, "alice", *(str(number) for number in range(1, 3001)))
    driver.settle()
    bob.mailbox.acknowledge(3000)
    driver.store.save_acknowledged(bob)
    driver.settle()
    assert driver.purged == []
    assert driver.read(bob, 0)[0].seq == 1


def test_only_so_many_withheld_messages_are_kept(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    for number in range(3 * ACKNOWLEDGED_KEPT):
        driver.append(bob, "alice", f"{number}", withheld=True)
    driver.settle()
    kept = len(driver.withheld("bob", "alice", limit=10**4))
    assert ACKNOWLEDGED_KEPT <= kept <= 1.5 * ACKNOWLEDGED_KEPT
    assert driver.find(bob, "alice", "0") == []
    assert len(driver.find(bob, "alice", f"{3 * ACKNOWLEDGED_KEPT - 1}")) == 1
    assert driver.purged == []


def test_what_is_removed_is_not_unread_any_more(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    driver.append(bob, "alice", *(str(number) for number in range(1, 2001)))
    driver.settle()
    driver.mark_read(bob, "alice", 100)
    bob.mailbox.acknowledge_through(1500)
    driver.store.save_acknowledged(bob)
    driver.settle()
    assert bob.chats["alice"].unread == 2000 - bob.mailbox.purged_through


def test_it_counts(driver: StoreDriver) -> None:
    driver.append(driver.user("bob"), "alice", "1", "2", "1")
    assert driver.store.stats()["store_waiting"] == 3
    driver.settle()
    expected = {
        "store_rows_total": 2,
        "store_waiting": 0,
        "store_failing": 0,
        "store_log_bytes": 0,
        "store_unfolded_rows": 0,
    }
    assert driver.store.stats() == expected
    assert driver.store.failure is None
