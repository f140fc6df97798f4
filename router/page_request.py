"""The head of a request that is not for the chat: whether there is one way only to read it, and whether it is one that is answered here.

The page server gets the whole connection, so whatever stands behind the head would be its to read. It gets none of which two readers
could think differently: where a line or a field ends, whom it is for, and above all whether a body follows and how long that is. Nothing
here takes a body, so what says that it has one is refused. Bytes in, an answer out.
Sources: RFC 9110 section 7.2, RFC 9112 sections 2.2, 3.2, 5 and 6.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from router.origin import split_host
from router.upgrade import Answer, refusal

#: A request line and fields, each with its CRLF, no spaces before a colon, no line that goes on in the next, no control characters.
_HEAD: Final = re.compile(
    rb"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) [!-~]+ HTTP/1\.(?P<minor>[01])\r\n"
    rb"(?P<fields>(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*)\r\n"
)
_METHODS: Final = (b"GET", b"HEAD")
_ALLOWED: Final = "GET, HEAD"


def check(head: bytes) -> Answer | None:
    """The answer to a request that the page server must not see, None for one that it may; `head` is complete, blank line included."""
    match = _HEAD.fullmatch(head)
    if match is None:
        return _bad("This is not an HTTP/1.1 request.")
    hosts: list[bytes] = []
    has_body = False
    for line in match["fields"].splitlines():
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b"\t ")
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            has_body = True
    if len(hosts) > 1 or (not hosts and match["minor"] == b"1"):
        return _bad("A request has exactly one Host header.")
    if hosts and split_host(hosts[0].decode("latin-1")) is None:
        return _bad("A Host header has a host and perhaps a port.")
    if match["method"] not in _METHODS:
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "A page is there to be read.", Allow=_ALLOWED)
    if has_body:
        return _bad("No request has a body here.")
    return None


def _bad(sentence: str) -> Answer:
    return refusal(HTTPStatus.BAD_REQUEST, sentence)
