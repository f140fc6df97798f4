"""What a token has proven of the client on a connection (D5, D34)."""

from __future__ import annotations

from typing import Final, NamedTuple


class Proof(NamedTuple):
    """Until when a token holds, and what it claims besides who the user is."""

    #: When it expires, in seconds since 1970, the leeway included; 0 where no token is asked for.
    expires: float = 0.0
    #: The display name, cleaned; None when the token has none, and the name in HELLO holds.
    name: str | None = None
    #: Whether the client is a backend: ``role: "service"``.
    service: bool = False

    def renewed(self, other: Proof) -> Proof:
        """Return what holds once the client has shown another valid token.

        What a token claims holds no longer than the token. So only the later end of two that claim the same counts; else the newer token
        takes the place of the older one, also if it expires sooner.
        """
        if (self.name, self.service) == (other.name, other.service) and self.expires > other.expires:
            return self
        return other


#: Where nothing has to be proven.
NO_PROOF: Final = Proof()
