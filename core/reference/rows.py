"""What the rows of ``core.reference.messages`` are made of: messages, their fields, and what the fields hold."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Schema = dict[str, Any]


class FieldType(NamedTuple):
    """What a field holds: in words, as the server takes it, and as the server gives it."""

    words: str
    taken: Schema
    given: Schema


class Field(NamedTuple):
    """A field of a message. One that is not required may be missing, from a client also null."""

    name: str
    type: FieldType
    about: str
    required: bool = True
    #: What HELLO must have asked for.
    capability: str | None = None


class Message(NamedTuple):
    """A message in one direction. Fields that are not in its row are ignored by both sides."""

    type: str
    about: str
    fields: tuple[Field, ...] = ()
    #: Of these HELLO must have asked for one.
    capabilities: tuple[str, ...] = ()
    #: What else the schema of its `data` says.
    schema: Schema | None = None


def both(words: str, schema: Schema) -> FieldType:
    """Return a type of which the server takes what it gives."""
    return FieldType(words, schema, schema)


STRING: Final = both("string", {"type": "string"})
