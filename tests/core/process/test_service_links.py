"""core.process.service_links: what Kubernetes says of a Service is no setting, and everything else still is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from core.process.configuration import explain_settings, load_settings
from core.process.service_links import describe_ignored, service_links
from core.process.settings import PREFIX, ConfigurationError

#: What a pod sees of Services named ``fastchat``, with two named ports, and ``fastchat-admin``.
POD: Final[Mapping[str, str]] = {
    "FASTCHAT_SERVICE_HOST": "10.96.0.7",
    "FASTCHAT_SERVICE_PORT": "8000",
    "FASTCHAT_SERVICE_PORT_WEBSOCKET": "8000",
    "FASTCHAT_SERVICE_PORT_ADMIN": "8001",
    "FASTCHAT_PORT": "tcp://10.96.0.7:8000",
    "FASTCHAT_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "FASTCHAT_PORT_8000_TCP_PROTO": "tcp",
    "FASTCHAT_PORT_8000_TCP_PORT": "8000",
    "FASTCHAT_PORT_8000_TCP_ADDR": "10.96.0.7",
    "FASTCHAT_ADMIN_SERVICE_HOST": "fd00::7",
    "FASTCHAT_ADMIN_SERVICE_PORT": "8001",
    "FASTCHAT_ADMIN_PORT": "tcp://[fd00::7]:8001",
    "FASTCHAT_ADMIN_PORT_8001_TCP": "tcp://[fd00::7]:8001",
    "FASTCHAT_ADMIN_PORT_8001_TCP_ADDR": "fd00::7",
}


def test_a_pod_with_services_of_our_name_has_the_defaults() -> None:
    settings = load_settings(POD)
    assert (settings.port, settings.admin_port) == (8000, 8001)
    assert service_links(POD, PREFIX) == sorted(POD)


def test_settings_beside_them_are_read() -> None:
    environ = {**POD, "FASTCHAT_WORKERS": "3", "FASTCHAT_ADMIN_HOST": "127.0.0.1", "FASTCHAT_PORT": "9000"}
    settings = load_settings(environ, ["--admin-port", "9001"])
    assert (settings.workers, settings.admin_host) == (3, "127.0.0.1")
    assert (settings.port, settings.admin_port) == (9000, 9001)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTCHAT_PORT", "tcp:8000"),
        ("FASTCHAT_PORT", "http://10.96.0.7:8000"),
        ("FASTCHAT_SERVICE_HOSTS", "10.96.0.7"),
        ("FASTCHAT_SERVICE_PORT", "eight"),
        ("FASTCHAT_PORT_8000_TCPS", "tcp://10.96.0.7:8000"),
        ("FASTCHAT_PROT", "8000"),
    ],
)
def test_what_only_looks_like_them_is_refused_as_ever(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_settings({**POD, name: value})


def test_one_line_says_what_is_ignored_and_how_to_be_rid_of_it() -> None:
    line = describe_ignored(POD, PREFIX)
    assert line is not None
    assert "\n" not in line
    assert "FASTCHAT_ADMIN_PORT" in line
    assert str(len(POD)) in line
    assert "enableServiceLinks: false" in line
    assert describe_ignored({"FASTCHAT_PORT": "8000", "OTHER_PORT": "tcp://10.96.0.7:1"}, PREFIX) is None


def test_where_a_setting_comes_from_does_not_name_them() -> None:
    origins = {origin.name: origin for origin in explain_settings(POD, [], "fastchat config show")}
    assert origins["FASTCHAT_PORT"].origin == "default"
    assert origins["FASTCHAT_PORT"].value == 8000
