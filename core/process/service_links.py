"""Variables that a container platform puts into the environment, and that look like settings.

Kubernetes tells every container of every Service in its namespace, as Docker's links did: for a Service named ``fastchat`` that is
FASTCHAT_SERVICE_HOST, FASTCHAT_PORT=tcp://10.0.0.7:8000, FASTCHAT_PORT_8000_TCP_ADDR and others; for one named ``fastchat-admin`` the same
behind FASTCHAT_ADMIN. None of them is meant for the server. Those that could be settings by their names are known by their values.
Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_PROTOCOL: Final = "(?:tcp|udp|sctp)"
#: Variables that the line for the operator names.
_NAMED_MAX: Final = 3
#: Name of a variable behind the prefix -> what its value looks like.
_FAMILY: Final = (
    (re.compile(r"(?:[A-Z0-9_]+_)?SERVICE_HOST"), re.compile(r"[0-9A-Fa-f.:]+")),
    (re.compile(r"(?:[A-Z0-9_]+_)?SERVICE_PORT(?:_[A-Z0-9_]+)?"), re.compile(r"[0-9]+")),
    (re.compile(r"(?:[A-Z0-9_]+_)?PORT"), re.compile(rf"{_PROTOCOL}://\S+")),
    (re.compile(r"(?:[A-Z0-9_]+_)?PORT_[0-9]+_(?:TCP|UDP|SCTP)"), re.compile(rf"{_PROTOCOL}://\S+")),
    (re.compile(r"(?:[A-Z0-9_]+_)?PORT_[0-9]+_(?:TCP|UDP|SCTP)_(?:PROTO|PORT|ADDR)"), re.compile(r"\S+")),
)


def service_links(environ: Mapping[str, str], prefix: str) -> list[str]:
    """Return the names of the variables in `environ`, sorted, that begin with `prefix` and tell of a Service."""
    return sorted(
        name
        for name, value in environ.items()
        if name.startswith(prefix) and _is_link(name[len(prefix) :], value)
    )


def setting_variables(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return the variables of `environ` that begin with `prefix`, in any case, and are meant as settings: those that tell of no Service."""
    links = set(service_links(environ, prefix))
    return {
        name: value
        for name, value in environ.items()
        if name.upper().startswith(prefix) and name not in links
    }


def describe_ignored(environ: Mapping[str, str], prefix: str) -> str | None:
    """Return one line for the operator about the variables that are not taken for settings; None when there are none."""
    links = service_links(environ, prefix)
    if not links:
        return None
    return (
        f"{', '.join(links[:_NAMED_MAX])}{' ...' if len(links) > _NAMED_MAX else ''}: the server ignores {len(links)} environment"
        " variables that describe a Kubernetes Service; set enableServiceLinks: false in the pod specification to omit the variables"
    )


def _is_link(name: str, value: str) -> bool:
    return any(named.fullmatch(name) and shaped.fullmatch(value) for named, shaped in _FAMILY)
