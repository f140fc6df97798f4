"""The files of the chat page, read once: a request can only ever name one of them, never a path on the disk.

What is served is what stands directly in ``router/web`` with one of the suffixes below. Each file carries a strong ETag made from its
bytes, and a compressed form where that is smaller. Comments and indentation are for readers of the source, and nearly half of it: browsers
get the scripts and styles without, each line where it was.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import Final, NamedTuple

#: Where the files are; directories in it are somebody else's.
WEB: Final = Path(__file__).parent / "web"
#: What a browser asks for at ``/``.
INDEX: Final = "index.html"

_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
#: Comments that have their lines for themselves; those within a line stay.
_COMMENTS: Final = {
    ".css": re.compile(r"^[ \t]*/\*(?:(?!\*/).)*\*/[ \t]*$", re.DOTALL | re.MULTILINE),
    ".js": re.compile(r"^[ \t]*(?:/\*(?:(?!\*/).)*\*/|//[^\n]*)[ \t]*$", re.DOTALL | re.MULTILINE),
}
#: What lines begin with, for the eye.
_INDENTATION: Final = re.compile(r"^[ \t]+", re.MULTILINE)
#: Characters of a digest in an ETag: enough that two versions never share one.
_DIGEST_LENGTH: Final = 20
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
    """Name -> file. Raises OSError when the directory or a file in it cannot be read."""
    return {
        path.name: _read(path, content_type)
        for path in sorted(directory.iterdir())
        if (content_type := _CONTENT_TYPES.get(path.suffix)) is not None and path.is_file()
    }


def for_browsers(text: str, suffix: str) -> str:
    """The text of a file without the comments that fill their lines, and without indentation; every other line keeps its number.

    No string or template of ours spans lines, so nothing else can look like such a comment, and no space at the beginning of a line is
    part of one.
    """
    comments = _COMMENTS.get(suffix)
    if comments is None:
        return text
    return _INDENTATION.sub("", comments.sub(lambda found: "\n" * found[0].count("\n"), text))


def _read(path: Path, content_type: str) -> WebFile:
    body = for_browsers(path.read_text(encoding="utf-8"), path.suffix).encode()
    etag = hashlib.sha256(body).hexdigest()[:_DIGEST_LENGTH]
    # mtime=0: the same file is the same bytes in every front.
    smaller = gzip.compress(body, mtime=0) if len(body) >= _COMPRESS_FROM else body
    gzipped = Variant(smaller, f"{etag}-gzip") if len(smaller) < len(body) else None
    return WebFile(content_type, Variant(body, etag), gzipped)
