"""Changes to a client's message that leave it JSON, most of the time: other values, other fields, other types, odd spellings.

What JSON allows and encoders never write (numbers that are too large, a key twice, lone surrogates) is put in as raw text.
"""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any, Final

from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes

#: People of ``fuzz.small_world``: inputs that name them get further.
ANN: Final = "00000000-0000-4000-8000-000000000001"
BOB: Final = "00000000-0000-4000-8000-000000000003"
CAT: Final = "00000000-0000-4000-8000-000000000005"

_TEMPLATES: Final[tuple[dict[str, Any], ...]] = (
    {"type": "HELLO", "data": {"user_id": ANN, "display_name": "Ann Lee"}},
    {
        "type": "HELLO",
        "data": {
            "user_id": BOB,
            "display_name": "Bob Ray",
            "capabilities": ["receipts", "resume", "history", "presence_delta", "carbons"],
            "resume": {"cursor": "000000000000.1"},
        },
    },
    {"type": "OPEN_CHAT", "data": {"target_user_id": BOB, "target_display_name": "Bob Ray"}},
    {"type": "MSG", "data": {"to": BOB, "content": "Hi.", "message_id": "m1"}},
    {"type": "MSG", "data": {"to": ANN, "content": "a < b && c <b>bold</b>"}},
    {"type": "MSG_ACK", "data": {"message_id": "m1", "from": ANN}},
    {"type": "READ", "data": {"message_id": "m1", "from": ANN}},
    {"type": "HISTORY", "data": {"with": BOB, "before": "3.4", "limit": 50}},
    {"type": "PRESENCE", "data": {"user_ids": [BOB, CAT]}},
    {"type": "TYPING", "data": {"is_typing": True, "to": BOB}},
    {"type": "PING", "data": {}},
)
_KEYS: Final = (
    *("type", "data", "user_id", "display_name", "capabilities", "resume", "cursor", "target_user_id", "to"),
    *(
        "target_display_name",
        "content",
        "message_id",
        "is_typing",
        "with",
        "before",
        "limit",
        "from",
        "token",
        "user_ids",
        "",
    ),
)
_TEXTS: Final = (
    *(
        "",
        " ",
        "x",
        "Ann Lee",
        "m1",
        "m2",
        ANN,
        BOB,
        CAT,
        ANN.upper(),
        ANN[:-1],
        "12345678-1234-1234-1234-123456789012",
    ),
    *(
        "HELLO",
        "MSG",
        "PONG",
        "ERROR",
        "receipts",
        "resume",
        "history",
        "*",
        "3.4",
        "999999999999999.999999999999999",
    ),
    *(
        "000000000000.1",
        "000000000000.999999999999999",
        "../../etc/passwd",
        "'; --",
        "%s%n",
        "\0",
        "a\0b",
        "\r\nx: y",
    ),
    *(
        "<b>x</b>",
        "<<i>script>",
        "<script>1</script>",
        "<!--",
        "<a href='",
        "a < b && c",
        "&lt;b&gt;",
        "I <3 you",
    ),
    *(
        "\u202eevil",
        "e\u0301",
        "\u212a",
        "\U0001f600",
        "\ud7ff",
        "\ufeff",
        "\x85\u2028",
        "\x7f\x1b[31m",
        "\u0000",
    ),
)
_NUMBERS: Final = (
    0,
    1,
    -1,
    100,
    101,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.5,
    1e308,
    5e-324,
)
_LENGTHS: Final = (2, 3, 50, 51, 64, 65, 999, 1000, 1001, 4000, 16000)
#: Raw JSON that Python's encoder does not write; most of it is valid.
_RAW: Final = (
    *("1e5", "-0", "1E-999", "1.0", "1e400", "123456789012345678901234567890", "-1e400", "0.1e1"),
    *(
        '"\\u0041"',
        '"\\ud83d\\ude00"',
        '"\\/"',
        '"\\u0000"',
        '{"a":1,"a":2}',
        '{"to":1,"to":"x"}',
        "[ ]",
        "{ }",
    ),
    *("[" * 100 + "]" * 100, '{"a":' * 200 + "1" + "}" * 200, "[" * 1100 + "]" * 1100, "[1,2,[3,{}]]"),
    *('"\\ud800"', "NaN", "Infinity", "01", "tru"),
)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\{\}|\[\]')
#: What a value may be replaced with; but for the last four of `_RAW` all of it is JSON.
_TOKENS: Final = tuple(
    token.encode()
    for token in (
        *(json.dumps(text, ensure_ascii=False) for text in (*_TEXTS, *_KEYS) if text.isprintable()),
        *(json.dumps(text) for text in (*_TEXTS, *(text * 40 for text in _TEXTS))),
        *(json.dumps("x" * length) for length in _LENGTHS),
        *map(json.dumps, _NUMBERS),
        *(json.dumps(template["type"]) for template in _TEMPLATES),
        *(json.dumps(template["data"]) for template in _TEMPLATES),
        *("null", "true", "false", "{}", "[]", *_RAW),
    )
)
#: And a key, which is a string.
_NAMES: Final = tuple(json.dumps(text).encode() for text in (*_KEYS, *_KEYS, *_TEXTS))
_MARK: Final = "\u0001raw\u0001"
_WRITTEN_MARKS: Final = (json.dumps(_MARK), json.dumps(_MARK, ensure_ascii=False))


