"""What the command line shows to people: answers of the server as text for a terminal of 80 columns.

Some of it was chosen by clients, such as names and the reasons of closes, and may be anything: what a terminal would obey is shown as an
escape. A server of another version may leave fields out; then there is a dash.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from core.process.configuration import Origin

#: Columns of a terminal.
WIDTH: Final = 80
_HEADER: Final = ("process", "state", "pid", "up", "slots", "clients", "users", "msg/s", "restarts")
#: So many columns are words; the others are numbers, and stand to the right.
_WORDS: Final = 2
_NOTHING: Final = "-"
#: What was replaced, where it is not the process.
_NEW: Final = {"supervisor": "the new program in process"}
#: Units of time, in seconds.
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
#: A front's clients are those who have not said HELLO yet.
_FRONT_CLIENTS: Final = ("front_handshakes", "front_lobby")


def plain(value: Any) -> str:
    """Return anything as one line of text that a terminal shows as it is."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def duration(seconds: float) -> str:
    """Format seconds in at most two units: ``3h 12m``."""
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size or parts or unit == "s":
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Return lines in columns as wide as they have to be; the first `words` of them stand to the left."""
    everything = [header, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    lines = []
    for row in everything:
        cells = [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(gap.join(cells).rstrip())
    return lines


def describe_status(status: Mapping[str, Any]) -> list[str]:
    """Describe the answer to ``status``."""
    settings, processes = status["settings"], status["processes"]
    reasons = status.get("reasons", [])
    ready = "ready" if not reasons else "not ready"
    lines = [
        f"FastChat {plain(status['version'])} is {ready} ({plain(status['status'])}),"
        f" up {duration(status.get('uptime', 0))}, pid {status['pid']}",
        f"  clients  ws://{_host(settings.get('host'))}:{settings.get('port', _NOTHING)}/ws",
        f"  admin    http://{_host(settings.get('admin_host'))}:{settings.get('admin_port', _NOTHING)}",
        f"  data     {plain(settings.get('data_dir', _NOTHING))}"
        + (" (not used: FASTCHAT_STORE is memory)" if settings.get("store") == "memory" else ""),
        f"  sockets  {plain(settings.get('run_dir') or _NOTHING)}",
        f"  core     {plain(status.get('core', _NOTHING))}",
        "",
        *table(_HEADER, [_process(each) for each in processes], _WORDS),
    ]
    lines += _section("not ready", reasons)
    lines += _section("drain", [_drain(status["drain"])] if status.get("drain") else [])
    # What keeps the server from being ready was said.
    problems = [f"{_name(each)}: {each['problem']}" for each in processes if each.get("problem")]
    lines += _section("problems", [problem for problem in problems if problem not in reasons])
    lines += _section("to make the core faster", [status["core_advice"]] if status.get("core_advice") else [])
    replaced = [_replaced(each) for each in processes if each.get("replaced")]
    if status.get("supervisor_replaced"):
        replaced.append(f"supervisor {_times(status['supervisor_replaced'])}")
    lines += _section("replaced", replaced)
    lines += _section("started again", [_restarts(each) for each in processes if each.get("restarts")])
    return lines


def describe_reload(answer: Mapping[str, Any]) -> list[str]:
    """Describe the answer to ``reload``."""
    replaced = answer["replaced"]
    lines = [
        f"{plain(each['process'])} is {_NEW.get(each['process'], 'process')} {each['pid']} now ({each['seconds']:.2f} s)"
        for each in replaced
    ]
    return lines or ["nothing was replaced"]


def describe_resize(answer: Mapping[str, Any]) -> list[str]:
    """Describe the answer to ``resize``."""
    lines = [
        f"the server has {answer['workers']} workers instead of {answer['before']} ({answer['seconds']:.1f} s)"
    ]
    if answer.get("warning"):
        lines.append(f"warning: {plain(answer['warning'])}")
    return lines


def describe_deletion(answer: Mapping[str, Any]) -> list[str]:
    """Say what the deletion of a user has removed, or that it goes on."""
    if answer["state"] == "unknown":
        return ["there is no such user"]
    if answer["state"] != "deleted":
        return ["the user is being deleted; the deletion goes on, also after a restart of the server"]
    return [
        f"deleted: {answer['received']:,} messages received and {answer['sent']:,} sent, {answer['chats']:,} chats;"
        f" connections closed: {answer['closed']}"
    ]


def describe_user(facts: Mapping[str, Any]) -> list[str]:
    """Describe the answer to ``who``."""
    where = f"worker {facts['worker']}, slot {facts['slot']}"
    if not facts["known"]:
        return [f"{plain(facts['user'])} has never been here; that would be on {where}"]
    mailbox, close, devices = facts["mailbox"], facts["last_close"], facts["devices"]
    waiting = f"{mailbox['waiting']} not acknowledged"
    if mailbox["uncommitted"]:
        waiting += f" ({mailbox['uncommitted']} of them not stored yet)"
    state = "banned" if facts.get("banned") else "online" if facts["online"] else "offline"
    lines = [
        f"{plain(facts['display_name'])} ({plain(facts['user'])})",
        f"  {state} on {where}",
        f"  chats       {facts['chats']}",
        f"  mailbox     {mailbox['head']} messages so far, {waiting}",
        f"  last close  {_close(close) if close else 'none in the last minutes'}",
    ]
    for device in devices:
        lines += [
            "",
            f"  {plain(device['connection'])} from {plain(device['address'])}",
            f"    connected for {duration(device['connected'])}, heard {duration(device['heard'])} ago",
            f"    {device['behind']} messages behind, {device['unsent']} bytes unsent",
            f"    capabilities: {plain(', '.join(device['capabilities']) or 'none')}",
        ]
    return lines


def describe_settings(origins: Sequence[Origin]) -> list[str]:
    """Describe the answer to ``config show``."""
    shown = [(each.name, plain("" if each.value is None else each.value), each.origin) for each in origins]
    return table(
        ("setting", "value", "from"), [(name, value or _NOTHING, origin) for name, value, origin in shown], 3
    )


def _process(process: Mapping[str, Any]) -> tuple[str, ...]:
    stats = process.get("stats", {})
    if process["kind"] == "front":
        clients = sum(stats.get(name, 0) for name in _FRONT_CLIENTS) if stats else None
        rate = None
    else:
        clients, rate = stats.get("connections"), process.get("messages_per_second", 0.0)
    return (
        _name(process),
        plain(process["state"]),
        _number(process["pid"]),
        duration(process["uptime"]) if process["pid"] else _NOTHING,
        _number(stats.get("slots")),
        _number(clients),
        _number(stats.get("users")),
        _NOTHING if rate is None else f"{rate:.1f}" if rate < 1000 else f"{rate:.0f}",
        str(process["restarts"]),
    )


def _drain(drain: Mapping[str, Any]) -> str:
    left = f"{drain['connections']} of {drain['connections_before']} connections are left"
    if drain["connections"] and drain["seconds_left"]:
        left += f", to be closed within {duration(drain['seconds_left'])}"
    return (
        f"asked for by {plain(drain['why'])} {duration(drain['elapsed'])} ago; {left}"
        f"{'; then the server stops' if drain['stops'] else ''}"
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _replaced(process: Mapping[str, Any]) -> str:
    stats = process.get("stats", {})
    pause, not_moved = stats.get("takeover_seconds"), stats.get("not_moved_total")
    text = f"{_name(process)} {_times(process['replaced'])}"
    if pause:
        text += f", the last time in {pause:.2f} s for its clients"
    if not_moved:
        text += f"; connections that could not be moved: {not_moved}"
    return text


def _restarts(process: Mapping[str, Any]) -> str:
    return f"{_name(process)} {_times(process['restarts'])}; the process before this one ended with {process.get('last_end')}"


def _close(close: Mapping[str, Any]) -> str:
    by = "lost" if close["by"] == "nobody" else f"by the {plain(close['by'])}"
    reason = f" '{plain(close['reason'])}'" if close["reason"] else ""
    return f"{close['code']}{reason}, {by}, {duration(close['ago'])} ago"


def _name(process: Mapping[str, Any]) -> str:
    return plain(f"{process['kind']} {process['index']}")


def _host(host: Any) -> str:
    text = plain(host or _NOTHING)
    return f"[{text}]" if ":" in text else text


def _number(value: Any) -> str:
    return _NOTHING if value is None else f"{value:.0f}" if isinstance(value, int | float) else plain(value)


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    if not sentences:
        return []
    lines = ["", f"{title}:"]
    for sentence in sentences:
        lines += textwrap.wrap(plain(sentence), WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines
