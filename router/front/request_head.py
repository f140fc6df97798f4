"""The head of a request, as RFC 9112 has it: a request line and header fields, read in the one way in which they can be read.

Whatever two readers could read in two ways is refused: where a line or a field ends, whom the request is for, and whether a body follows.
A proxy in front, the page server behind and this may not differ there. Bytes in.
Sources: RFC 9110 sections 4.2, 5 and 7.2; RFC 9112 sections 2.2, 3, 5 and 6.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from router.front.origin import split_host

#: A request line and fields, each with its CRLF, no spaces before a colon, no line that goes on in the next, no control characters.
_HEAD: Final = re.compile(
    rb"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<target>[!-~]+) HTTP/1\.(?P<minor>[01])\r\n"
    rb"(?P<fields>(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*)\r\n"
)
#: A target in the absolute form: what an origin server has to take too (RFC 9112, 3.2.2).
_ABSOLUTE: Final = re.compile(rb"(?:https?|wss?)://(?P<authority>[^/?#]*)(?P<rest>[!-~]*)", re.IGNORECASE)


class Malformed(Exception):
    """A request that is not HTTP/1.1, or could be read in two ways; the message is a sentence."""


class RequestHead(NamedTuple):
    """What is said in a head."""

    method: str
    #: Path and query, whichever form the target had.
    target: str
    #: Of the version: HTTP/1.0 or HTTP/1.1.
    minor: int
    #: Host, and perhaps a port: of the target where that has the absolute form, else of Host; None for HTTP/1.0 without it.
    host: str | None
    #: In their order.
    fields: list[tuple[str, str]]
    #: Whether it says that a body follows.
    has_body: bool


def path_of(target: bytes) -> bytes:
    """Return the path of a request's target, in the origin form (``/path?query``) or the absolute form (``http://host/path?query``)."""
    absolute = None if target.startswith(b"/") else _ABSOLUTE.fullmatch(target)
    rest = target if absolute is None else absolute["rest"]
    return rest.partition(b"?")[0] or b"/"


def parse_head(head: bytes) -> RequestHead:
    """Parse `head`, which is complete, blank line included. Raises Malformed."""
    match = _HEAD.fullmatch(head)
    if match is None:
        raise Malformed("This is not an HTTP/1.1 request.")
    fields, hosts, has_body = [], [], False
    for line in match["fields"].split(b"\r\n")[:-1]:
        name, _, octets = line.decode("latin-1").partition(":")
        value = octets.strip("\t ")
        fields.append((name, value))
        kind = name.lower()
        if kind == "host":
            hosts.append(value)
        elif kind == "transfer-encoding" or (kind == "content-length" and value != "0"):
            has_body = True
    minor = int(match["minor"])
    if len(hosts) > 1 or (not hosts and minor == 1):
        raise Malformed("A request has exactly one Host header.")
    if hosts and split_host(hosts[0]) is None:
        raise Malformed("A Host header has a host and perhaps a port.")
    absolute = _ABSOLUTE.fullmatch(match["target"])
    if absolute is not None:
        # What Host says does not count then (RFC 9112, 3.2.2).
        hosts = [absolute["authority"].decode("ascii")]
        if split_host(hosts[0]) is None:
            raise Malformed("A target in the absolute form has a host and perhaps a port.")
    target = (match["target"] if absolute is None else absolute["rest"] or b"/").decode("ascii")
    return RequestHead(
        match["method"].decode("ascii"), target, minor, hosts[0] if hosts else None, fields, has_body
    )
