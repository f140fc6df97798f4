"""The operator's command line: ``fastchat``, which is also ``python -m router``.

A server that runs never loads this: ``router.__main__`` starts it without. Here is what asks about a server or about its settings, and
what explains itself. Exit codes, where not said otherwise: 0 done, 2 it can't be done, and a sentence on standard error says why.

Libraries that take time to load are loaded by the commands that need them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from core.process.control import EXIT_CONFIGURATION
from router.operator.store_commands import add_store_commands

if TYPE_CHECKING:
    from router.operator.client import RunningServer

#: `status` found a server that is not ready; `who` and `kick` found nobody of that name, or without a connection; `hook test` failed.
EXIT_NOT_SO: Final = 1
#: `delete` found nobody of that name, or a deletion that takes longer than the command waits.
_EXIT_OF_DELETION: Final = {"deleted": 0, "unknown": EXIT_NOT_SO, "deleting": 3}
#: A bug of ours.
_EXIT_BUG: Final = 70

_PROGRAM: Final = "fastchat"
_EPILOG: Final = "Exit codes: 0 done, 2 not possible, with the reason on standard error; the help of a command has its other codes."
#: Everything that a command does not know is for ``core.process.configuration``.
_TAKES_SETTINGS: Final = {"allow_extra_args": True, "ignore_unknown_options": True}

app: Final = typer.Typer(
    help="Run a FastChat server, and operate a running one.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_config: Final = typer.Typer(
    help="Check or show the settings of a server. Takes the flags of `fastchat serve`.",
    rich_markup_mode=None,
)
app.add_typer(_config, name="config")
add_store_commands(app)
_hook: Final = typer.Typer(
    help="Test the hook for waiting messages. Takes the flags of `fastchat serve`.",
    rich_markup_mode=None,
)
app.add_typer(_hook, name="hook")

Admin = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The server's admin port. Default: http://localhost:8001, or FASTCHAT_ADMIN_HOST and FASTCHAT_ADMIN_PORT.",
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        help="The server's run directory, in place of its admin port. Default: FASTCHAT_RUN_DIR, if it is set."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)]


def run(arguments: Sequence[str]) -> int:
    """Do what a command line says; the exit code. Nothing but sentences comes out when it can't be done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that the terminal can't show must not be the end.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(list(arguments) or ["--help"])
    except BrokenPipeError:
        # Whoever read it has seen enough. Python would complain once more when it flushes at the end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CONFIGURATION
    except Exception as error:
        _complain(f"bug: {type(error).__name__}: {error}")
        return _EXIT_BUG


def _run(arguments: list[str]) -> int:
    if arguments[0].startswith("-") and arguments[0] not in ("--help", "--version"):
        _complain(f"name a command first, as in: {_PROGRAM} serve {' '.join(arguments)}")
        return EXIT_CONFIGURATION
    try:
        app(arguments, prog_name=_PROGRAM)
    except SystemExit as end:
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else 0
    return 0


def _show_version(asked: bool) -> None:
    if asked:
        from router.supervisor.build import fastchat_version

        _print([f"{_PROGRAM} {fastchat_version()}"])
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command("serve", context_settings={**_TAKES_SETTINGS, "help_option_names": []})
def _serve(context: typer.Context) -> None:
    """Run the server. `fastchat serve --help` lists its settings."""
    from router.supervisor.serve import serve

    raise typer.Exit(serve(context.args))


@app.command("status")
def _status(admin: Admin = None, run_dir: RunDir = None, json: AsJson = False) -> None:
    """Show the state of every process of the server.

    Exit codes: 0 the server is ready, 1 it is not, with the reasons below `not ready`, 2 it can't be reached.
    """
    from router.operator.text import describe_status

    status = _talk(admin, run_dir, lambda server: server.status())
    _show(status, json, describe_status)
    raise typer.Exit(EXIT_NOT_SO if status.get("reasons") else 0)


