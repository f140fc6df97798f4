"""The settings that every process of ours has.

A setting X is the environment variable ``FASTCHAT_X`` or the flag ``--x``. The supervisor reads and checks them once
(``core.process.configuration``) and hands its children the values (`Settings.environment`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from core.placement import WORKERS_MAX
from core.process.capacity import default_workers
from core.wire.codec import from_json, to_json

#: What the name of each setting begins with as an environment variable.
PREFIX: Final = "FASTCHAT_"
#: The variable in which a child finds the values of all settings, as JSON.
_HANDED_DOWN: Final = f"{PREFIX}SETTINGS"


class ConfigurationError(Exception):
    """Something the operator has to change before the server can start; the message is a sentence that says what."""


class Rule(NamedTuple):
    """What is known of a setting besides its type and default."""

    description: str
    #: The least and the greatest value.
    ge: float | None = None
    le: float | None = None
    min_length: int | None = None
    #: Whether nobody may read the value.
    secret: bool = False
    #: How the default is found, when it depends on the machine or on other settings.
    default_in_words: str | None = None


def _setting(default: Any, description: str, **rule: Any) -> Any:
    """Make a field of `Settings`; a callable `default` makes the value. `rule` are fields of `Rule`."""
    how = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(**how, repr=not rule.get("secret"), metadata={"rule": Rule(description, **rule)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Run the FastChat server. Each flag is also an environment variable: --data-dir is FASTCHAT_DATA_DIR. The flag wins."""

    host: str = _setting(
        "localhost", "Address of the public port. `localhost` is 127.0.0.1 and ::1.", min_length=1
    )
    port: int = _setting(8000, "Public port. 0 takes a free port.", ge=0, le=65535)
    admin_host: str = _setting(
        "localhost", "Address of the admin port. `localhost` is 127.0.0.1 and ::1.", min_length=1
    )
    admin_port: int = _setting(
        8001,
        "Port of health checks, metrics and dashboard, for operators only: it has no password. 0 takes a free port.",
        ge=0,
        le=65535,
    )
    admin_hosts: str = _setting(
        "",
        "Names, separated by commas, that the admin port accepts in the Host header besides `localhost` and IP addresses,"
        " such as `fastchat` where that is the server's name in Kubernetes or Docker.",
    )
    api_port: int | None = _setting(
        None,
        "Port of the server API, for backends. Not set: there is no server API. 0 takes a free port.",
        ge=0,
        le=65535,
    )
    api_host: str = _setting(
        "localhost", "Address of the port of the server API. `localhost` is 127.0.0.1 and ::1.", min_length=1
    )
    api_hosts: str = _setting(
        "",
        "Names, separated by commas, that the server API accepts in the Host header besides `localhost` and IP addresses,"
        " such as `fastchat` where that is the server's name in Kubernetes or Docker.",
    )
    api_key_file: Path | None = _setting(
        None,
        "File with the key that every call of the server API needs: one line of at least 32 visible ASCII characters, or two lines"
        " while keys are changed. Only its owner may have access to it. SIGHUP makes the server read it again.",
    )
    api_calls_per_second: int = _setting(
        2000,
        "Limit on calls of the server API per second. Beyond it a call is answered with status 429. 0 disables the limit.",
        ge=0,
        le=100_000,
    )
    workers: int = _setting(
        default_workers,
        f"Number of worker processes, at most {WORKERS_MAX}. Each serves a share of the users.",
        ge=1,
        le=WORKERS_MAX,
        default_in_words="one for each usable CPU, fewer if there is not enough memory for them",
    )
    fronts: int = _setting(
        1,
        "Number of front processes. They accept connections and hand them to the workers.",
        ge=1,
        le=64,
    )
    data_dir: Path = _setting(Path("data"), "Directory in which users, chats and messages are stored.")
    run_dir: Path | None = _setting(
        None,
        "Directory for the sockets between the server's own processes, and for the socket of the operator's commands.",
        default_in_words="a directory for this user and port in the system's temporary directory",
    )
    store: Literal["sqlite", "memory"] = _setting(
        "sqlite",
        "`sqlite`: messages are stored in SQLite files in the data directory. `memory`: messages are lost when the process"
        " that holds them ends, and nothing is promised.",
    )
    durability: Literal["fsync", "os"] = _setting(
        "fsync",
        "`fsync`: an acknowledged message survives a loss of power. `os`: it survives the end of any process of the server,"
        " but not a loss of power.",
    )
    retention_days: float = _setting(
        30.0,
        "Retention of messages in days; 0 keeps them for ever. Time in which the server did not run counts gradually, at most"
        " 24 times as fast as time passes, so a system clock that is set wrong deletes nothing. A message that no device has acknowledged"
        " is kept until the server has run for so many days with it.",
        ge=0,
        le=36_500,
    )
    mailbox_max: int = _setting(
        100_000,
        "Limit on unacknowledged messages that wait for one user; a tenth of it for one sender, and half of it for all senders"
        " to whom the user has never written. Beyond it MSG is answered with MESSAGE_FAILED.",
        ge=1,
        le=10_000_000,
    )
    worker_memory_mib: int = _setting(
        0,
        "Memory in MiB that a worker may use; beyond it the worker refuses new connections with close code 1013 until memory is"
        " free again. 0 means an equal share for each worker of 4/5 of the memory that the machine or container has.",
        ge=0,
        le=1_048_576,
    )
    user_ids: Literal["uuid4", "uuid", "any"] = _setting(
        "uuid4",
        "Accepted user ids. `uuid4`: UUIDs of version 4. `uuid`: UUIDs of any version. `any`: 1 to 128 letters, digits and"
        " `. _ - | @ : + =`, at least one of them a letter or digit; e-mail addresses and the ids of identity providers fit.",
    )
    auth: Literal["none", "jwt"] | None = _setting(
        None,
        "Authentication. `none`: the user id in HELLO is believed without proof. `jwt`: HELLO needs a signed JSON Web Token."
        " Not set means `none` on a loopback address; to listen on any other address, this setting is required.",
    )
    jwt_key: str | None = _setting(
        None,
        "Key with which tokens are verified, in place of FASTCHAT_JWT_KEY_FILE: a secret of at least 32 bytes for HS256, a"
        " key in PEM for the other algorithms. It is never shown. Other users of the machine can see flags: prefer a file.",
        secret=True,
    )
    jwt_key_file: Path | None = _setting(
        None,
        "File with the key with which tokens are verified: a secret of at least 32 bytes for HS256, a key in PEM for the"
        " other algorithms. SIGHUP makes the server read it again.",
    )
    jwt_jwks_file: Path | None = _setting(
        None,
        "File with a JSON Web Key Set with which tokens are verified, in place of FASTCHAT_JWT_KEY_FILE. SIGHUP makes the"
        " server read it again.",
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = _setting(
        "HS256", "Algorithm with which tokens must be signed; tokens signed with another one are refused."
    )
    jwt_audience: str = _setting(
        "",
        "Accepted audiences, separated by commas: the claim `aud` of a token must name one of them. Not set: a token that"
        " names an audience is refused.",
    )
    jwt_issuer: str = _setting(
        "",
        "Accepted issuers, separated by commas: the claim `iss` of a token must be one of them. Not set: any issuer is"
        " accepted.",
    )
    jwt_leeway: float = _setting(
        10.0,
        "Allowed clock skew between the server and the issuer of tokens, in seconds, for the claims `exp` and `nbf`.",
        ge=0,
        le=300,
    )
    login_url: str = _setting(
        "",
        "URL of your application's login page, http or https, for FASTCHAT_AUTH=jwt. Where a token is needed, the chat page links to it, in"
        " place of the input field for a token. The login page returns the user to the chat page, with `#token=TOKEN` in the URL.",
    )
    allowed_origins: str = _setting(
        "",
        "Origins of web pages that may connect, separated by commas, such as `https://chat.example.com`."
        " `https://*.example.com` stands for all subdomains, `*` for all origins, `file://` and `null` for pages without an origin, which"
        " local files and sandboxed frames of any site are. Pages from `localhost`, from loopback addresses, and from the IP address that"
        " they connect to may always connect.",
    )
    trusted_proxies: str = _setting(
        "",
        "IP addresses and networks of proxies, separated by commas, whose X-Forwarded-For header is believed. Not set: the"
        " header is ignored.",
    )
    max_connections: int = _setting(
        0, "Limit on client connections in total. 0 disables the limit.", ge=0, le=10_000_000
    )
    connections_per_ip: int = _setting(
        0,
        "Limit on connections from one IPv4 address or IPv6 /64. 0 disables the limit.",
        ge=0,
        le=10_000_000,
    )
    connection_rate_per_ip: int = _setting(
        0,
        "Limit on new connections per second from one IPv4 address or IPv6 /64, with a burst of three times as many. Each front"
        " process counts separately. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    half_open_per_ip: int | None = _setting(
        None,
        "Limit on connections from one IPv4 address or IPv6 /64 that have not sent HELLO. Each front process counts separately."
        " 0 disables the limit.",
        ge=0,
        le=1_000_000,
        default_in_words="256, and no limit for loopback addresses",
    )
    presence: Literal["auto", "everyone", "contacts"] = _setting(
        "auto",
        "Users whose online status a user sees. `everyone`: all users. `contacts`: the users with whom the user has a chat."
        " `auto`: everyone until more than 200 users are online, then contacts until fewer than 160 are.",
    )
    hook_url: str = _setting(
        "",
        "Address of a web server that is told by a POST when a message waits for a user who has had no connection for 5 seconds, such"
        " as `https://push.example.com/fastchat`. Needs FASTCHAT_HOOK_SECRET_FILE. Not set: nobody is told.",
    )
    hook_secret_file: Path | None = _setting(
        None,
        "File with the secret by which the calls of FASTCHAT_HOOK_URL are signed: `whsec_` and 24 to 64 bytes in base64. While the secret"
        " is changed, a second line holds the old one; calls are signed by both. Only its owner may read the file. SIGHUP makes the server"
        " read it again.",
    )
    hook_content: int = _setting(
        0,
        "`1`: the calls of FASTCHAT_HOOK_URL have the text of the first waiting message. `0`: they do not.",
        ge=0,
        le=1,
    )
    messages_per_minute: int = _setting(
        60,
        "Limit on MSG messages of one user in any 60 seconds, all devices together. Beyond it MSG is"
        " answered with RATE_LIMITED. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    typing_per_minute: int = _setting(
        10,
        "Limit on TYPING messages of one user in any 60 seconds, all devices together. Beyond it TYPING is"
        " answered with RATE_LIMITED. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    open_chats_per_minute: int = _setting(
        20,
        "Limit on OPEN_CHAT messages of one user in any 60 seconds, all devices together. Beyond it OPEN_CHAT is"
        " answered with RATE_LIMITED. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    hellos_per_minute: int = _setting(
        30,
        "Limit on HELLO messages of one user in any 60 seconds, all devices together. Beyond it HELLO is"
        " answered with RATE_LIMITED. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    history_per_minute: int = _setting(
        60,
        "Limit on HISTORY messages of one user in any 60 seconds, all devices together. Beyond it HISTORY is"
        " answered with RATE_LIMITED. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    presence_per_minute: int = _setting(
        60,
        "Limit on PRESENCE messages of one user in any 60 seconds, all devices together. Beyond it PRESENCE is"
        " answered with RATE_LIMITED. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    lists_per_minute: int = _setting(
        60,
        "Limit on CHATS messages of one user in any 60 seconds, all devices together. READ, HIDE, MUTE, UNMUTE, BLOCK and UNBLOCK"
        " are each limited to this number too. Beyond it a message is answered with RATE_LIMITED. 0 disables these limits.",
        ge=0,
        le=1_000_000,
    )
    service_messages_per_minute: int = _setting(
        6000,
        'Limit on MSG messages of all connections of one user with `role: "service"` in any 60 seconds, in place of'
        " FASTCHAT_MESSAGES_PER_MINUTE. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    service_open_chats_per_minute: int = _setting(
        2000,
        'Limit on OPEN_CHAT messages of all connections of one user with `role: "service"` in any 60 seconds, in place of'
        " FASTCHAT_OPEN_CHATS_PER_MINUTE. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    service_typing_per_minute: int = _setting(
        1000,
        'Limit on TYPING messages of all connections of one user with `role: "service"` in any 60 seconds, in place of'
        " FASTCHAT_TYPING_PER_MINUTE. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    service_history_per_minute: int = _setting(
        600,
        'Limit on HISTORY messages of all connections of one user with `role: "service"` in any 60 seconds, in place of'
        " FASTCHAT_HISTORY_PER_MINUTE. 0 disables the limit.",
        ge=0,
        le=1_000_000,
    )
    pings_per_second: float = _setting(
        1.0,
        "Limit on PING messages per second on one connection, with a burst of 5. Beyond it PING is answered with RATE_LIMITED."
        " 0 disables the limit.",
        ge=0,
        le=10_000,
    )
    drain_seconds: float = _setting(
        0.0,
        "Seconds over which SIGTERM spreads the closes of the client connections (close code 1012), for a server with others beside it."
        " The server accepts no connections meanwhile and then stops. 0: SIGTERM stops the server at once (close code 1001).",
        ge=0,
        le=3600,
    )
    takeover_seconds: float = _setting(
        30.0,
        "Seconds for which workers and fronts serve on after the supervisor was killed. A server that is started within that time with"
        " equal settings goes on with them, and no connection is closed. 0 ends them at once.",
        ge=0,
        le=3600,
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "Lowest severity that is logged: `debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["text", "json"] = _setting(
        "text",
        "Format of the log. `text`: one line of text per event. `json`: one JSON object per line, for log collectors.",
    )

    @classmethod
    def handed_down(cls, environ: Mapping[str, str]) -> Self:
        """Return what the supervisor has put into the environment of its child."""
        return cls.from_json(from_json(environ[_HANDED_DOWN]))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Undo `as_json`. What is no setting is left out: another version of the program may have written it."""
        known = {name: value for name, value in values.items() if name in FIELDS}
        paths = (name for name, value in known.items() if "Path" in FIELDS[name].type and value is not None)
        return cls(**known | {name: Path(known[name]) for name in paths})

    def environment(self) -> dict[str, str]:
        """Return all settings as an environment variable, for a child process."""
        return {_HANDED_DOWN: to_json(self.as_json()).decode()}

    def as_json(self) -> dict[str, Any]:
        """Return name -> value for all settings, as JSON has it."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self).items()
        }


#: name -> setting.
FIELDS: Final = {field.name: field for field in dataclasses.fields(Settings)}
#: name -> what is known of it.
RULES: Final[Mapping[str, Rule]] = {name: field.metadata["rule"] for name, field in FIELDS.items()}


def describe_default(name: str) -> str | None:
    """Tell the default of a setting: as one would write it, or in words where it is worked out; None when the setting is not set."""
    default = FIELDS[name].default
    if RULES[name].default_in_words:
        return RULES[name].default_in_words
    if default in (None, ""):
        return None
    return f"{default:g}" if isinstance(default, float) else str(default)
