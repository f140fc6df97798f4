"""Header fields by which browsers keep answers and pages safe: one table for the public port and the admin port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

#: What every answer carries, unless it says something else.
ALWAYS: Final[Mapping[str, str]] = {
    "Server": "FastChat",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
#: The same on the admin port: no page of another origin may take in an answer, as a frame, an image, a script or otherwise.
ADMIN: Final[Mapping[str, str]] = {**ALWAYS, "Cross-Origin-Resource-Policy": "same-origin"}
#: Features of a browser that the chat page has no use for, so that nothing that gets into the page has either.
PERMISSIONS: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "serial",
        "usb",
    )
)


def page_policy(
    *, connect: str = "'self'", style: str = "'self'", form: str = "'none'", is_app: bool = False
) -> str:
    """Make the Content-Security-Policy of a page that loads its own files only: no other origin, no inline script, no eval.

    `connect` is what scripts of the page may talk to, `style` where style may come from, and `form` where forms may be sent to. A page that
    `is_app` has a manifest and a service worker besides, of its own too.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src {style}",
            f"connect-src {connect}",
            "img-src 'self' data:",
            *(("worker-src 'self'", "manifest-src 'self'") if is_app else ()),
            "base-uri 'none'",
            f"form-action {form}",
            "frame-ancestors 'none'",
        )
    )


def add_missing(response: web.StreamResponse, headers: Mapping[str, str]) -> None:
    """Add those of `headers` that an answer does not have yet. Call it for every answer before it is written."""
    for name, value in headers.items():
        # aiohttp has put a Server line of its own there.
        if name == "Server" or name not in response.headers:
            response.headers[name] = value
