"""docs/protocol.schema.json for tests: is this text a message of the protocol?

`problem` takes it literally. `strange` is for what comes from our own clients and server: there a field that the schema does not
name is a mistake too, in the one or in the other.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final, Literal

from jsonschema import Draft202012Validator

SCHEMA: Final = Path(__file__).parents[1] / "docs" / "protocol.schema.json"

Side = Literal["fromClient", "fromServer"]


def is_message(side: Side, message: Any) -> bool:
    """Whether the schema takes a message (decoded JSON) of this side."""
    return _validator(side, False).is_valid(message)


def problem(side: Side, message: Any) -> str | None:
    """What the schema has against a message (decoded JSON) of this side."""
    return _best(_validator(side, False), message)


def strange(side: Side, text: str | bytes) -> str | None:
    """What the schema has against a message of our own, unknown fields included."""
    return _best(_validator(side, True), json.loads(text))


def _best(validator: Draft202012Validator, message: Any) -> str | None:
    if validator.is_valid(message):
        return None
    errors = list(validator.iter_errors(message))
    # The alternatives fail at their `type`, but for the one that is meant.
    deepest = max(
        (nested for error in errors for nested in [error, *(error.context or ())]), key=lambda e: len(e.path)
    )
    return f"{deepest.json_path}: {deepest.message}"[:500]


@functools.cache
def _validator(side: Side, closed: bool) -> Draft202012Validator:
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    if closed:
        _close(definitions)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/$defs/{side}",
        "$defs": definitions,
    }
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _close(schema: Any) -> None:
    """Allow no fields that are not named."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            schema["additionalProperties"] = False
        for name, value in schema.items():
            if name not in ("if", "then", "else"):
                _close(value)
    elif isinstance(schema, list):
        for item in schema:
            _close(item)
