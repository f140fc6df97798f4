"""How the processes of the router log: one line an event on standard error."""

from __future__ import annotations

import logging


def configure_logging(process: str, level: str) -> None:
    """`process` says in each line who speaks, such as ``front-0``; `level` is that of the settings."""
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"
    )
    # aiohttp tells there what clients send that is no HTTP; that is not for the log, and asyncio's debug lines are not either.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
