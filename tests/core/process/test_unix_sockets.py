"""Tests of core.process.unix_sockets."""

from __future__ import annotations

import os
import socket

from core.process.unix_sockets import descriptors_in, is_hung_up, peer_uid


def test_a_peer_is_of_this_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


def test_the_other_end_is_there_as_long_as_anybody_has_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    copy = theirs.dup()
    with ours:
        assert not is_hung_up(ours)
        theirs.send(b"unread")
        theirs.close()
        assert not is_hung_up(ours)
        copy.close()
        assert is_hung_up(ours)
        assert ours.recv(10) == b"unread"


def test_descriptors_come_in_their_order() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    files = [os.memfd_create(name) for name in "abc"]
    with ours, theirs:
        socket.send_fds(ours, [b"x"], files)
        _, ancillary, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(64))
        came = descriptors_in(ancillary)
    assert [os.fstat(each).st_ino for each in came] == [os.fstat(each).st_ino for each in files]
    for each in (*files, *came):
        os.close(each)
    assert descriptors_in([]) == []
    assert descriptors_in([(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\1\0\0")]) == [], "half of one is none"