def mutate_json(data: bytes, rng: Random) -> bytes:
    """Another message; in one case of sixteen no longer JSON on purpose."""
    dice = int(rng.random() * 16)
    if dice == 0:
        return mutate_bytes(data, rng)
    if dice < 10:
        changed = _change_token(data, rng)
        if changed is not None:
            return changed[:SIZE_MAX]
    try:
        tree = json.loads(data) if dice < 14 else rng.choice(_TEMPLATES)
    except (ValueError, RecursionError):
        tree = rng.choice(_TEMPLATES)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _change(tree, rng, 0)
    return _written(tree, rng)[:SIZE_MAX]


def _change_token(data: bytes, rng: Random) -> bytes | None:
    """Write one value, or key, of `data` anew, which is quicker than to read and write it all; None where there is none."""
    spans = [match.span() for match in _TOKEN.finditer(data)]
    if not spans:
        return None
    start, end = spans[int(rng.random() * len(spans))]
    tokens = _NAMES if data[end : end + 1] == b":" else _TOKENS
    return data[:start] + tokens[int(rng.random() * len(tokens))] + data[end:]


def _change(node: Any, rng: Random, depth: int) -> Any:
    """`node` with something in it, or all of it, replaced."""
    if isinstance(node, dict) and node and depth < 8 and rng.random() < 0.93:
        changed = dict(node)
        key = rng.choice(list(changed))
        match rng.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(_KEYS)] = _value(rng)
            case 2:
                changed[rng.choice(_KEYS)] = changed.pop(key)
            case _:
                changed[key] = _change(changed[key], rng, depth + 1)
        return changed
    if isinstance(node, list) and node and depth < 8 and rng.random() < 0.9:
        items = list(node)
        index = rng.randrange(len(items))
        match rng.randrange(4):
            case 0:
                del items[index]
            case 1:
                items.insert(index, _value(rng))
            case 2:
                items *= 2
            case _:
                items[index] = _change(items[index], rng, depth + 1)
        return items[:64]
    if isinstance(node, str) and rng.random() < 0.5:
        return _change_text(node, rng)
    return _value(rng)


def _change_text(text: str, rng: Random) -> str:
    position = rng.randrange(len(text) + 1)
    match rng.randrange(6):
        case 0:
            return text[:position] + rng.choice(_TEXTS) + text[position:]
        case 1:
            return text[:position] + text[position + rng.choice((1, 2, 8)) :]
        case 2:
            return (
                text[:position]
                + chr(rng.choice((rng.randrange(0x80), rng.randrange(0xD800), 0x1F600)))
                + text[position:]
            )
        case 3:
            return ((text or "x") * rng.choice((2, 10)))[:SIZE_MAX]
        case 4:
            return ((text or "x") * rng.choice(_LENGTHS))[: rng.choice(_LENGTHS)]
    return text.swapcase()


def _value(rng: Random) -> Any:
    match rng.randrange(10):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice(_NUMBERS)
        case 2:
            return rng.choice(([], {}, [[]], {"a": {}}, [ANN, BOB], ["resume", "resume", 1]))
        case 3:
            return _MARK
        case 4:
            return rng.choice(_TEXTS) * rng.choice((1, 2, 40))
        case 5:
            return dict(rng.choice(_TEMPLATES)["data"])
    return rng.choice(_TEXTS)


def _written(tree: Any, rng: Random) -> bytes:
    dice = rng.randrange(8)
    text = json.dumps(tree, ensure_ascii=dice < 2, separators=(",", ":") if dice else (" ,\n", "\t: "))
    if _MARK[1:4] in text:
        raw = rng.choice(_RAW)
        for mark in _WRITTEN_MARKS:
            text = text.replace(mark, raw)
    return text.encode("utf-8", "surrogatepass")
