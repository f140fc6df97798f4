"""``python -m tests.system.attacks``: the table of attacks, written to ``docs/attacks.md``.

Each row is proven by the tests that carry its name, ``@pytest.mark.attack("ping flood")``: on the wire, against the running server, with
two users beside it who chat and must not notice. test_attacks.py sees to it that no row is without a test, and no such test without a row.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = PROJECT / "docs" / "attacks.md"

#: Family -> attack -> what the server does about it.
ATTACKS: Final[dict[str, dict[str, str]]] = {
    "Connections": {
        "slow handshake": "10 s for a request, then the end of the connection; byte by byte, but in time, is served",
        "slow HELLO": "closed with 1008, 10 s after the upgrade",
        "silent socket": "ended after 10 s without a request; after HELLO it is pinged, and closed when it does not answer",
        "leaving half way": "whatever was begun is let go of at once: no descriptor, no socket stays",
        "never-reading client": "its backlog is bounded, then it is closed; what waits for it is kept and delivered when it comes back",
        "reconnect storm": "5,000 clients come back at once and are served within seconds",
        "10,000 sockets without HELLO": "limited by address: 503 with Retry-After; each is ended after 10 s; others get in",
        "file descriptor exhaustion": "newcomers wait or are refused, who is there is served, and accepting goes on when there is room",
    },
    "HTTP": {
        "header flood": "431 at 16 KiB, or the end of the connection",
        "oversized header": "431",
        "request smuggling": "400 for what two readers could read in two ways, and for any body; one request a connection",
        "malformed request": "the right status, and the end of the connection",
        "spoofed forwarded headers": "not believed, but from FASTCHAT_TRUSTED_PROXIES, from the right",
        "cross-site WebSocket hijacking": "403 before any upgrade; pages of this machine may connect; nothing is shown in frames",
        "DNS rebinding": "403 for the socket, and nothing from the admin port: a Host that nobody listed counts for nothing",
        "the server API without its key": "401, and 429 for more than ten wrong keys in a minute; nothing but its document is "
        "open; a Host that nobody listed gets 403",
        "a page that asks the admin port": "it can read nothing there, change nothing, and show nothing of it in a frame",
    },
    "Frames": {
        "oversized frame": "1009, when its header is there",
        "fragment flood": "1009 above 16 KiB in all; 1008 for more than 1,000 without content",
        "ping flood": "answered as long as the client reads; 1008 for more than 1,000 pings and pongs in a second",
        "RSV bits": "1002",
        "bad opcode": "1002; binary data 1003",
        "unmasked frame": "1002",
        "bad UTF-8": "1007, in a text, between fragments, and in the reason of a Close",
    },
    "Messages": {
        "deep JSON": "VALIDATION, if it is deeper than 1,024 or stands where something else is meant; else ignored",
        "huge numbers": "VALIDATION, if no double holds them or they stand where something else is meant; else ignored",
        "duplicate keys": "the last one counts, for the front and for the worker",
        "NaN": "VALIDATION, and so Infinity: it is not JSON",
        "lone surrogates": "VALIDATION as escapes, 1007 as bytes",
        "wrong types": "VALIDATION with the field and what was expected, for each field of each message",
        "unknown fields": "ignored, and never passed on",
        "strangers fill a mailbox": "one sender has at most a tenth of it, and all to whom its user has never written half of it together;"
        " MESSAGE_FAILED says so, nothing is evicted, and those to whom the user has written get through",
        "flood of messages": "RATE_LIMITED by user, over all devices and reconnections; each client has a bounded share of a turn, is read "
        "slowly while its messages come to nothing, and is closed with 1008 after three minutes of that, or 20 invalid ones in one",
    },
    "Identity": {
        "impersonation": "`from` is written by the server; HELLO as another user is refused; with `jwt` the token decides",
        "forged tokens": "UNAUTHORIZED, 1008 after three tries",
        "forged names": "with `jwt` the name in a token holds, whatever HELLO says; a bad one is UNAUTHORIZED, never replaced by HELLO's",
        "another's mailbox": "with `jwt` nobody but the bearer of a user's token resumes, reads or acknowledges what is that user's",
        "message_id tricks": "an id counts between one sender and one recipient: nobody hides or acknowledges what others write",
        "harassment": "a user blocks another: nothing of the blocked one reaches the user again, on any device, after UNBLOCK or a crash, "
        "and the answers are those about somebody who is away",
        "a deleted user": "an operator deletes a user while the server runs: 4004, and nothing that the user has sent is shown to anybody "
        "again, whoever is killed meanwhile; the id begins anew, with no chat and no message of before",
        "harassment by new ids": "a block is about a user id: who comes back under a new one is a stranger, with a stranger's share of the "
        "mailbox, and can be blocked too; whom an id belongs to, only the issuer of tokens (`jwt`) can decide",
        "a user whom nobody wants": "`fastchat ban` closes all devices with 4003, and every HELLO is refused, also after a crash; with "
        "FASTCHAT_AUTH=none it stops a user id and no person, who can take another",
        "presence enumeration": "with `contacts`, presence tells nothing of people without a chat, nor does any answer tell who is online; "
        "OPEN_CHAT is limited, and its target is told",
    },
    "Text": {
        "HTML and scripts": "markup is removed by the server, and the page shows text as text",
        "bidirectional overrides": "removed from names; in a message they stay, and on the page turn round nothing else, nor a link",
        "nested markup": "cleaned in a time that is linear in its length",
        "SQL injection": "text is a parameter and no statement: it is kept as it is, and the database stays as sound as it was",
        "log injection": "nothing that a client sends begins a line of its own, and what people write is not logged",
    },
}

_HEAD: Final = """\
# Attacks, row by row

What strangers, users and other people's pages could try, what the server does about it, and the tests that prove it on the wire, against
the running server. Beside each of them two users chat on the same server from beginning to end, and must not notice.
`python -m tests.system.attacks` writes this file; SECURITY.md says what is promised and what is not.
"""
_COLUMNS: Final = "| attack | what the server does | tests |\n|---|---|---|\n"


def names() -> list[str]:
    """All rows."""
    return [name for family in ATTACKS.values() for name in family]


def marked() -> Iterator[tuple[str, str]]:
    """Name of an attack and ``file::test`` of each test that proves it, in the order of files and lines."""
    for path in sorted((PROJECT / "tests" / "system").glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for name in _attacks_of(node):
                    yield name, f"{path.name}::{node.name}"


def _attacks_of(test: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.attack":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def document() -> str:
    """The file."""
    tests: dict[str, list[str]] = {}
    for name, test in marked():
        tests.setdefault(name, []).append(f"`{test.replace('.py::', ': ')}`")
    parts = [_HEAD]
    for family, attacks in ATTACKS.items():
        parts.append(f"\n## {family}\n\n{_COLUMNS}")
        for name, answer in attacks.items():
            parts.append(f"| {name} | {answer} | {'<br>'.join(tests.get(name, []))} |\n")
    return "".join(parts)


def main() -> int:
    """1, and nothing is written, when a row has no test."""
    missing = [name for name in names() if name not in {name for name, _ in marked()}]
    if missing:
        print(f"no test carries the name of: {', '.join(missing)}", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document())
    print(DOCUMENT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
