"""core.reference.messages and core.reference.codes: the tables of the reference name what the core knows, all of it, and nothing else."""

from __future__ import annotations

from enum import IntEnum

import pytest

from core.reference.codes import CAPABILITIES, CLOSES, ERRORS
from core.reference.messages import FROM_CLIENT, FROM_SERVER
from core.reference.rows import Message
from core.wire.protocol import CAPABILITIES as IN_FORCE
from core.wire.protocol import CloseCode, ErrorCode, MessageType
from tests.core.world import World

COMMANDS = World(1).shards[0].commands


def constants(table: type) -> set[str]:
    """The values of a table of constants."""
    return {value for name, value in vars(table).items() if name.isupper()}


def test_every_message_type_has_a_row() -> None:
    assert {message.type for message in FROM_CLIENT + FROM_SERVER} == constants(MessageType)


@pytest.mark.parametrize("messages", [FROM_CLIENT, FROM_SERVER], ids=["client", "server"])
def test_no_row_is_there_twice(messages: tuple[Message, ...]) -> None:
    types = [message.type for message in messages]
    assert len(types) == len(set(types))
    for message in messages:
        names = [field.name for field in message.fields]
        assert len(names) == len(set(names)), message.type


def test_clients_may_say_what_the_command_table_takes() -> None:
    """With the same capabilities; and the field that says whom a command is about is one of its fields."""
    assert {message.type: message.capabilities for message in FROM_CLIENT} == {
        kind: command.capabilities for kind, command in COMMANDS.items()
    }
    for message in FROM_CLIENT:
        about = COMMANDS[message.type].about
        assert about is None or about in {field.name for field in message.fields}


def test_the_codes_and_capabilities_are_all_there() -> None:
    assert issubclass(CloseCode, IntEnum)
    assert [row.code for row in CLOSES] == sorted(CloseCode)
    # Whether to come back, before when.
    assert all(row.back.startswith(("yes, ", "no", "as the client likes")) for row in CLOSES)
    assert {row.code for row in ERRORS} == constants(ErrorCode)
    assert {name for name, _ in CAPABILITIES} == IN_FORCE


def test_capabilities_of_fields_exist() -> None:
    named = {field.capability for message in FROM_CLIENT + FROM_SERVER for field in message.fields}
    assert named - {None} <= IN_FORCE
