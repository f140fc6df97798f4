"""A world whose server asks for tokens: devices come with what a token has proven, as a front hands them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from core.auth.proof import Proof
from core.auth.tokens import load_verifier
from core.process.settings import Settings
from tests.core.noting import Noting
from tests.core.pair import Pair
from tests.core.token_forge import SECRET, forge
from tests.core.world import Device

#: The time of day when a world begins, and a time at which no token of these tests has expired.
NOON: Final = 1_704_110_400.0
LATER: Final = NOON + 3600.0
#: What the token of a backend proves.
BACKEND: Final = Proof(LATER, None, True)


def token(user: str, **claims: Any) -> str:
    """One that is valid for an hour."""
    return forge({"sub": user, "exp": LATER} | claims)


class ProvenPair(Pair):
    """Ann, Bob and Cat, with tokens."""

    def __init__(self, far: bool, **settings: Any) -> None:
        super().__init__(far, auth="jwt", **settings)
        self.world.tokens = load_verifier(
            Settings(auth="jwt", jwt_key=SECRET, jwt_leeway=0.0), Path.read_bytes
        )
        for shard in self.world.shards:
            shard.use_tokens(self.world.tokens)

    def connect(self, user: str, proof: Proof) -> Noting:
        """A connection that a front hands over, before HELLO."""
        device = Noting(self.world, user)
        device.session.on_closed(self.world.now)
        device.session = self.world.shard_of(user).connect(device, user, 0, self.world.now, proof)
        return device

    def prove(
        self, user: str, name: str | None = None, service: bool = False, said: str = "Somebody", **hello: Any
    ) -> Noting:
        """A device that has said HELLO with a token, and has read what came."""
        device = self.connect(user, Proof(LATER, name, service))
        device.hello(said, **hello)
        device.take()
        return device

    def backend(self, user: str, *capabilities: str) -> Noting:
        """A device of a backend."""
        hello = {"capabilities": list(capabilities)} if capabilities else {}
        return self.prove(user, None, True, "Ann Lee" if user == self.ann else "Somebody", **hello)


def names(device: Device) -> dict[str, str]:
    """What the last PRESENCE calls people; it has to be a full one."""
    device.world.pass_time(1.5)
    data = device.take("PRESENCE")[-1]
    assert "delta" not in data
    return {entry["user_id"]: entry["display_name"] for entry in data["users"]}
