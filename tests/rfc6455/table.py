"""``python -m tests.rfc6455.table``: run all cases, and write ``docs/rfc6455.md``. Writes nothing when a case fails."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.rfc6455.case import Case, Script, expectation, in_lobby
from tests.rfc6455.cases import ALL, FAMILIES, IN_LOBBY, family
from tests.rfc6455.echo import echo_server
from tests.rfc6455.peer import Peer

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "rfc6455.md"

_HEAD: Final = """\
# RFC 6455, case by case

These are the cases of the public list of the Autobahn test suite (families 1 to 7, 9 and 10), re-created in our own words and under their
own numbers: that suite itself needs Python 2. A peer made of raw bytes and of wsproto, which shares no code with the server, runs them
against the real processes: a front takes the connection and its HELLO, and hands the socket over to a worker. There an echo session takes
the place of the chat, and the limits are those of the cases, 16 MiB a message. No setting leads to either; the worker program that does it
is part of the tests.

Families 1 to 7 run a second time *before* HELLO, against the lobby, where the same rules hold
([D25](decisions.md#d25-malformed-input)). No message is echoed there: one that is not a message of FastChat's is answered with
`ERROR VALIDATION`, binary data closes with 1003, more than 16 KiB with 1009.

What the chat does otherwise than the echo session: binary data closes with 1003, a message over 16 KiB with 1009.

**Compression is not offered.** A client may ask for `permessage-deflate`, as browsers do, and the answer names no extension; so the
families about compression, 12 and 13, have nothing to test. The peer of all cases asks for it.

Two cases, 6.4.3 and 6.4.4, are what that list calls *not strict*: invalid UTF-8 in a message that comes as one frame is refused when the
frame is complete, not at the first wrong byte. Between fragments it is refused at once (6.4.1, 6.4.2).

{count} cases. `pytest tests/rfc6455` runs them; `python -m tests.rfc6455.table` runs them and writes this file, and only when all pass.
"""
_COLUMNS: Final = (
    "| case | the peer sends | expected after HELLO | result | expected before HELLO | result |\n"
    "|---|---|---|---|---|---|\n"
)
_PASSED: Final = "passed"


def problem(port: int, case: Case, lobby: bool) -> str | None:
    """Run a case, after HELLO or in the lobby; what is wrong with what came, if anything."""
    script = case.build()
    if lobby:
        script = in_lobby(script)
    with Peer(port) as peer:
        if not lobby:
            peer.hello()
        outcome = peer.run(script)
    if outcome.events != list(script.events):
        came = [f"{event} {event.payload[:20]!r}" for event in outcome.events[:12]]
        return (
            f"expected: {expectation(script)}; {len(outcome.events)} events came: {came}, code {outcome.code}"
        )
    if outcome.code not in script.ending.codes:
        return f"expected: {expectation(script)}; closed with {outcome.code}"
    if outcome.reset:
        return "the connection ended with a reset"
    if script.ending.by == "server" and not outcome.reason:
        return f"closed with {outcome.code}, but without a reason"
    return None


def document() -> str:
    """The file, when all cases have passed."""
    return "".join([_HEAD.format(count=len(ALL)), *_tables()])


def _tables() -> Iterator[str]:
    in_both = {case.number for case in IN_LOBBY}
    current = ""
    for case in ALL:
        if family(case) != current:
            current = family(case)
            yield f"\n## {current}. {FAMILIES[current]}\n\n{_COLUMNS}"
        script = case.build()
        before = _cells(in_lobby(script)) if case.number in in_both else " | "
        yield f"| {case.number} | {case.title} | {_cells(script)} | {before} |\n"


def _cells(script: Script) -> str:
    return f"{expectation(script)} | {_PASSED}"


def main() -> int:
    """1 when a case failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as directory, echo_server(Path(directory)) as server:
        for lobby, cases in ((False, ALL), (True, IN_LOBBY)):
            for case in cases:
                wrong = problem(server.port, case, lobby)
                if wrong is not None:
                    failed += 1
                    print(f"{case.number} {'before' if lobby else 'after'} HELLO: {wrong}", file=sys.stderr)
    if failed:
        print(f"{failed} cases failed", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document())
    print(f"{len(ALL)} cases passed, {len(IN_LOBBY)} of them also before HELLO: {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
