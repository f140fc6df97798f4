"""One validated settings object for every process of ours.

A setting X is the environment variable ``FASTCHAT_X`` or the flag ``--x``; the flag wins. The supervisor validates once and hands
its children the same values as environment (`Settings.environment`), so all of them read the same class.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from core.placement import WORKERS_MAX
from core.process.capacity import default_workers
from core.process.environment import PREFIX as PREFIX
from core.process.environment import ConfigurationError as ConfigurationError
from core.process.service_links import service_links

#: The ``json_schema_extra`` of a setting whose value nobody may read: what is shown in its place is `HIDDEN`.
SECRET: Final[dict[str, JsonValue]] = {"secret": True}
HIDDEN: Final = "***"


def _default(words: str) -> dict[str, JsonValue]:
    """Make the ``json_schema_extra`` of a setting whose default is worked out when the server starts: how, in words."""
    return {"default": words}


class Settings(BaseSettings):
    """Run the FastChat server. Each flag is also an environment variable: --data-dir is FASTCHAT_DATA_DIR. The flag wins."""

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
        "localhost", min_length=1, description="Address of the public port. `localhost` is 127.0.0.1 and ::1."
    )
    port: int = Field(8000, ge=0, le=65535, description="Public port. 0 takes a free port.")
    admin_host: str = Field(
        "localhost", min_length=1, description="Address of the admin port. `localhost` is 127.0.0.1 and ::1."
    )
    admin_port: int = Field(
        8001,
        ge=0,
        le=65535,
        description="Port of health checks, metrics and dashboard, for operators only: it has no password. 0 takes a free port.",
    )
    admin_hosts: str = Field(
        "",
        description="Names, separated by commas, that the admin port accepts in the Host header besides `localhost` and IP addresses,"
        " such as `fastchat` where that is the server's name in Kubernetes or Docker.",
    )
    workers: int = Field(
        default_factory=default_workers,
        ge=1,
        le=WORKERS_MAX,
        json_schema_extra=_default("one for each usable CPU, fewer if there is not enough memory for them"),
        description=f"Number of worker processes, at most {WORKERS_MAX}. Each serves a share of the users.",
    )
    fronts: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of front processes. They accept connections and hand them to the workers.",
    )
    data_dir: Path = Field(
        Path("data"), description="Directory in which users, chats and messages are stored."
    )
    run_dir: Path | None = Field(
        None,
        json_schema_extra=_default("a directory for this user and port in the system's temporary directory"),
        description="Directory for the sockets between the server's own processes, and for the socket of the operator's commands.",
    )
    store: Literal["sqlite", "memory"] = Field(
        "sqlite",
        description="`sqlite`: messages are stored in SQLite files in the data directory. `memory`: messages are lost when the process"
        " that holds them ends, and nothing is promised.",
    )
    durability: Literal["fsync", "os"] = Field(
        "fsync",
        description="`fsync`: an acknowledged message survives a loss of power. `os`: it survives the end of any process of the server,"
        " but not a loss of power.",
    )
    retention_days: float = Field(
        30.0,
        ge=0,
        le=36_500,
        allow_inf_nan=False,
        description="Retention of messages in days; 0 keeps them for ever. Time in which the server did not run counts gradually, at most"
        " 24 times as fast as time passes, so a system clock that is set wrong deletes nothing. A message that no device has acknowledged"
        " is kept until the server has run for so many days with it.",
    )
    mailbox_max: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Limit on unacknowledged messages that wait for one user; a tenth of it for one sender, and half of it for all senders"
        " to whom the user has never written. Beyond it MSG is answered with MESSAGE_FAILED.",
    )
    worker_memory_mib: int = Field(
        0,
        ge=0,
        le=1_048_576,
        description="Memory in MiB that a worker may use; beyond it the worker refuses new connections with close code 1013 until memory is"
        " free again. 0 means an equal share for each worker of 4/5 of the memory that the machine or container has.",
    )
    user_ids: Literal["uuid4", "uuid", "any"] = Field(
        "uuid4",
        description="Accepted user ids. `uuid4`: UUIDs of version 4. `uuid`: UUIDs of any version. `any`: 1 to 128 letters, digits and"
        " `. _ - | @ : + =`, at least one of them a letter or digit; e-mail addresses and the ids of identity providers fit.",
    )
    auth: Literal["none", "jwt"] | None = Field(
        None,
        description="Authentication. `none`: the user id in HELLO is believed without proof. `jwt`: HELLO needs a signed JSON Web Token."
        " Not set means `none` on a loopback address; to listen on any other address, this setting is required.",
    )
    jwt_key: str | None = Field(
        None,
        repr=False,
        json_schema_extra=SECRET,
        description="Key with which tokens are verified, in place of FASTCHAT_JWT_KEY_FILE: a secret of at least 32 bytes for HS256, a"
        " key in PEM for the other algorithms. It is never shown. Other users of the machine can see flags: prefer a file.",
    )
    jwt_key_file: Path | None = Field(
        None,
        description="File with the key with which tokens are verified: a secret of at least 32 bytes for HS256, a key in PEM for the"
        " other algorithms. SIGHUP makes the server read it again.",
    )
    jwt_jwks_file: Path | None = Field(
        None,
        description="File with a JSON Web Key Set with which tokens are verified, in place of FASTCHAT_JWT_KEY_FILE. SIGHUP makes the"
        " server read it again.",
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = Field(
        "HS256",
        description="Algorithm with which tokens must be signed; tokens signed with another one are refused.",
    )
    jwt_audience: str = Field(
        "",
        description="Accepted audiences, separated by commas: the claim `aud` of a token must name one of them. Not set: a token that"
        " names an audience is refused.",
    )
    jwt_issuer: str = Field(
        "",
        description="Accepted issuers, separated by commas: the claim `iss` of a token must be one of them. Not set: any issuer is"
        " accepted.",
    )
    jwt_leeway: float = Field(
        10.0,
        ge=0,
        le=300,
        allow_inf_nan=False,
        description="Allowed clock skew between the server and the issuer of tokens, in seconds, for the claims `exp` and `nbf`.",
    )
    allowed_origins: str = Field(
        "",
        description="Origins of web pages that may connect, separated by commas, such as `https://chat.example.com`."
        " `https://*.example.com` stands for all subdomains, `*` for all origins, `file://` and `null` for pages without an origin, which"
        " local files and sandboxed frames of any site are. Pages from `localhost`, from loopback addresses, and from the IP address that"
        " they connect to may always connect.",
    )
    trusted_proxies: str = Field(
        "",
        description="IP addresses and networks of proxies, separated by commas, whose X-Forwarded-For header is believed. Not set: the"
        " header is ignored.",
    )
    max_connections: int = Field(
        0, ge=0, le=10_000_000, description="Limit on client connections in total. 0 disables the limit."
    )
    connections_per_ip: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Limit on connections from one IPv4 address or IPv6 /64. 0 disables the limit.",
    )
    connection_rate_per_ip: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Limit on new connections per second from one IPv4 address or IPv6 /64, with a burst of three times as many. Each front"
        " process counts separately. 0 disables the limit.",
    )
    half_open_per_ip: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        json_schema_extra=_default("256, and no limit for loopback addresses"),
        description="Limit on connections from one IPv4 address or IPv6 /64 that have not sent HELLO. Each front process counts separately."
        " 0 disables the limit.",
    )
    presence: Literal["auto", "everyone", "contacts"] = Field(
        "auto",
        description="Users whose online status a user sees. `everyone`: all users. `contacts`: the users with whom the user has a chat."
        " `auto`: everyone until more than 200 users are online, then contacts until fewer than 160 are.",
    )
    messages_per_minute: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="Limit on MSG messages of one user in any 60 seconds, all devices together. Beyond it MSG is"
        " answered with RATE_LIMITED. 0 disables the limit.",
    )
    typing_per_minute: int = Field(
        10,
        ge=0,
        le=1_000_000,
        description="Limit on TYPING messages of one user in any 60 seconds, all devices together. Beyond it TYPING is"
        " answered with RATE_LIMITED. 0 disables the limit.",
    )
    open_chats_per_minute: int = Field(
        20,
        ge=0,
        le=1_000_000,
        description="Limit on OPEN_CHAT messages of one user in any 60 seconds, all devices together. Beyond it OPEN_CHAT is"
        " answered with RATE_LIMITED. 0 disables the limit.",
    )
    hellos_per_minute: int = Field(
        30,
        ge=0,
        le=1_000_000,
        description="Limit on HELLO messages of one user in any 60 seconds, all devices together. Beyond it HELLO is"
        " answered with RATE_LIMITED. 0 disables the limit.",
    )
    history_per_minute: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="Limit on HISTORY messages of one user in any 60 seconds, all devices together. Beyond it HISTORY is"
        " answered with RATE_LIMITED. 0 disables the limit.",
    )
    presence_per_minute: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="Limit on PRESENCE messages of one user in any 60 seconds, all devices together. Beyond it PRESENCE is"
        " answered with RATE_LIMITED. 0 disables the limit.",
    )
    pings_per_second: float = Field(
        1.0,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="Limit on PING messages per second on one connection, with a burst of 5. Beyond it PING is answered with RATE_LIMITED."
        " 0 disables the limit.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged: `debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="Format of the log. `text`: one line of text per event. `json`: one JSON object per line, for log collectors.",
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

    def environment(self) -> dict[str, str]:
        """Return all settings as environment variables, for a child process."""
        return {
            PREFIX + name.upper(): str(value)
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        }


def is_secret(name: str) -> bool:
    """Return whether nobody may read the value of this setting; False for what is none."""
    field = Settings.model_fields.get(name)
    return field is not None and field.json_schema_extra == SECRET


def describe_default(name: str) -> str | None:
    """Tell the default of a setting: as one would write it, or in words where it is worked out; None when the setting is not set."""
    field = Settings.model_fields[name]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "default" in extra:
        return str(extra["default"])
    if field.default in (None, ""):
        return None
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows with each flag what the reference of settings shows, not pydantic's own words for the default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        name = action.option_strings[-1].removeprefix("--").replace("-", "_")
        if name not in Settings.model_fields:
            return action.help
        about = f"{Settings.model_fields[name].description} Default: {describe_default(name) or 'not set'}."
        return about.replace("`", "").replace("%", "%%")


def flags_source(program: str) -> CliSettingsSource[Settings]:
    """Make the reader of the flags of `program`; call it with ``args`` to read some."""
    return CliSettingsSource(Settings, cli_prog_name=program, formatter_class=_Help)


def load_settings(
    environ: Mapping[str, str], arguments: Sequence[str] | None = None, program: str = "fastchat serve"
) -> Settings:
    """Load the settings from the ``FASTCHAT_`` variables of `environ` and, when there are `arguments`, from flags of `program`.

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
            _cli_settings_source=None if arguments is None else flags_source(program)(args=list(arguments)),
            **values,  # type: ignore[arg-type] # text, of which pydantic makes what each field is
        )
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(problem) for problem in error.errors())) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None


def setting_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environ` that are meant as settings; those by which a container platform tells of a Service are not."""
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
        f"; did you mean {PREFIX}{close[0]}?" if close else "; fastchat serve --help lists all settings"
    )


def _sentence(problem: Mapping[str, Any]) -> str:
    name = "_".join(str(part) for part in problem["loc"])
    expected = problem["msg"][:1].lower() + problem["msg"][1:]
    came = HIDDEN if is_secret(name) else repr(str(problem["input"]))
    return f"{PREFIX}{name.upper()}: {expected}; the value is {came}"
