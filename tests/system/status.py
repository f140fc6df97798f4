"""What the server says about itself on the admin port, and what the kernel says about its processes."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.request import ProxyHandler, build_opener

from tests.system.harness import Server


def status(server: Server) -> dict[str, Any]:
    """The admin port's ``/status``."""
    with build_opener(ProxyHandler({})).open(f"{server.admin_url}/status", timeout=10.0) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def figure(server: Server, kind: str, name: str) -> float:
    """The sum of a figure over all processes of a kind."""
    found: list[dict[str, Any]] = [p["stats"] for p in status(server)["processes"] if p["kind"] == kind]
    return float(sum(stats.get(name, 0) for stats in found))


def descriptors(server: Server) -> dict[str, int]:
    """Title of each front and worker -> how many file descriptors it has open."""
    return {title: len(os.listdir(f"/proc/{pid}/fd")) for pid, title in sorted(server.children().items())}


def sockets(server: Server) -> dict[str, int]:
    """Title of each front and worker -> how many sockets of clients it has: connections on the server's public port.

    A socket that is on its way between two processes is in neither.
    """
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                state, inode = fields[3], fields[9]
                if int(fields[1].rpartition(":")[2], 16) == server.port and state != "0A":  # 0A listens
                    inodes.add(f"socket:[{inode}]")
    return {title: len(inodes & _links(pid)) for pid, title in server.children().items()}


def _links(pid: int) -> set[str]:
    links = set()
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            links.add(os.readlink(f"{directory}/{name}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    return links
