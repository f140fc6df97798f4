"""Files of a page, read once: a request can only ever name one of them, never a path on the disk.

Each carries a strong ETag made from its bytes, by which a browser asks whether it has changed, and is kept gzipped where that is smaller.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from aiohttp import web

#: The directory of the chat page; other pages have directories in it.
WEB: Final = Path(__file__).parent / "web"

#: Suffix of a file -> its Content-Type. Files with another suffix are not served.
_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json; charset=utf-8",
}
#: Characters of a digest in an ETag: enough that two versions never share one.
_DIGEST_LENGTH: Final = 20
#: Lines of a script that only comment: one with two slashes; or lines from `/**` to `*/`, behind which there is nothing.
_COMMENT_LINES: Final = re.compile(r"^[ ]*(?://[^\n]*|/\*\*(?:[^*]|\*(?!/))*\*/)$", re.MULTILINE)
#: A weight, from 0 to 1 with at most three decimals.
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
#: Bytes below which compressing costs more than it saves.
_COMPRESS_FROM: Final = 512


class StaticFile:
    """One file, as it is sent."""

    def __init__(self, body: bytes, suffix: str, cache_control: str = "no-cache") -> None:
        """Make a file of these bytes. Raises KeyError when nothing of that suffix is served."""
        #: The same for the same bytes, in every process; the ETag begins with it.
        self.digest = hashlib.sha256(body).hexdigest()[:_DIGEST_LENGTH]
        # mtime=0: the same file is the same bytes in every process.
        smaller = gzip.compress(body, mtime=0) if len(body) >= _COMPRESS_FROM else body
        self._is_gzipped = len(smaller) < len(body)
        #: Compressed if it is; the few clients that do not take that get it decompressed.
        self._body = smaller if self._is_gzipped else body
        self._headers = {"Cache-Control": cache_control, "Vary": "Accept-Encoding"}
        self._content_type = _CONTENT_TYPES[suffix]
        self.is_page = suffix == ".html"

    @classmethod
    def read(cls, path: Path, cache_control: str = "no-cache") -> Self:
        """Read the file at `path`. Raises OSError when that can't be, and KeyError when nothing of that suffix is served."""
        return cls(path.read_bytes(), path.suffix, cache_control)

    def answer(self, request: web.Request, headers: Mapping[str, str]) -> web.Response:
        """Make the answer with the file, or 304 to a client that has it, with `headers` besides the file's own."""
        gzipped = self._is_gzipped and accepts_gzip(request)
        etag = f"{self.digest}-gzip" if gzipped else self.digest
        all_headers = {**headers, **self._headers, "ETag": f'"{etag}"'}
        if any(known.value in (etag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=all_headers)
        all_headers["Content-Type"] = self._content_type
        if gzipped:
            all_headers["Content-Encoding"] = "gzip"
        body = gzip.decompress(self._body) if self._is_gzipped and not gzipped else self._body
        return web.Response(body=body, headers=all_headers)


def read_static_files(
    directory: Path, *folders: str, change: Callable[[Path, bytes], bytes] = lambda _, body: body
) -> dict[str, StaticFile]:
    """Read the files of `directory`, and of these folders in it, that have a suffix which is served: path below it -> file.

    `change` says what is served of a file. Raises OSError.
    """
    paths = [path for folder in (".", *folders) for path in (directory / folder).iterdir()]
    return {
        path.relative_to(directory).as_posix(): StaticFile(change(path, path.read_bytes()), path.suffix)
        for path in sorted(paths)
        if path.suffix in _CONTENT_TYPES and path.is_file()
    }


def without_comments(script: str) -> str:
    """Empty the lines of a script that are comments and nothing else, which are a third of what the page's scripts weigh on their way.

    Lines keep their numbers. A `/**` at the beginning of a line begins a comment: what is made of it is checked in the tests.
    """
    return _COMMENT_LINES.sub(lambda found: "\n" * found[0].count("\n"), script)


def accepts_gzip(request: web.Request) -> bool:
    """Tell whether a client wants gzip, by Accept-Encoding: it accepts it, and not less than identity.

    Source: RFC 9110 section 12.5.3; `x-gzip` is gzip (section 8.4.1.3).
    """
    weights: dict[str, float] = {}
    for field in request.headers.getall("Accept-Encoding", ()):
        for entry in field.lower().split(","):
            coding, _, parameters = entry.partition(";")
            weights[coding.strip()] = _weight(parameters)
    gzip_weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip_weight > 0.0 and gzip_weight >= weights.get("identity", 0.0)


def _weight(parameters: str) -> float:
    """Return the `q` of an entry: 1 where there is none, 0 where it can't be read."""
    name, equals, value = parameters.partition("=")
    if not equals or name.strip() != "q":
        return 1.0
    return float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0
