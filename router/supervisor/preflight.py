"""What is checked before anything is started. Each check raises ConfigurationError with a sentence that says what to do."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from core.auth.hook_secrets import load_secrets
from core.auth.tokens import load_verifier
from core.process.capacity import MIB, WORKER_LEAST, Capacity
from core.process.cgroups import usable_memory
from core.process.private_files import read_private
from core.process.settings import PREFIX, ConfigurationError, Settings
from router.admin.port import HOSTS_SETTING as ADMIN_HOSTS
from router.api.keys import HOSTS_SETTING as API_HOSTS
from router.api.keys import check_api
from router.front.origin import OriginPolicy
from router.front.trusted_proxies import TrustedProxies
from router.guarded_port import parse_hosts
from router.supervisor import listeners

#: File descriptors for each process: a worker keeps half of these for itself and for sockets on their way to it.
DESCRIPTORS_MIN: Final = 1024
#: What a URL is written in (RFC 3986).
_URL: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")


class Checked(NamedTuple):
    """What the settings mean on this machine."""

    #: Addresses of the public port, of the admin port, and of that of the server API, if there is one.
    addresses: list[str]
    admin_addresses: list[str]
    api_addresses: list[str]
    #: Sentences that the operator should read.
    warnings: list[str]


def check_settings(settings: Settings) -> Checked:
    """Check everything about the settings that can be checked without opening or creating anything."""
    origins = OriginPolicy(settings.allowed_origins)
    TrustedProxies(settings.trusted_proxies)
    parse_hosts(ADMIN_HOSTS, settings.admin_hosts)
    parse_hosts(API_HOSTS, settings.api_hosts)
    check_api(settings)
    check_authentication(settings)
    load_secrets(settings, read_private)
    check_login_url(settings.login_url, settings.auth)
    addresses = listeners.addresses_of("HOST", settings.host)
    exposed = check_exposure(settings.host, listeners.are_loopback(addresses), settings.auth)
    warnings = [exposed] if exposed is not None else []
    if origins.allows_pages_without_origin:
        warnings.append(
            f"{PREFIX}ALLOWED_ORIGINS lists null: every web site can create a page without an origin, so pages of all web sites may"
            " connect; remove null if that is not intended"
        )
    admin_addresses = listeners.addresses_of("ADMIN_HOST", settings.admin_host)
    if not listeners.are_loopback(admin_addresses):
        warnings.append(
            f"{PREFIX}ADMIN_HOST: every client that can connect to {settings.admin_host} can read status and metrics of the server;"
            " the admin port has no password"
        )
    if settings.port and settings.port == settings.admin_port:
        raise ConfigurationError(
            f"{PREFIX}PORT and {PREFIX}ADMIN_PORT are both {settings.port}: choose two different ports"
        )
    scarce = check_memory(settings, usable_memory())
    if scarce is not None:
        warnings.append(scarce)
    api_addresses = [] if settings.api_port is None else listeners.addresses_of("API_HOST", settings.api_host)
    return Checked(addresses, admin_addresses, api_addresses, warnings)


def check_memory(settings: Settings, memory: int) -> str | None:
    """Return a warning, or None, for an operator who has chosen more workers, or more memory for each, than fit in `memory` bytes."""
    capacity = Capacity(memory, settings.fronts)
    if not capacity.holds(settings.workers):
        raise ConfigurationError(
            f"{PREFIX}WORKERS: {settings.workers} workers do not even start in {memory // MIB} MiB of memory, which is all that this"
            f" machine or container has; set {PREFIX}WORKERS to at most {capacity.workers}"
        )
    mib = settings.worker_memory_mib
    if settings.workers > capacity.workers:
        return (
            f"{PREFIX}WORKERS: {memory // MIB} MiB of memory are little for {settings.workers} workers, so the kernel may kill workers;"
            f" set {PREFIX}WORKERS to at most {capacity.workers}"
        )
    if mib * settings.workers * MIB > memory:
        return (
            f"{PREFIX}WORKER_MEMORY_MIB: {settings.workers} workers of {mib} MiB are more than the {memory // MIB} MiB of memory that this"
            " machine or container has, so the kernel may kill workers; set a lower value"
        )
    if mib and mib * MIB < WORKER_LEAST:
        return (
            f"{PREFIX}WORKER_MEMORY_MIB: {mib} MiB leave a worker almost no memory for clients, so the worker will refuse clients; set at"
            f" least {WORKER_LEAST // MIB}"
        )
    return None


def raise_descriptor_limit() -> None:
    """Allow as many file descriptors as the system lets us have; the children inherit that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        raise ConfigurationError(
            f"too few file descriptors: {hard} are allowed, and each process needs at least {DESCRIPTORS_MIN}, one for each client and some"
            " more; raise the limit with ulimit -n, or LimitNOFILE= in a systemd unit"
        )


def check_keys(settings: Settings) -> None:
    """Check the keys of tokens and the secrets of the hook, where there are some."""
    load_verifier(settings, Path.read_bytes)
    load_secrets(settings, read_private)


def check_authentication(settings: Settings) -> None:
    """Check that the keys of tokens are good; and where there are some, that they are used."""
    if settings.auth == "jwt":
        load_verifier(settings, Path.read_bytes)
        return
    for name in ("jwt_key", "jwt_key_file", "jwt_jwks_file"):
        if getattr(settings, name) is not None:
            raise ConfigurationError(
                f"{PREFIX}{name.upper()} is set, but the server does not check tokens: set {PREFIX}AUTH=jwt, or remove the key"
            )


def check_login_url(url: str, auth: str | None) -> None:
    """Check that the chat page can link to the URL where users log in, if there is one, and that tokens are what it is for."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good or not _URL.fullmatch(url):
        raise ConfigurationError(
            f"{PREFIX}LOGIN_URL: {url!r} is no http or https URL: write one such as https://app.example.com/login"
        )
    if auth != "jwt":
        raise ConfigurationError(
            f"{PREFIX}LOGIN_URL is set, but the server does not check tokens: set {PREFIX}AUTH=jwt, or remove the URL"
        )


def check_exposure(host: str, loopback: bool, auth: str | None) -> str | None:
    """Return what an operator must know who opens the public port to other machines (D5): a warning, or None."""
    if loopback:
        return None
    if auth is None:
        raise ConfigurationError(
            f"{PREFIX}HOST: {host!r} lets other machines connect, and {PREFIX}AUTH is not set; set {PREFIX}AUTH=jwt to require tokens,"
            f" {PREFIX}AUTH=none to let every client act as any user, or {PREFIX}HOST=localhost"
        )
    if auth == "none":
        return f"{PREFIX}AUTH is none: every client that can connect to {host} can act as any user"
    return None
