"""How the command line finds a running server and talks with it.

A server is found by its admin port, whose `/status` names the run directory, or by that directory itself. What only tells how the server is
comes from either; everything else goes over the operator socket in the directory.

Everything that can be wrong is an `Unreachable` with a sentence that says what was tried.
"""

from __future__ import annotations

import errno
import http.client
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from core.process.service_links import setting_variables
from core.process.settings import FIELDS, PREFIX
from core.process.unix_sockets import peer_uid
from core.wire.codec import from_json, to_json
from router.operator.operations import STATUS
from router.supervisor.run_directory import default_parent, operator_sockets

#: Seconds that the server has for an answer; a worker that it asks has less.
_PATIENCE: Final = 10.0
#: Seconds between two attempts to connect.
_RETRY: Final = 0.05
#: Servers that run elsewhere and are named when the one that was meant is not there.
_OTHERS_MAX: Final = 3
#: Bytes of an answer. One with 64 workers has a tenth of that.
_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
#: What every `/status` has.
_EXPECTED: Final = ("status", "version", "pid", "settings", "processes")
#: Addresses on which a server listens for everybody, and to which nobody can connect.
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nothing listens here


class Unreachable(Exception):
    """There is no server to be asked, or it does not answer; the message is a sentence."""


class Refused(Exception):
    """The server could not do what it was asked for; the message is the server's sentence."""


class RunningServer:
    """A server that is found when it is asked something: by `run_dir`, else by `admin`, a URL, else as the environment says."""

    def __init__(
        self, environ: Mapping[str, str], admin: str | None = None, run_dir: Path | None = None
    ) -> None:
        """Find the server. Raises Unreachable when `admin`, or what the environment says, is no address."""
        environ = setting_variables(environ, PREFIX)
        if run_dir is None and admin is None and environ.get(f"{PREFIX}RUN_DIR"):
            run_dir = Path(environ[f"{PREFIX}RUN_DIR"])
        self._run_dir = run_dir
        if run_dir is None:
            self._url = admin or _admin_url(environ)
            self._host, self._port = _split_url(self._url)

    def status(self) -> dict[str, Any]:
        """Ask what the server is doing. Raises Unreachable."""
        if self._run_dir is None:
            return self._get_status()
        return _checked(_ask(self._socket(self._run_dir), {"what": STATUS}), str(self._run_dir))

    def ask(self, what: str, patience: float = _PATIENCE, **fields: str | float) -> dict[str, Any]:
        """Ask ``router.operator.operations``, which has `patience` seconds, and return its answer. Raises Unreachable and Refused."""
        run_dir = self._run_dir
        if run_dir is None:
            named = self._get_status()["settings"].get("run_dir")
            if not named:
                raise Unreachable(f"the server at {self._url} is still starting: try again in a moment")
            run_dir = Path(named)
        answer = _ask(self._socket(run_dir), {"what": what, **fields}, patience)
        if "problem" in answer:
            raise Refused(str(answer["problem"]))
        return answer

    # -- The admin port --

    def _get_status(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE)
        try:
            connection.request("GET", "/status")
            answer = connection.getresponse()
            body = answer.read(_ANSWER_MAX_BYTES)
        except TimeoutError:
            raise Unreachable(f"the program that listens at {self._url} does not answer in time") from None
        except (http.client.HTTPException, ConnectionResetError):
            raise Unreachable(f"the program that answers at {self._url} is not a FastChat server") from None
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"no server answers at {self._url} ({_reason(error)}){_others()}") from None
        finally:
            connection.close()
        if answer.status == 403:
            raise Unreachable(
                f"the server at {self._url} does not accept this host name: give its IP address with --admin,"
                f" or add the name to {PREFIX}ADMIN_HOSTS"
            )
        try:
            status = from_json(body) if answer.status == 200 else None
        except ValueError:
            status = None
        return _checked(status, self._url)

    # -- The operator socket --

    def _socket(self, run_dir: Path) -> Path:
        where = f"the run directory {run_dir}"
        try:
            sockets = operator_sockets(run_dir.absolute())
        except PermissionError:
            raise Unreachable(_another_user(where)) from None
        except OSError as error:
            hint = (
                ""
                if self._run_dir is not None
                else f" of the server at {self._url}: run the command on the machine of that server"
            )
            raise Unreachable(f"can't read {where} ({_reason(error)}){hint}") from None
        if not sockets:
            raise Unreachable(f"no server has its operator socket in {where}{_others()}")
        return sockets[0]


def _admin_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the server that this environment would start."""
    host, port = (
        environ.get(PREFIX + name.upper()) or str(FIELDS[name].default)
        for name in ("admin_host", "admin_port")
    )
    if host in _EVERYWHERE:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _split_url(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if (
        not url.isprintable()
        or host is None
        or not port
        or parts.scheme != "http"
        or parts.path not in ("", "/")
    ):
        raise Unreachable(
            f"the server's admin port must be named as http://HOST:PORT, not as {url[:200]!r}{_others()}"
        )
    return host, port


def _ask(path: Path, request: Mapping[str, str | float], patience: float = _PATIENCE) -> dict[str, Any]:
    """Send one request and return its answer."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(patience)
            _connect(client, path)
            if os.geteuid() not in (0, peer_uid(client)):
                raise PermissionError
            client.sendall(to_json(request) + b"\n")
            while not answer.endswith(b"\n") and len(answer) < _ANSWER_MAX_BYTES:
                part = client.recv(1 << 20)
                if not part:
                    raise Unreachable(f"the server ended before it answered on {path}")
                answer += part
        found = from_json(answer)
    except TimeoutError:
        raise Unreachable(f"the server does not answer on {path}") from None
    except PermissionError:
        raise Unreachable(_another_user(str(path))) from None
    except ConnectionRefusedError:
        raise Unreachable(
            f"no process listens on {path}: the server that created this socket has ended"
        ) from None
    except OSError as error:
        raise Unreachable(f"can't send a request to the server on {path} ({_reason(error)})") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unreachable(f"the program that answers on {path} is not a FastChat server")
    return found


def _connect(client: socket.socket, path: Path) -> None:
    """Connect, also if there is a line: a unix socket with a timeout does not stand in it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            client.connect(os.fspath(path))
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(_RETRY)


def _checked(status: Any, where: str) -> dict[str, Any]:
    if not isinstance(status, dict) or not all(name in status for name in _EXPECTED):
        raise Unreachable(f"the program that answers at {where} is not a FastChat server")
    return status


def _another_user(what: str) -> str:
    return f"{what} belongs to another user: run the command as the user who runs the server, or as root"


def _others() -> str:
    """Return where servers of this user do run, as the end of a sentence."""
    parent = default_parent()
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return ""
    running: list[str] = []
    for name in names:
        with suppress(OSError):  # it is just going
            if any(map(_is_listened_on, operator_sockets(parent / name))):
                running.append(str(parent / name))
        if len(running) == _OTHERS_MAX:
            break
    return (
        f"; a server runs with the run directory {', '.join(running)}: select that server with --run-dir"
        if running
        else ""
    )


def _is_listened_on(path: Path) -> bool:
    """Return whether somebody does; a server that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, suppress(OSError):
        client.settimeout(_RETRY)
        client.connect(os.fspath(path))
        return True
    return False


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return "the host name can't be resolved"
    if error.errno is None:
        return str(error)
    return "connection refused" if error.errno == errno.ECONNREFUSED else os.strerror(error.errno).lower()
