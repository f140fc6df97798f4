"""Reads the settings from environment and flags, checks them, and tells where each comes from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, get_type_hints

from pydantic import Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from core.process.service_links import setting_variables
from core.process.settings import FIELDS, PREFIX, RULES, ConfigurationError, Settings, describe_default

#: What is shown in place of the value of a secret setting.
HIDDEN: Final = "***"

DEFAULT: Final = "default"
ENVIRONMENT: Final = "environment"
FLAG: Final = "flag"


class _Checked(BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid", cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` hands over; this process's own environment may say something else."""
        return (init_settings,)


def _field(name: str, kind: Any) -> Any:
    """Make what pydantic knows of a setting."""
    rule, field = RULES[name], FIELDS[name]
    default = "default_factory" if field.default is MISSING else "default"
    return (
        kind,
        Field(
            **{default: getattr(field, default)},
            description=rule.description,
            ge=rule.ge,
            le=rule.le,
            min_length=rule.min_length,
            allow_inf_nan=False if kind is float else None,
        ),
    )


#: Settings as pydantic checks them and makes flags of them.
_Model: Final = create_model(
    Settings.__name__,
    __base__=_Checked,
    __doc__=Settings.__doc__,
    **{name: _field(name, kind) for name, kind in get_type_hints(Settings).items()},
)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows with each flag what the reference of settings shows, not pydantic's own words for the default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        name = action.option_strings[-1].removeprefix("--").replace("-", "_")
        if name not in FIELDS:
            return action.help
        about = f"{RULES[name].description} Default: {describe_default(name) or 'not set'}."
        return about.replace("`", "").replace("%", "%%")


def _flags(program: str, arguments: Sequence[str]) -> CliSettingsSource[Any]:
    """Read the flags of `program`."""
    return CliSettingsSource(
        _Model, cli_prog_name=program, cli_parse_args=list(arguments), formatter_class=_Help
    )


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
    try:
        flags = None if arguments is None else _flags(program, arguments)
        return Settings(**dict(_Model(**{"_cli_settings_source": flags, **values})))
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(problem) for problem in error.errors())) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None


def _unknown(name: str, known: set[str]) -> str:
    # Without the prefix, which makes any two of them look alike.
    close = get_close_matches(
        name.upper().removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], n=1
    )
    return f"{name} is not a setting" + (
        f"; did you mean {PREFIX}{close[0]}?" if close else "; fastchat serve --help lists all settings"
    )


def _sentence(problem: Mapping[str, Any]) -> str:
    name = "_".join(str(part) for part in problem["loc"])
    expected = problem["msg"][:1].lower() + problem["msg"][1:]
    came = HIDDEN if RULES[name].secret else repr(str(problem["input"]))
    return f"{PREFIX}{name.upper()}: {expected}; the value is {came}"


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
    flags = _flags(program, arguments)()
    # An empty variable is as good as none.
    variables = {name for name, value in setting_variables(environ, PREFIX).items() if value}
    origins = []
    for name, value in values.items():
        variable = PREFIX + name.upper()
        origin = FLAG if name in flags else ENVIRONMENT if variable in variables else DEFAULT
        shown = HIDDEN if RULES[name].secret and value is not None else value
        origins.append(Origin(variable, shown, origin))
    return origins
