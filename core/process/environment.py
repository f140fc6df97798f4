"""What is known of the settings without reading them: the programs that need no more than this start without pydantic."""

from __future__ import annotations

from typing import Final

#: What the name of each setting begins with as an environment variable.
PREFIX: Final = "FASTCHAT_"


class ConfigurationError(Exception):
    """Something the operator has to change before the server can start; the message is a sentence that says what."""
