"""Tests of router.supervisor.handed_on: what one program writes another one reads as it was, or refuses with a sentence."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Final, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.process.descriptors import NOT_OPEN, Descriptor
from core.process.settings import Settings
from router.admin.recorder import RecorderState
from router.operator.socket import OperatorsState
from router.supervisor.children import ChildState
from router.supervisor.handed_on import VERSION, HandedOn, NotUnderstood, read_state, write_state
from router.supervisor.operator_access import AccessState
from router.supervisor.problem_log import KnownState
from router.supervisor.process_usage import StartedState
from router.supervisor.resources import ResourcesState
from router.supervisor.restart_policy import PolicyState
from router.supervisor.roles import RoleState
from router.supervisor.run_directory import RunDirectoryState
from router.supervisor.service_manager import NotifiedState
from tests.examples import examples


def opened(*numbers: int) -> list[Descriptor]:
    """These open files in a state."""
    return [*map(Descriptor, numbers)]


CHILD: Final = ChildState(
    4711,
    Descriptor(9),
    100.5,
    True,
    None,
    {"connections": 3},
    120.25,
    {},
    None,
    40,
    None,
    ['{"op":"reload_keys"}'],
)
STATE: Final = HandedOn(
    program="1.2.3",
    since=130.0,
    reloaded=[{"process": "worker 0", "pid": 4711, "seconds": 0.5}],
    started_at=99.0,
    replaced=2,
    settings=Settings(port=8000, log_level="debug").as_json(),
    resources=ResourcesState(
        [opened(5, 6), opened(7, 8)],
        opened(10),
        RunDirectoryState("/run/f/run-1", Descriptor(11), ["/run/f"]),
        Descriptor(12),
    ),
    access=AccessState(OperatorsState(Descriptor(13), 1, 2, opened(14)), "17c"),
    roles=[
        RoleState("worker", 0, PolicyState(101.0, True, 0), CHILD, None, 1 << 60, 3, None, 1, "signal 9", 0),
        RoleState("front", 0, PolicyState(None, True, 1), None, CHILD, 0, 3, 0.25, 0, None, 0),
    ],
    last_generation=1 << 60,
    announced=True,
    notified=NotifiedState(True, ["RELOADING=1"]),
    terminal=NOT_OPEN,
    recorder=RecorderState(98.0, {"tiers": {}}),
    started=[StartedState(4711, 5, 1.5e9)],
    problems=[KnownState("worker 0", "STORE", 4711, 110.0, 3)],
    descriptors=[*range(5, 15)],
)


def changed(**values: Any) -> bytes:
    """The state in JSON, with other values; None takes one away."""
    found = {**json.loads(STATE.to_json()), **values}
    return json.dumps({name: value for name, value in found.items() if value is not None}).encode()


def test_it_is_read_as_it_was_written() -> None:
    assert HandedOn.from_json(STATE.to_json()) == STATE
    assert STATE.parsed_settings() == Settings(port=8000, log_level="debug")


def test_it_goes_through_a_file_in_memory_that_nobody_inherits_by_accident() -> None:
    descriptor = write_state(STATE.to_json())
    assert not os.get_inheritable(descriptor)
    assert read_state(descriptor) == STATE
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("version", [0, VERSION + 1, "1", None])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(NotUnderstood) as caught:
        HandedOn.from_json(changed(version=version))
    assert str(caught.value) == (
        f"the state has version {version!r}, and the program on disk understands version {VERSION} only:"
        " stop the server and start it again"
    )


def test_in_another_process_they_have_other_numbers() -> None:
    """Those in the state are positions in what has come then; the terminal is not open."""
    deposited = HandedOn.from_json(
        changed(terminal=-1, access={"operators": [9, 1, 2, []], "instance": "x"})
        .replace(b"[9, 1, 2, []]", b'{"listener": 9, "device": 1, "inode": 2, "waiting": [3]}')
        .replace(b"[[5, 6], [7, 8]]", b"[[0, 1], [2, 3]]")
        .replace(b'"lock": 11', b'"lock": 8')
        .replace(b'"lock": 12', b'"lock": null')
        .replace(b"[10]", b"[4]")
        .replace(b'"control": 9', b'"control": 5'),
        range(100, 110),
    )
    assert deposited.terminal == NOT_OPEN
    assert deposited.access.operators == OperatorsState(Descriptor(109), 1, 2, opened(103))
    assert deposited.resources.listeners == [opened(100, 101), opened(102, 103)]
    assert deposited.resources.run_directory.lock == 108
    assert deposited.resources.lock is None
    assert [
        child.control for role in deposited.roles for child in (role.child, role.predecessor) if child
    ] == [105, 105]


@pytest.mark.parametrize("number", [-2, 10, "0", None, 1.0])
def test_one_that_has_not_come_is_not_understood(number: object) -> None:
    state = changed().replace(
        b'"listeners": [[5, 6]', b'"listeners": [[' + json.dumps(number).encode() + b", 6]"
    )
    with pytest.raises(NotUnderstood, match=r"^the state\.resources\.listeners is "):
        HandedOn.from_json(state, range(10))


WRONG: Final = [
    (b"", "the state is no JSON"),
    (b"[]", "the state has version None"),
    (changed(since=None), "the state has no 'since'"),
    (changed(since="soon"), "the state.since is 'soon', expected float"),
    (changed(roles={}), "the state.roles is {} and not a list"),
    (changed(roles=[7]), "the state.roles is 7 and not an object"),
    (changed(announced=1), "the state.announced is 1, expected bool"),
    (changed(access={"operators": {}, "instance": "x"}), "the state.access.operators has no 'listener'"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG)
def test_what_is_not_understood_is_named(text: bytes, sentence: str) -> None:
    with pytest.raises(NotUnderstood) as caught:
        HandedOn.from_json(text)
    assert str(caught.value).startswith(sentence)


def test_what_a_newer_program_has_added_is_left_out() -> None:
    role = {**json.loads(STATE.to_json())["roles"][0], "news": 1}
    assert HandedOn.from_json(changed(roles=[role], news=[1])).roles == STATE.roles[:1]
    settings = HandedOn.from_json(changed(settings={**STATE.settings, "news": 1})).parsed_settings()
    assert settings == STATE.parsed_settings()


def test_a_setting_that_is_missing_has_its_default() -> None:
    older = {name: value for name, value in STATE.settings.items() if name != "presence"}
    assert HandedOn.from_json(changed(settings=older)).parsed_settings() == STATE.parsed_settings()


def test_what_an_older_program_did_not_have_has_its_default() -> None:
    """Such as the ports of the server API: a reload goes on from that program."""
    older = {
        name: value
        for name, value in json.loads(STATE.to_json())["resources"].items()
        if name != "api_listeners"
    }
    assert HandedOn.from_json(changed(resources=older)).resources.api_listeners == []


@settings(max_examples=examples(100))
@given(st.data())
def test_any_damage_is_a_sentence_or_does_not_matter(data: st.DataObject) -> None:
    """A field of another kind is refused, and nothing else happens."""
    name = data.draw(st.sampled_from(sorted(get_type_hints(HandedOn))))
    value = data.draw(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()))
    values = {**json.loads(STATE.to_json()), name: value}
    try:
        read = HandedOn.from_json(json.dumps(values).encode())
    except NotUnderstood as problem:
        assert str(problem).startswith("the state")
    else:
        assert dataclasses.replace(read, **{name: getattr(STATE, name)}) == STATE
