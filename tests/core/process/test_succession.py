"""Tests of core.process.succession: packets over a real socket, with the sockets that go along."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from core.process.succession import Kind, Packet, PacketReader, send_packet, succession_endpoint


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for each in (ours, theirs):
        each.settimeout(10.0)
    with ours, theirs:
        yield ours, theirs


def receive(channel: socket.socket, count: int) -> list[Packet]:
    """Return so many packets, and find that no more have come."""
    reader, packets = PacketReader(channel), list[Packet]()
    while len(packets) < count:
        packets += reader.read()
    assert len(packets) == count
    return packets


def test_packets_come_as_they_were_sent(channel: tuple[socket.socket, socket.socket]) -> None:
    """Of any size, also one that is larger than all buffers, and one that is empty."""
    ours, theirs = channel
    bodies = [b"", b"x", bytes(range(256)) * 8192, b"", b"last"]

    def send() -> None:
        for body in bodies:
            send_packet(ours, Kind.ENVELOPE, body)
        send_packet(ours, Kind.END)

    sender = threading.Thread(target=send)
    sender.start()
    packets = receive(theirs, len(bodies) + 1)
    assert packets[:-1] == [(Kind.ENVELOPE, body, []) for body in bodies]
    assert packets[-1] == (Kind.END, b"", [])
    sender.join()


def test_sockets_go_with_the_packet_that_they_belong_to(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    pairs = [socket.socketpair() for _ in range(5)]
    for number, (mine, other) in enumerate(pairs):
        mine.send(b"%d" % number)
        send_packet(ours, Kind.RECORDS, b"%d" % number, [other.fileno()] * (number % 3))
        other.close()
    for number, packet in enumerate(receive(theirs, 5)):
        assert (packet.body, len(packet.sockets)) == (b"%d" % number, number % 3)
        for received in packet.sockets[:1]:
            assert received.recv(10) == packet.body
        for received in packet.sockets:
            received.close()
    for mine, _ in pairs:
        mine.close()


@pytest.mark.parametrize("sent", [b"", b"\x01\x01", b"\x01\x03\x00\x00\x00\x00\x00\x09half"])
def test_a_process_that_is_gone_is_an_error(
    channel: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    """Whether it ended before a packet, in a head or in a body."""
    ours, theirs = channel
    ours.sendall(sent)
    ours.close()
    reader = PacketReader(theirs)
    with pytest.raises(ConnectionError, match="gone"):
        for _ in range(2):
            assert reader.read() == []


def test_another_version_says_so(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    ours.sendall(b"\x02\x01\x00\x00\x00\x00\x00\x00")
    with pytest.raises(ValueError, match="version 1, not of version 2"):
        PacketReader(theirs).read()


def test_a_socket_that_is_missing_is_an_error(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    ours.sendall(b"\x01\x01\x00\x02\x00\x00\x00\x00")
    with pytest.raises(OSError, match="file descriptors"):
        PacketReader(theirs).read()


def test_the_endpoint_is_short() -> None:
    """Paths of Unix sockets have at most 107 bytes, and that of the directory takes most of them."""
    assert len(os.path.basename(succession_endpoint("/run", 63))) <= 13
