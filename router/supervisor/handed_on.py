"""What a supervisor hands on to the program that goes on where it ends: JSON in a file in memory, and descriptors by their numbers.

The other program may be older or newer, so the JSON has a version. It grows when an older program would go wrong with what a newer one
writes, or the other way round; what only adds something does not count, since a field that is not known is ignored, and one that is
missing has its default. A program that reads a version that it does not know refuses it, and then everything stays as it is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from core.process.descriptors import NOT_OPEN, Descriptor
from core.process.settings import Settings
from core.wire.codec import from_json, to_json
from router.admin.recorder import RecorderState
from router.supervisor.operator_access import AccessState
from router.supervisor.problem_log import KnownState
from router.supervisor.process_usage import StartedState
from router.supervisor.resources import ResourcesState
from router.supervisor.roles import RoleState
from router.supervisor.service_manager import NotifiedState

VERSION: Final = 1


class NotUnderstood(Exception):
    """The state is not one that this program can go on with; the message says why, as the end of a sentence."""


@dataclasses.dataclass(frozen=True)
class HandedOn:
    """Everything that is in the memory of a supervisor and not elsewhere. Times are on the monotonic clock."""

    #: Of the program that wrote this, for people.
    program: str
    #: When the reload had replaced everything else, and what it had replaced.
    since: float
    reloaded: list[dict[str, Any]]
    #: When the server was started, and how often its supervisor was replaced since.
    started_at: float
    replaced: int
    #: All settings, by name.
    settings: dict[str, Any]
    resources: ResourcesState
    access: AccessState
    roles: list[RoleState]
    #: The highest number of a worker's process.
    last_generation: int
    #: Whether the operator was told that the server is ready.
    announced: bool
    notified: NotifiedState
    #: `NOT_OPEN` if no terminal is watched.
    terminal: Descriptor
    recorder: RecorderState
    started: list[StartedState]
    problems: list[KnownState]
    #: The files of all of the above, by their numbers in the process that wrote this.
    descriptors: list[int]
    #: Whether it was deposited for the next supervisor, by one that serves on (``router.supervisor.safekeeping``).
    is_deposited: bool = False

    def to_json(self) -> bytes:
        """Encode it."""
        return to_json({"version": VERSION, **_plain(self)})

    @classmethod
    def from_json(cls, text: bytes, opened: Sequence[int] | None = None) -> HandedOn:
        """Decode it; `opened` are the descriptors for which those in it stand, if these are not the same. Raises NotUnderstood."""
        try:
            values = from_json(text)
        except ValueError as error:
            raise NotUnderstood(f"the state is no JSON: {error}") from None
        version = values.get("version") if isinstance(values, dict) else None
        if version != VERSION:
            raise NotUnderstood(
                f"the state has version {version!r}, and the program on disk understands version {VERSION} only:"
                " stop the server and start it again"
            )
        return cls(**_fields(cls, values, "the state", opened))

    def parsed_settings(self) -> Settings:
        """Return the settings. Raises NotUnderstood."""
        try:
            return Settings.from_json(self.settings)
        except (TypeError, ValueError) as error:
            raise NotUnderstood(f"the settings are not understood: {error}") from None


def write_state(text: bytes) -> int:
    """Put it into a file in memory; return the descriptor, which no other program gets unless it is made inheritable. Raises OSError."""
    descriptor = os.memfd_create("fastchat-supervisor")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_state(descriptor: int, opened: Sequence[int] | None = None) -> HandedOn:
    """Read what `write_state` wrote, and close it; see `HandedOn.from_json`. Raises NotUnderstood."""
    try:
        with open(descriptor, "rb") as file:
            file.seek(0)  # it may have been read before
            text = file.read()
    except OSError as error:
        raise NotUnderstood(f"the state can't be read: {error.strerror}") from None
    return HandedOn.from_json(text, opened)


def _plain(value: Any) -> Any:
    """Return a state as JSON takes it: every class as an object, by the names of its fields."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(each) for name, each in value._asdict().items()}
    return [*map(_plain, value)] if isinstance(value, list) else value


def _fields(kind: Any, values: Any, where: str, opened: Sequence[int] | None) -> dict[str, Any]:
    """Return the arguments of a class of states. Raises NotUnderstood."""
    if not isinstance(values, dict):
        raise NotUnderstood(f"{where} is {values!r:.80} and not an object")
    found = {}
    for name, hint in get_type_hints(kind).items():
        if name in values:
            found[name] = _parse(hint, values[name], f"{where}.{name}", opened)
        elif name not in _defaults(kind):
            raise NotUnderstood(f"{where} has no {name!r}")
    return found


def _defaults(kind: Any) -> Iterator[str]:
    if not dataclasses.is_dataclass(kind):
        return iter(kind._field_defaults)
    given = (dataclasses.MISSING, dataclasses.MISSING)
    return (
        field.name for field in dataclasses.fields(kind) if (field.default, field.default_factory) != given
    )


def _parse(hint: Any, value: Any, where: str, opened: Sequence[int] | None) -> Any:
    """Return a value as a field of this type has it. Raises NotUnderstood."""
    if get_origin(hint) in (UnionType, Union):
        kinds = [each for each in get_args(hint) if each is not NoneType]
        return None if value is None else _parse(kinds[0], value, where, opened)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise NotUnderstood(f"{where} is {value!r:.80} and not a list")
        return [_parse(get_args(hint)[0], each, where, opened) for each in value]
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_field_defaults"):
        return hint(**_fields(hint, value, where, opened))
    if hint is Descriptor:
        return _opened(value, where, opened)
    if hint is Any or isinstance(value, get_origin(hint) or hint) or (hint is float and type(value) is int):
        return value
    raise NotUnderstood(f"{where} is {value!r:.80}, expected {hint.__name__}")


def _opened(value: Any, where: str, opened: Sequence[int] | None) -> int:
    if type(value) is not int:
        raise NotUnderstood(f"{where} is {value!r:.80}, expected a number")
    if opened is None or value == NOT_OPEN:
        return value
    if not 0 <= value < len(opened):
        raise NotUnderstood(f"{where} is {value}, and {len(opened)} descriptors have come")
    return opened[value]