@app.command("who")
def _who(user: UserId, admin: Admin = None, run_dir: RunDir = None, json: AsJson = False) -> None:
    """Show a user's devices and chats.

    Also the number of unacknowledged messages, and how the last connection ended.

    Exit codes: 0 the user is known, 1 the server has never seen the user, 2 the server can't answer.
    """
    from core.chat.operator import WHO
    from router.operator.text import describe_user

    facts = _talk(admin, run_dir, lambda server: server.ask(WHO, user=user))
    _show(facts, json, describe_user)
    raise typer.Exit(0 if facts["known"] else EXIT_NOT_SO)


@app.command("kick")
def _kick(user: UserId, admin: Admin = None, run_dir: RunDir = None) -> None:
    """Close all connections of a user with close code 1008.

    The user may connect again.

    Exit codes: 0 done, 1 the user had no connection, 2 not possible.
    """
    from core.chat.operator import KICK

    closed = _talk(admin, run_dir, lambda server: server.ask(KICK, user=user))["closed"]
    _print([f"{closed} connection{'' if closed == 1 else 's'} closed"])
    raise typer.Exit(0 if closed else EXIT_NOT_SO)


@app.command("ban")
def _ban(user: UserId, admin: Admin = None, run_dir: RunDir = None) -> None:
    """Close all connections of a user, and refuse new ones.

    The close code is 4003. The ban is stored and holds until `fastchat unban`. A user who has never connected can be banned too. Where
    the server asks for no tokens (FASTCHAT_AUTH=none), a person can come back under another user id.

    Exit codes: 0 done, 1 the user was banned already, 2 not possible.
    """
    from core.chat.operator import BAN

    answer = _talk(admin, run_dir, lambda server: server.ask(BAN, user=user))
    closed = answer["closed"]
    banned = "banned" if answer["changed"] else "the user was banned already"
    _print([f"{banned}; {closed} connection{'' if closed == 1 else 's'} closed"])
    raise typer.Exit(0 if answer["changed"] else EXIT_NOT_SO)


@app.command("unban")
def _unban(user: UserId, admin: Admin = None, run_dir: RunDir = None) -> None:
    """End the ban of a user.

    Exit codes: 0 done, 1 the user was not banned, 2 not possible.
    """
    from core.chat.operator import UNBAN

    changed = _talk(admin, run_dir, lambda server: server.ask(UNBAN, user=user))["changed"]
    _print(["the user may connect again" if changed else "the user is not banned"])
    raise typer.Exit(0 if changed else EXIT_NOT_SO)


@app.command("delete")
def _delete(
    user: UserId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    admin: Admin = None,
    run_dir: RunDir = None,
    json: AsJson = False,
) -> None:
    """Delete a user for good, while the server runs.

    Closes all connections of the user with close code 4004, and removes the user, the user's mailbox, chats and blocks, and all that the
    user has sent to others. Nothing of this can be undone. The id may be used again, and then begins anew.

    Exit codes: 0 deleted, 1 there is no such user, 2 not possible, 3 the deletion goes on: run the command again to wait for its end.
    """
    from core.chat.operator import DELETE
    from router.operator.text import describe_deletion, plain

    if not yes:
        if not sys.stdin.isatty():
            _give_up(ValueError("standard input is not a terminal: confirm the deletion with --yes"))
        if input(f"Type the id of {plain(user)} again to delete this user: ").strip() != user:
            _give_up(ValueError("this is another id; nothing was deleted"))
    answer = _talk(admin, run_dir, lambda server: server.ask(DELETE, user=user))
    _show(answer, json, describe_deletion)
    raise typer.Exit(_EXIT_OF_DELETION[answer["state"]])


