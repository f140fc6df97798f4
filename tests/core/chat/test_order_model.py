"""D18 while processes of a worker are replaced and die: a model of the rules, and all that can happen in it.

One shard sends messages 1, 2, 3 ... to a worker. Its processes have numbers; each has a way from the sender on which nothing overtakes.
A process may be replaced: it passes on what still comes to it, and its successor keeps what comes to itself until the sender's last record
to the predecessor (END) has come that way. A process may die, with all that is on its ways; then the sender is told, some time later, and
sends what is not answered again, before anything else. The rules are those of ``core.chat.streams`` and ``Exchange.send_again``; each of
them, left out, is seen to be needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

#: What the sender writes last on a way that it leaves.
END: Final = 0


class State(NamedTuple):
    """The sender, the process that serves (`owner`) and, while it has not ended, the one before that."""

    #: The next message; those without an answer; the process that is sent to; and news that the sender has not heard, in order.
    following: int = 1
    open: tuple[int, ...] = ()
    target: int = 0
    news: tuple[tuple[str, int], ...] = ()
    #: The process that serves, whether the one before it still passes on, and whether the sender's way to it has to wait for that.
    owner: int = 0
    passing_on: bool = False
    blocked: bool = False
    held: tuple[int, ...] = ()
    #: On their way: to the one before, from there to the owner, to the owner, to a later process, and answers.
    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    ahead: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    #: What the store has, in order; and how often a process may still be replaced or die.
    stored: tuple[int, ...] = ()
    changes: int = 0


def steps(state: State, messages: int, without: str) -> Iterator[State]:
    """All that may happen next."""
    if state.following <= messages:
        sent = state._replace(following=state.following + 1, open=(*state.open, state.following))
        yield written(sent, state.following)
    if state.answers:
        answered = state.answers[0]
        yield state._replace(
            answers=state.answers[1:], open=tuple(number for number in state.open if number != answered)
        )
    if state.news:
        yield heard(state, without)
    if state.passing_on and state.before:
        yield state._replace(before=state.before[1:], between=(*state.between, state.before[0]))
    if state.passing_on and state.between:
        yield passed_on(state)
    if state.ahead:
        yield received(state, without)
    if not state.changes:
        return
    changed = state._replace(changes=state.changes - 1)
    if not state.passing_on:
        # The sender's way to the owner becomes that to the one before.
        yield changed._replace(
            owner=state.owner + 1,
            passing_on=True,
            blocked=True,
            before=state.ahead,
            ahead=(),
            news=(*state.news, ("replaced", state.owner + 1)),
        )
    # The owner dies, or the one before, which takes the other with it: nobody knows what had been passed on.
    yield changed._replace(
        owner=state.owner + 1,
        passing_on=False,
        blocked=False,
        held=(),
        before=(),
        between=(),
        ahead=(),
        answers=(),
        news=(*state.news, ("died", state.owner + 1)),
    )


def written(state: State, number: int) -> State:
    """The sender writes on the way to its target: the owner, one before that, or one that has died."""
    if state.target == state.owner:
        return state._replace(ahead=(*state.ahead, number))
    if state.passing_on and state.target == state.owner - 1:
        return state._replace(before=(*state.before, number))
    return state


def heard(state: State, without: str) -> State:
    """The sender hears that its target was replaced, or has died."""
    (what, target), *news = state.news
    if what == "replaced":
        return written(state, END)._replace(target=target, news=tuple(news))
    told = state._replace(target=target, news=tuple(news))
    if without == "sending again":
        return told
    again = reversed(told.open) if without == "order" else told.open
    for number in again:
        told = written(told, number)
    return told


def received(state: State, without: str) -> State:
    """The owner reads from the sender."""
    number, state = state.ahead[0], state._replace(ahead=state.ahead[1:])
    if number == END:
        return state
    if state.blocked and without != "keeping":
        return state._replace(held=(*state.held, number))
    return stored(state, number)


def passed_on(state: State) -> State:
    """The owner reads what the one before passes on."""
    number, state = state.between[0], state._replace(between=state.between[1:])
    return all_passed_on(state) if number == END else stored(state, number)


def all_passed_on(state: State) -> State:
    """The one before has ended: what was kept is handled."""
    held, state = state.held, state._replace(passing_on=False, blocked=False, held=())
    for number in held:
        state = stored(state, number)
    return state


def stored(state: State, number: int) -> State:
    """A message is stored, unless it is already, and answered."""
    kept = state.stored if number in state.stored else (*state.stored, number)
    return state._replace(stored=kept, answers=(*state.answers, number))


def explore(messages: int, changes: int, without: str = "") -> tuple[int, str | None]:
    """Go through all states; how many there are, and what is wrong in the first bad one."""
    first = State(changes=changes)
    seen, waiting = {first}, deque([first])
    while waiting:
        state = waiting.popleft()
        if [*state.stored] != sorted(state.stored):
            return len(seen), f"stored as {state.stored}"
        following = [*steps(state, messages, without)]
        if not following and (state.open or len(state.stored) != messages):
            return len(seen), f"only {state.stored} are stored, {state.open} have no answer"
        for next_state in following:
            if next_state not in seen:
                seen.add(next_state)
                waiting.append(next_state)
    return len(seen), None


def test_d18_order_holds_whatever_happens() -> None:
    """Five messages, and five times a process is replaced or dies, at any moments."""
    states, problem = explore(messages=5, changes=5)
    assert problem is None
    assert states > 10_000


@pytest.mark.parametrize("rule", ["sending again", "order", "keeping"])
def test_each_rule_is_needed(rule: str) -> None:
    assert explore(messages=3, changes=3, without=rule)[1] is not None
