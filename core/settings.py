"""One validated settings object for every process of ours.

A setting X is the environment variable ``FASTCHAT_X`` or the flag ``--x``; the flag wins. The supervisor validates once and hands
its children the same values as environment (`Settings.environment`), so all of them read the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from core.capacity import default_workers
from core.placement import WORKERS_MAX
from core.service_links import service_links

PREFIX: Final = "FASTCHAT_"
#: The ``json_schema_extra`` of a setting whose value nobody may read: what is shown in its place is `HIDDEN`.
SECRET: Final[dict[str, JsonValue]] = {"secret": True}
HIDDEN: Final = "***"


class ConfigurationError(Exception):
    """Something the operator has to change before the server can start; the message is a sentence that says what."""


class Settings(BaseSettings):
    """The FastChat server. Each flag is an environment variable too: --data-dir is FASTCHAT_DATA_DIR; the flag wins."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="fastchat serve",
        cli_hide_none_type=True,
    )

    host: str = Field(
        "localhost", min_length=1, description="address of the public port; localhost is 127.0.0.1 and ::1"
    )
    port: int = Field(8000, ge=0, le=65535, description="public port; 0 takes a free one")
    admin_host: str = Field("localhost", min_length=1, description="address of the admin port")
    admin_port: int = Field(8001, ge=0, le=65535, description="admin port; 0 takes a free one")
    admin_hosts: str = Field(
        "",
        description="names by which the admin port is asked besides localhost and addresses, by commas, such as fastchat.example.com",
    )
    workers: int = Field(
        default_factory=default_workers,
        ge=1,
        le=WORKERS_MAX,
        description="worker processes; default: one for each CPU that the server may use, if there is memory for so many",
    )
    fronts: int = Field(1, ge=1, le=64, description="front processes")
    data_dir: Path = Field(Path("data"), description="where the server keeps its data")
    run_dir: Path | None = Field(
        None,
        description="directory for the server's own sockets; default: one under the system's temporary directory",
    )
    store: Literal["sqlite", "memory"] = Field(
        "sqlite", description="where messages are kept: in SQLite files below the data directory, or nowhere"
    )
    durability: Literal["fsync", "os"] = Field(
        "fsync",
        description="fsync: what is acknowledged survives a loss of power; os: it survives the end of any process of ours",
    )
    retention_days: float = Field(
        30.0, ge=0, le=36_500, allow_inf_nan=False, description="days that messages are kept; 0: for ever"
    )
    mailbox_max: int = Field(
        100_000, ge=1, le=10_000_000, description="messages that may wait for one user; more are refused"
    )
    worker_memory_mib: int = Field(
        0,
        ge=0,
        le=1_048_576,
        description="MiB past which a worker takes no more connections; 0: its share of four fifths of what the machine or container has",
    )
    user_ids: Literal["uuid4", "uuid", "any"] = Field(
        "uuid4",
        description="which user ids are accepted: UUIDs of version 4, UUIDs of any version, or 1-128 letters, digits and . _ - | @ : + =",
    )
    auth: Literal["none", "jwt"] | None = Field(
        None,
        description="none: identity is what HELLO says, and is not proven; jwt: a signed token proves it",
    )
    jwt_key: str | None = Field(
        None,
        repr=False,
        json_schema_extra=SECRET,
        description="key of tokens: the secret of HS256, else a key in PEM; better in a file than in a flag, which others see",
    )
    jwt_key_file: Path | None = Field(None, description="file with that key, in place of it")
    jwt_jwks_file: Path | None = Field(
        None, description="file with a JSON Web Key Set, in place of it; SIGHUP reads it again"
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = Field(
        "HS256", description="the one algorithm with which tokens may be signed"
    )
    jwt_audience: str = Field("", description="`aud` that a token must name, one of these, by commas")
    jwt_issuer: str = Field("", description="`iss` that a token must have, one of these, by commas")
    jwt_leeway: float = Field(
        10.0,
        ge=0,
        le=300,
        allow_inf_nan=False,
        description="seconds by which the clocks of server and issuer may differ",
    )
    allowed_origins: str = Field(
        "",
        description="origins that browsers may connect from, separated by commas; * and https://*.example.com work",
    )
    trusted_proxies: str = Field(
        "", description="addresses and networks, by commas, whose X-Forwarded-For is believed; default: none"
    )
    max_connections: int = Field(
        0, ge=0, le=10_000_000, description="connections of the chat in all; 0: no limit"
    )
    connections_per_ip: int = Field(
        0, ge=0, le=10_000_000, description="connections from an IPv4 address or IPv6 /64; 0: no limit"
    )
    connection_rate_per_ip: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="new connections a second from there, with a burst of three times that; 0: no limit",
    )
    half_open_per_ip: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="connections from there that have not said HELLO; 0: no limit; default: 256, but no limit for this machine",
    )
    presence: Literal["auto", "everyone", "contacts"] = Field(
        "auto", description="whose presence a user sees"
    )
    messages_per_minute: int = Field(60, ge=0, le=1_000_000, description="MSG a minute and user; 0: no limit")
    typing_per_minute: int = Field(
        10, ge=0, le=1_000_000, description="TYPING a minute and user; 0: no limit"
    )
    open_chats_per_minute: int = Field(
        20, ge=0, le=1_000_000, description="OPEN_CHAT a minute and user; 0: no limit"
    )
    hellos_per_minute: int = Field(30, ge=0, le=1_000_000, description="HELLO a minute and user; 0: no limit")
    history_per_minute: int = Field(
        60, ge=0, le=1_000_000, description="HISTORY a minute and user; 0: no limit"
    )
    presence_per_minute: int = Field(
        60, ge=0, le=1_000_000, description="PRESENCE asked for a minute and user; 0: no limit"
    )
    pings_per_second: float = Field(
        1.0,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="PING a second and connection, with a burst of 5; 0: no limit",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is logged"
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, json for machines")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load_settings` hands over what the environment says; this process's own may say something else."""
        return (init_settings,)

    def environment(self) -> dict[str, str]:
        """All settings as environment variables, for a child process."""
        return {
            PREFIX + name.upper(): str(value)
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        }


def is_secret(name: str) -> bool:
    """Whether nobody may read the value of this setting; False for what is none."""
    field = Settings.model_fields.get(name)
    return field is not None and field.json_schema_extra == SECRET


def load_settings(
    environ: Mapping[str, str], arguments: Sequence[str] | None = None, program: str = "fastchat serve"
) -> Settings:
    """The settings from the ``FASTCHAT_`` variables of `environ` and, when there are `arguments`, from flags of `program`.

    Raises ConfigurationError, with a sentence for each unknown variable and bad value. An unknown flag and ``--help`` end the
    process as argparse does (exit codes 2 and 0).
    """
    variables = setting_variables(environ)
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in variables if name not in known)
    if unknown:
        raise ConfigurationError("\n".join(_unknown(name, known) for name in unknown))
    values = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if value}
    try:
        return Settings(
            _cli_parse_args=list(arguments) if arguments is not None else None,
            _cli_prog_name=program,
            **values,  # type: ignore[arg-type] # text, of which pydantic makes what each field is
        )
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(problem) for problem in error.errors())) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None


def setting_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that are meant as settings; those by which a container platform tells of a Service are not."""
    links = set(service_links(environ, PREFIX))
    return {
        name: value
        for name, value in environ.items()
        if name.upper().startswith(PREFIX) and name not in links
    }


def _unknown(name: str, known: set[str]) -> str:
    # Without the prefix, which makes any two of them look alike.
    close = get_close_matches(
        name.upper().removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], n=1
    )
    return f"{name} is not a setting" + (
        f"; did you mean {PREFIX}{close[0]}?" if close else "; --help lists them"
    )


def _sentence(problem: Mapping[str, Any]) -> str:
    name = "_".join(str(part) for part in problem["loc"])
    expected = problem["msg"][:1].lower() + problem["msg"][1:]
    came = HIDDEN if is_secret(name) else repr(str(problem["input"]))
    return f"{PREFIX}{name.upper()}: {expected}; it is {came}"
