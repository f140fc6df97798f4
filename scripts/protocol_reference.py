"""The protocol reference, made of the tables in ``core/``: ``make docs``, or ``python scripts/protocol_reference.py``.

Writes docs/protocol.md, one page for people, and docs/protocol.schema.json, a JSON Schema of every message in both directions. With
``--check`` it writes nothing, and ends with 1 when what is there is not what it would write.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).resolve().parents[1]
if str(_PROJECT) not in sys.path:  # it is, unless this runs as a script
    sys.path.insert(0, str(_PROJECT))

from core.catalogue import ERROR_DETAILS, FROM_CLIENT, FROM_SERVER  # noqa: E402
from core.catalogue_rows import Field, Message, Schema  # noqa: E402
from core.meanings import CAPABILITIES, CLOSES, ERRORS, LIMITS, TEXTS  # noqa: E402
from core.protocol import CONTENT_MAX, NAME_MAX, NAME_MIN  # noqa: E402

PAGE: Final = _PROJECT / "docs" / "protocol.md"
SCHEMA: Final = _PROJECT / "docs" / "protocol.schema.json"


# -- The schema --


def schema() -> Schema:
    """The JSON Schema: any message; `$defs/fromClient` and `$defs/fromServer` are those of one direction."""
    definitions: Schema = {}
    for side, messages in (("fromClient", FROM_CLIENT), ("fromServer", FROM_SERVER)):
        names = [f"{side}.{message.type}" for message in messages]
        definitions[side] = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in names]}
        for name, message in zip(names, messages, strict=True):
            definitions[name] = _message_schema(message, taken=side == "fromClient")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The messages of FastChat",
        "description": (
            "Each is one WebSocket text message. User ids are those of the default setting, UUID v4. "
            "Fields that are not named here are ignored."
        ),
        "anyOf": [{"$ref": "#/$defs/fromClient"}, {"$ref": "#/$defs/fromServer"}],
        "$defs": definitions,
    }


def _message_schema(message: Message, taken: bool) -> Schema:
    properties = {field.name: _field_schema(field, taken) for field in message.fields}
    data: Schema = {"type": "object"}
    if properties:
        data |= {"properties": properties, "required": [f.name for f in message.fields if f.required]}
    conditions = [_only_with(field) for field in message.fields if taken and field.capability is not None]
    if conditions:
        data["allOf"] = conditions
    data |= message.schema or {}
    return {
        "description": message.about,
        "type": "object",
        "properties": {"type": {"const": message.type}, "data": data},
        "required": ["type", "data"],
    }


def _field_schema(field: Field, taken: bool) -> Schema:
    about = {"description": field.about} if field.about else {}
    if not taken:
        return about | field.type.given
    if field.capability is not None:
        return about  # anything, for who does not ask for the capability; see `_only_with`
    if field.required:
        return about | field.type.taken
    return about | {"anyOf": [field.type.taken, {"type": "null"}]}


def _only_with(field: Field) -> Schema:
    """The rule of a field that is looked at only when the same message asks for the capability."""
    asked = {"type": "array", "contains": {"const": field.capability}}
    return {
        "if": {"properties": {"capabilities": asked}, "required": ["capabilities"]},
        "then": {"properties": {field.name: {"anyOf": [field.type.taken, {"type": "null"}]}}},
    }


# -- The page --


def page() -> str:
    """The reference as Markdown."""
    parts: list[str] = [
        "# The protocol on one page",
        "Made by `make docs` of the tables in `core/catalogue.py` and `core/meanings.py`; "
        "[protocol.schema.json](protocol.schema.json) says the same as JSON Schema (2020-12).",
        'WebSocket at `/ws`; every message is one text message, `{"type": "...", "data": {...}}`, of UTF-8 and JSON. '
        "User ids are UUIDs of version 4, in any case from clients and in lower case from the server. Lengths are in Unicode code points. "
        "Fields that are not named here are ignored, by both sides; optional ones may also be null from a client.",
        "## Capabilities",
        "What the protocol document does not name comes only to clients that ask for it, with `capabilities` in HELLO; HELLO_ACK names "
        "those in force. Fields and messages that need one are marked with it.",
        _table(("capability", "what it changes"), ((f"`{name}`", about) for name, about in CAPABILITIES)),
        "## From the client",
        *(_message(message) for message in FROM_CLIENT),
        "## From the server",
        *(_message(message) for message in FROM_SERVER),
        "The `details` of an ERROR:",
        _fields(ERROR_DETAILS, optional=False),
        "## What becomes of texts",
        "Markup and control characters are removed from texts, everything else stays as it was. Markup is what is complete: comments, "
        "doctypes, `<?name ...?>`, `script` and `style` with what they hold, and tags of HTML, SVG and MathML with nothing but attributes "
        "in them. A tag without attributes directly behind a letter or a digit (`List<Object>`) is one only if its element has no end "
        "tag or is closed further on. Any other `<` before a letter, `/`, `!` or `?` stays and gets a space behind it, so that no page "
        "that forgets to escape the text makes an element of it. Line breaks become line feeds. A second time changes nothing.",
        _table(("sent", "stored"), ((f"`{row.sent}`", f"`{row.stored}`") for row in TEXTS)),
        f"Of a message, {CONTENT_MAX} characters may be left when markup is removed; the spaces do not count, so a stored text may be half "
        "as long again. A sender who asks for `receipts` is told what was stored, as `content` of MSG_ACK, if it is not what was sent.",
        "From names, what can't be seen goes too: zero-width characters, fillers, tags, what turns text round; only joiners and selectors "
        "within an emoji, and joiners between letters, stay. Line breaks and tabs become spaces; the name is trimmed, in "
        f"NFC, and then has {NAME_MIN} to {NAME_MAX} characters, the spaces counted.",
        "A text or a name of which nothing is visible, only spaces and what can't be seen, is VALIDATION.",
        "## Error codes",
        _table(("code", "when", "what to do"), ((f"`{row.code}`", row.when, row.then) for row in ERRORS)),
        "## Close codes",
        "A connection that ends without one counts as 1006: come back, with exponential back-off and full jitter.",
        _table(("code", "when", "come back?"), ((str(row.code.value), row.when, row.back) for row in CLOSES)),
        "## Limits",
        "Those of a user count all devices together. The ones a minute are settings of the server; these are the defaults.",
        _table(("what", "limit", "beyond it"), LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _message(message: Message) -> str:
    needs = f" *Needs `{message.capability}`.*" if message.capability is not None else ""
    head = f"### {message.type}\n\n{message.about}{needs}"
    return f"{head}\n\n{_fields(message.fields)}" if message.fields else head


def _fields(fields: Sequence[Field], optional: bool = True) -> str:
    rows = []
    for field in fields:
        notes = [field.about] if field.about else []
        if field.capability is not None:
            notes.append(f"*with `{field.capability}`*")
        elif optional and not field.required:
            notes.append("*optional*")
        rows.append((f"`{field.name}`", field.type.words, "; ".join(notes)))
    return _table(("field", "type", "meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# -- The files --


def contents() -> dict[Path, str]:
    """What each file is to hold."""
    return {PAGE: page(), SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail when something is out of date"
    )
    check: bool = parser.parse_args(arguments).check
    stale = [path for path, text in contents().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(_PROJECT)} is out of date: make docs", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(contents()[path])
            print(f"wrote {path.relative_to(_PROJECT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