@app.command("reload")
def _reload(admin: Admin = None, run_dir: RunDir = None, json: AsJson = False) -> None:
    """Replace all processes while clients stay connected.

    Workers and fronts are replaced by processes that run the program now on disk, and then the supervisor becomes that program too, in its
    process. A program that does not start replaces nothing. The settings stay; keys and secrets are read again.

    Exit codes: 0 done, 2 not everything was replaced, and the server goes on as it is.
    """
    from router.operator.operations import RELOAD, RELOAD_PATIENCE
    from router.operator.text import describe_reload

    _show(_talk(admin, run_dir, lambda server: server.ask(RELOAD, RELOAD_PATIENCE)), json, describe_reload)


@app.command("resize")
def _resize(
    workers: Annotated[
        int, typer.Argument(metavar="WORKERS", help="The new number of workers.", show_default=False)
    ],
    admin: Admin = None,
    run_dir: RunDir = None,
    json: AsJson = False,
) -> None:
    """Change the number of workers while clients stay connected.

    Copies everything that is stored to files for the new workers, while the old ones serve. Then all clients wait once, usually for
    less than a second, while the new workers take over. The command returns when that is done. Set FASTCHAT_WORKERS to the new number
    too: the next start of the server goes by that setting.

    Exit codes: 0 done, 2 the number of workers stays as it was, and the server goes on.
    """
    from router.operator.operations import RESIZE, RESIZE_PATIENCE
    from router.operator.text import describe_resize

    answer = _talk(admin, run_dir, lambda server: server.ask(RESIZE, RESIZE_PATIENCE, workers=workers))
    _show(answer, json, describe_resize)


@app.command("drain")
def _drain(
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds over which the closes are spread. Default: FASTCHAT_DRAIN_SECONDS of the server, or 30.",
            show_default=False,
        ),
    ] = None,
    admin: Admin = None,
    run_dir: RunDir = None,
) -> None:
    """Close all connections, one after the other.

    The server accepts no connections any more. The clients are closed with 1012 and reconnect to another server. The command returns at
    once; `fastchat status` shows `draining`, and then `drained`. The server stays until it is stopped; only a restart ends the drain.
    """
    from router.operator.operations import DRAIN

    given = {} if seconds is None else {"seconds": seconds}
    answer = _talk(admin, run_dir, lambda server: server.ask(DRAIN, **given))
    if answer["state"] == "drained":
        _print(["the server is drained"])
    else:
        _print([f"draining {answer['connections']} connections, {answer['seconds']:g} s left"])


@app.command("log-level")
def _log_level(
    level: Annotated[
        str,
        typer.Argument(
            metavar="LEVEL", help="Lowest severity that is logged: debug, info, warning or error."
        ),
    ],
    admin: Admin = None,
    run_dir: RunDir = None,
) -> None:
    """Set the log level of all processes of the server.

    The level holds until the server ends or the level is set again.
    """
    from router.operator.operations import LOG_LEVEL

    answer = _talk(admin, run_dir, lambda server: server.ask(LOG_LEVEL, level=level))
    _print([f"the log level is {answer['level']}"])


@app.command("token", context_settings=_TAKES_SETTINGS)
def _token(
    context: typer.Context,
    user: UserId,
    name: Annotated[
        str | None, typer.Option(help="The display name, as the claim `name`.", show_default=False)
    ] = None,
    service: Annotated[
        bool, typer.Option("--service", help="Make the token of a backend, with the claim `role`.")
    ] = False,
    minutes: Annotated[
        float, typer.Option(min=0.01, max=525_600, help="Minutes until the token expires.")
    ] = 60.0,
) -> None:
    """Make a token for a user, for development.

    The token is signed with the key in FASTCHAT_JWT_KEY or FASTCHAT_JWT_KEY_FILE, which has to be a secret or a private key. Takes the
    flags of `fastchat serve`.
    """
    from core.auth.keys import load_keys
    from core.auth.tokens import SERVICE, make_token
    from core.process.configuration import load_settings
    from core.process.settings import ConfigurationError
    from core.wire.protocol import Refusal
    from core.wire.validation import Validator

    try:
        settings = load_settings(os.environ, context.args, f"{_PROGRAM} token")
        user_id = Validator(settings.user_ids).user_id(user, "USER")
        keys = load_keys(settings, Path.read_bytes)
        claims = {} if name is None else {"name": name}
        if service:
            claims["role"] = SERVICE
        token = make_token(keys, settings, user_id, claims, time(), 60.0 * minutes)
    except ConfigurationError as error:
        _give_up(error)
    except Refusal as refusal:
        _give_up(ConfigurationError(refusal.message))
    if token is None:
        _give_up(
            ConfigurationError(
                "a public key can't sign tokens: set the private key with FASTCHAT_JWT_KEY_FILE or FASTCHAT_JWT_KEY"
            )
        )
    _print([token])


