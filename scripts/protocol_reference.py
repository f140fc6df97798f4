"""The protocol reference, made of tables and prose: ``make docs``, or ``python scripts/protocol_reference.py``.

The prose is ``scripts/protocol_page.md``; what it calls ``$name`` is a table, a number or a transcript. The tables are in ``core/`` and in
the modules ``protocol_connecting``, ``protocol_examples`` and ``protocol_transcripts`` beside this one.

Writes docs/protocol.md, one page for people, and docs/protocol.schema.json, a JSON Schema of every message in both directions. With
``--check`` it writes nothing, and ends with 1 when what is there is not what it would write.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

_PROJECT: Final = Path(__file__).resolve().parents[1]
if str(_PROJECT) not in sys.path:  # it is, unless this runs as a script
    sys.path.insert(0, str(_PROJECT))

from core.auth.tokens import ANNOUNCE_SECONDS  # noqa: E402
from core.reference.codes import CAPABILITIES, CLOSES, ERRORS, LIMITS, TEXTS  # noqa: E402
from core.reference.error_details import ERROR_DETAILS  # noqa: E402
from core.reference.messages import FROM_CLIENT, FROM_SERVER  # noqa: E402
from core.reference.rows import Field, Message, Schema  # noqa: E402
from core.wire import protocol  # noqa: E402
from scripts import protocol_connecting as connecting  # noqa: E402
from scripts import protocol_examples  # noqa: E402
from scripts.protocol_transcripts import NAMES, TRANSCRIPTS, WAITS, Line, Transcript  # noqa: E402
from scripts.written import table, write  # noqa: E402

PAGE: Final = _PROJECT / "docs" / "protocol.md"
SCHEMA: Final = _PROJECT / "docs" / "protocol.schema.json"
_PROSE: Final = _PROJECT / "scripts" / "protocol_page.md"


# -- The schema --


def schema() -> Schema:
    """Make the JSON Schema: any message; `$defs/fromClient` and `$defs/fromServer` are those of one direction."""
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
    """Make the rule of a field that is looked at only when the same message asks for the capability."""
    asked = {"type": "array", "contains": {"const": field.capability}}
    return {
        "if": {"properties": {"capabilities": asked}, "required": ["capabilities"]},
        "then": {"properties": {field.name: {"anyOf": [field.type.taken, {"type": "null"}]}}},
    }


# -- The page --


def page() -> str:
    """Make the reference as Markdown: the prose of `_PROSE` with the tables in it."""
    prose = Template(_PROSE.read_text())
    transcripts = {transcript.name: _transcript(transcript) for transcript in TRANSCRIPTS}
    return prose.substitute(_tables(), **_numbers(), **transcripts)


def _tables() -> dict[str, str]:
    """Make what the prose calls by the name of a table."""
    return {
        "capabilities": table(
            ("capability", "what it changes"), ((f"`{name}`", about) for name, about in CAPABILITIES)
        ),
        "from_client": _messages(FROM_CLIENT, protocol_examples.FROM_CLIENT),
        "from_server": _messages(FROM_SERVER, protocol_examples.FROM_SERVER),
        "details": _fields(ERROR_DETAILS, optional=False),
        "texts": table(("sent", "stored"), ((f"`{row.sent}`", f"`{row.stored}`") for row in TEXTS)),
        "errors": table(
            ("code", "when", "what to do"), ((f"`{row.code}`", row.when, row.then) for row in ERRORS)
        ),
        "closes": table(
            ("code", "when", "come back?"), ((str(row.code.value), row.when, row.back) for row in CLOSES)
        ),
        "limits": table(("what", "limit", "beyond it"), LIMITS),
        "refused": table(
            ("status", "when", "body", "what to do"),
            ((str(row.status), row.when, f"`{row.body}`", row.then) for row in connecting.REFUSED),
        ),
        "back_off": table(("after", "wait"), connecting.BACK_OFF),
        "acknowledges": table(("message", "what it says"), connecting.ACKNOWLEDGES),
    }


def _numbers() -> dict[str, str]:
    """List what the prose calls by the name of a number."""
    numbers = {
        "announce": ANNOUNCE_SECONDS,
        "answer_timeout": connecting.ANSWER_TIMEOUT,
        "back_off_first": connecting.BACK_OFF_FIRST,
        "back_off_max": connecting.BACK_OFF_MAX,
        "content_max": protocol.CONTENT_MAX,
        "good_after": connecting.GOOD_AFTER,
        "greeting_timeout": connecting.GREETING_TIMEOUT,
        "heartbeat_idle": protocol.HEARTBEAT_IDLE,
        "heartbeat_reply": protocol.HEARTBEAT_REPLY,
        "hello_deadline": protocol.HELLO_DEADLINE,
        "history_tries": connecting.HISTORY_TRIES,
        "name_max": protocol.NAME_MAX,
        "name_min": protocol.NAME_MIN,
        "ping_interval": connecting.PING_INTERVAL,
        "pong_timeout": connecting.PONG_TIMEOUT,
        "presence_grace": protocol.PRESENCE_GRACE,
        "worker_patience": protocol.WORKER_PATIENCE,
    }
    return {name: f"{value:g}" for name, value in numbers.items()}


def _messages(messages: Sequence[Message], examples: dict[str, tuple[protocol_examples.Example, ...]]) -> str:
    return "\n\n".join(_message(message, examples[message.type]) for message in messages)


def _message(message: Message, examples: Sequence[protocol_examples.Example]) -> str:
    needed = " or ".join(f"`{capability}`" for capability in message.capabilities)
    needs = f" *Needs {needed}.*" if needed else ""
    parts = [f"### {message.type}", f"{message.about}{needs}"]
    if message.fields:
        parts.append(_fields(message.fields))
    for example in examples:
        if example.when:
            parts.append(f"{example.when}:")
        parts.append(f"```json\n{_json(message.type, example.data)}\n```")
    return "\n\n".join(parts)


def _transcript(transcript: Transcript) -> str:
    lines = []
    for line in transcript.lines:
        name = f"{NAMES[line.user_id]:<5}"
        lines.append(
            f"{name} {line.what} {_json(line.type, line.data)}" if line.type else f"-- {_event(line)} --"
        )
    text = "\n".join(lines)
    for user_id, name in NAMES.items():
        text = text.replace(user_id, name.upper())
    return text


def _event(line: Line) -> str:
    return line.what if line.what == WAITS else f"{NAMES[line.user_id]} {line.what}"


def _json(kind: str, data: dict[str, Any]) -> str:
    """Return a message as it is on the wire."""
    return json.dumps({"type": kind, "data": data}, separators=(",", ":"), ensure_ascii=False)


def _fields(fields: Sequence[Field], optional: bool = True) -> str:
    rows = []
    for field in fields:
        notes = [field.about] if field.about else []
        if field.capability is not None:
            notes.append(f"*with `{field.capability}`*")
        elif optional and not field.required:
            notes.append("*optional*")
        rows.append((f"`{field.name}`", field.type.words, "; ".join(notes)))
    return table(("field", "type", "meaning"), rows)


# -- The files --


def contents() -> dict[Path, str]:
    """Return what each file is to hold."""
    return {PAGE: page(), SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; the exit code."""
    return write(contents(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
