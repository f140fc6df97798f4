"""The files of the chat page, read once: a request can only ever name one of them, never a path on the disk.

The files in ``router/web`` and its folder ``client`` that have one of the suffixes below are served, as they are. Each carries a strong
ETag made from its bytes, and a compressed form where that is smaller; `takes_gzip` says who gets that one.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import Final, NamedTuple

#: Where the files are. The folder of the JavaScript client belongs to the page; the admin port serves the dashboard's.
WEB: Final = Path(__file__).parents[1] / "web"
CLIENT: Final = "client"
#: What a browser asks for at ``/``.
INDEX: Final = "index.html"

_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
#: Characters of a digest in an ETag: enough that two versions never share one.
_DIGEST_LENGTH: Final = 20
#: A weight, from 0 to 1 with at most three decimals.
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
#: Bytes below which compressing costs more than it saves.
_COMPRESS_FROM: Final = 512


class Variant(NamedTuple):
    """The bytes that go over the wire, and the ETag that names them, without quotes."""

    body: bytes
    etag: str


class WebFile(NamedTuple):
    """One file: as it is, and gzipped if that is worth it."""

    content_type: str
    plain: Variant
    gzipped: Variant | None


def read_web_files(directory: Path = WEB) -> dict[str, WebFile]:
    """Path below `directory` -> file. Raises OSError when the directory or a file in it cannot be read."""
    return {
        path.relative_to(directory).as_posix(): _read(path, content_type)
        for path in sorted([*directory.iterdir(), *(directory / CLIENT).glob("*")])
        if (content_type := _CONTENT_TYPES.get(path.suffix)) is not None and path.is_file()
    }


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client wants gzip, by the value of Accept-Encoding (several joined by commas): it accepts it, and not less than identity.

    Source: RFC 9110 section 12.5.3; `x-gzip` is gzip (section 8.4.1.3).
    """
    weights: dict[str, float] = {}
    for entry in accept_encoding.lower().split(","):
        coding, _, parameters = entry.partition(";")
        weights[coding.strip()] = _weight(parameters)
    gzip_weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip_weight > 0.0 and gzip_weight >= weights.get("identity", 0.0)


def _weight(parameters: str) -> float:
    """The `q` of an entry: 1 where there is none, 0 where it can't be read."""
    name, equals, value = parameters.partition("=")
    if not equals or name.strip() != "q":
        return 1.0
    return float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0


def _read(path: Path, content_type: str) -> WebFile:
    body = path.read_bytes()
    etag = hashlib.sha256(body).hexdigest()[:_DIGEST_LENGTH]
    # mtime=0: the same file is the same bytes in every front.
    smaller = gzip.compress(body, mtime=0) if len(body) >= _COMPRESS_FROM else body
    gzipped = Variant(smaller, f"{etag}-gzip") if len(smaller) < len(body) else None
    return WebFile(content_type, Variant(body, etag), gzipped)