@_config.command("check", context_settings=_TAKES_SETTINGS)
def _check(context: typer.Context) -> None:
    """Check all settings without starting a server."""
    from core.process.configuration import load_settings
    from core.process.service_links import describe_ignored
    from core.process.settings import PREFIX, ConfigurationError
    from router.supervisor.preflight import check_settings

    ignored = describe_ignored(os.environ, PREFIX)
    try:
        settings = load_settings(os.environ, context.args, f"{_PROGRAM} config check")
        warnings = [*filter(None, [ignored]), *check_settings(settings).warnings]
    except ConfigurationError as error:
        _give_up(error)
    _print([*(f"warning: {warning}" for warning in warnings), "OK"])


@_config.command("show", context_settings=_TAKES_SETTINGS)
def _show_config(context: typer.Context, json: AsJson = False) -> None:
    """Show all settings and where each comes from.

    A value is the default, or it comes from the environment or from a flag.
    """
    from core.process.configuration import explain_settings
    from core.process.settings import ConfigurationError
    from router.operator.text import describe_settings

    try:
        origins = explain_settings(os.environ, context.args, f"{_PROGRAM} config show")
    except ConfigurationError as error:
        _give_up(error)
    if json:
        _show({each.name: {"value": each.value, "from": each.origin} for each in origins}, True, list)
    else:
        _print(describe_settings(origins))


@_hook.command("test", context_settings=_TAKES_SETTINGS)
def _test_hook(
    context: typer.Context,
    user: Annotated[
        str | None,
        typer.Argument(metavar="USER", help="Sent as the user who is to be told.", show_default=False),
    ] = None,
) -> None:
    """Send one signed call to FASTCHAT_HOOK_URL, and show the answer.

    The call has the type `hook.test`. No server has to run.

    Exit codes: 0 the answer was 2xx, 1 it was another one, or there was none, 2 there is no hook to call.
    """
    from core.process.configuration import load_settings
    from core.process.settings import ConfigurationError
    from router.operator.hook_test import call_hook

    try:
        answer = call_hook(load_settings(os.environ, context.args, f"{_PROGRAM} hook test"), user)
    except ConfigurationError as error:
        _give_up(error)
    _print([answer.text])
    raise typer.Exit(0 if answer.is_good else EXIT_NOT_SO)


def _talk(
    admin: str | None, run_dir: Path | None, ask: Callable[[RunningServer], dict[str, Any]]
) -> dict[str, Any]:
    from router.operator.client import Refused, RunningServer, Unreachable

    try:
        return ask(RunningServer(os.environ, admin, run_dir))
    except (Refused, Unreachable) as problem:
        _give_up(problem)


def _give_up(problem: Exception) -> NoReturn:
    _complain(str(problem))
    raise typer.Exit(EXIT_CONFIGURATION)


def _show(answer: dict[str, Any], json: bool, describe: Callable[[dict[str, Any]], Iterable[str]]) -> None:
    from core.wire.codec import to_json

    _print([to_json(answer).decode()] if json else describe(answer))


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)


def _complain(sentences: str) -> None:
    from router.operator.text import plain

    for sentence in sentences.splitlines():
        print(f"{_PROGRAM}: {plain(sentence)}", file=sys.stderr)
