"""What the chat page makes of names: in links that invite, and where two people have the same."""

from __future__ import annotations

from pathlib import Path

from tests.clients.test_page_clocks import modules, run

__all__ = ["modules"]  # a fixture of the others


def test_names_in_links_and_equal_names(modules: Path) -> None:
    run("names.mjs", f"{modules.as_uri()}/")
