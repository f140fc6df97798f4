"""Where each setting comes from, for operators who wonder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_settings import CliSettingsSource

from core.process.settings import HIDDEN, PREFIX, Settings, is_secret, load_settings, setting_variables

DEFAULT: Final = "default"
ENVIRONMENT: Final = "environment"
FLAG: Final = "flag"


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
    values = load_settings(environ, arguments, program).model_dump(mode="json")
    flags = CliSettingsSource(Settings, cli_parse_args=list(arguments), cli_prog_name=program)()
    # An empty variable is as good as none.
    variables = {name for name, value in setting_variables(environ).items() if value}
    origins = []
    for name, value in values.items():
        variable = PREFIX + name.upper()
        origin = FLAG if name in flags else ENVIRONMENT if variable in variables else DEFAULT
        shown = HIDDEN if is_secret(name) and value is not None else value
        origins.append(Origin(variable, shown, origin))
    return origins
