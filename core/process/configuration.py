"""Reads the settings from environment and flags, checks them, and tells where each comes from."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

from core.process.service_links import setting_variables
from core.process.settings import FIELDS, PREFIX, RULES, ConfigurationError, Rule, Settings, describe_default

#: What is shown in place of the value of a secret setting.
HIDDEN: Final = "***"

DEFAULT: Final = "default"
ENVIRONMENT: Final = "environment"
FLAG: Final = "flag"


def _kind(hint: Any) -> Any:
    """Return the type of a setting that is set, or the Literal of all its values."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 and get_origin(hint) is not Literal else hint


#: name -> str, int, float, Path, or a Literal.
_KINDS: Final[Mapping[str, Any]] = {name: _kind(hint) for name, hint in get_type_hints(Settings).items()}


def _flags(program: str, arguments: Sequence[str]) -> dict[str, str]:
    """Return what the flags of `program` say, by name of the setting; unknown ones end the process."""
    parser = argparse.ArgumentParser(prog=program, description=Settings.__doc__, allow_abbrev=False)
    for name, kind in _KINDS.items():
        values = get_args(kind)
        shown = f"{{{','.join(values)}}}" if values else kind.__name__
        about = f"{RULES[name].description} Default: {describe_default(name) or 'not set'}."
        about = about.replace("`", "").replace("%", "%%")
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, metavar=shown, default=argparse.SUPPRESS, help=about)
    return vars(parser.parse_args(list(arguments)))


def load_settings(
    environ: Mapping[str, str], arguments: Sequence[str] | None = None, program: str = "fastchat serve"
) -> Settings:
    """Load the settings from the ``FASTCHAT_`` variables of `environ` and, when there are `arguments`, from flags of `program`.

    Raises ConfigurationError, with a sentence for each unknown variable and bad value. An unknown flag and ``--help`` end the
    process as argparse does (exit codes 2 and 0).
    """
    variables = setting_variables(environ, PREFIX)
    known = {PREFIX + name.upper() for name in FIELDS}
    unknown = sorted(name for name in variables if name not in known)
    if unknown:
        raise ConfigurationError("\n".join(_unknown(name, known) for name in unknown))
    values = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if value}
    if arguments is not None:
        values |= _flags(program, arguments)
    settings, wrong = {}, []
    for name in filter(values.__contains__, FIELDS):
        try:
            settings[name] = _parse(_KINDS[name], RULES[name], values[name])
        except ValueError as expected:
            came = HIDDEN if RULES[name].secret else repr(values[name])
            wrong.append(f"{PREFIX}{name.upper()}: expected {expected}; the value is {came}")
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return Settings(**settings)


def _parse(kind: Any, rule: Rule, text: str) -> Any:
    """Return the value of a setting. Raises ValueError, whose message says what is expected."""
    values = get_args(kind)
    if values:
        if text not in values:
            raise ValueError(f"{', '.join(values[:-1])} or {values[-1]}")
        return text
    if kind in (int, float):
        return _parse_number(kind, rule, text)
    if len(text) < (rule.min_length or 0):
        raise ValueError(f"at least {rule.min_length} character")
    return kind(text)


def _parse_number(kind: type[int] | type[float], rule: Rule, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError("a whole number" if kind is int else "a number") from None
    if kind is float and not math.isfinite(value):
        raise ValueError("a finite number")
    if rule.ge is not None and value < rule.ge:
        raise ValueError(f"at least {rule.ge}")
    if rule.le is not None and value > rule.le:
        raise ValueError(f"at most {rule.le}")
    return value


def _unknown(name: str, known: set[str]) -> str:
    # Without the prefix, which makes any two of them look alike.
    close = get_close_matches(
        name.upper().removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], n=1
    )
    return f"{name} is not a setting" + (
        f"; did you mean {PREFIX}{close[0]}?" if close else "; fastchat serve --help lists all settings"
    )


class Origin(NamedTuple):
    """A setting, and who set it."""

    #: Of the variable.
    name: str
    #: As JSON has it; hidden when it is a secret that was set.
    value: Any
    #: ``default``, ``environment`` or ``flag``.
    origin: str


def explain_settings(environ: Mapping[str, str], arguments: Sequence[str], program: str) -> list[Origin]:
    """Return all settings that a server would have with this environment and these flags. Raises and ends as `load_settings` does."""
    values = load_settings(environ, arguments, program).as_json()
    flags = _flags(program, arguments)
    # An empty variable is as good as none.
    variables = {name for name, value in setting_variables(environ, PREFIX).items() if value}
    origins = []
    for name, value in values.items():
        variable = PREFIX + name.upper()
        origin = FLAG if name in flags else ENVIRONMENT if variable in variables else DEFAULT
        shown = HIDDEN if RULES[name].secret and value is not None else value
        origins.append(Origin(variable, shown, origin))
    return origins
