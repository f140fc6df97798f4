"""The Python client lives through every scenario of the list: in virtual time, over a network in memory and over real sockets."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from tests.clients import real_sockets
from tests.clients.misbehaving import Scenario, play, scenarios
from tests.clients.network import Data, Network, VirtualLoop
from tests.clients.python_subject import PythonSubject
from tests.protocol_schema import strange

SCENARIOS: Final = scenarios("python")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario["name"] for scenario in SCENARIOS])
def test_scenario(scenario: Scenario) -> None:
    """See its `about`; and whatever the client said is a message of docs/protocol.schema.json."""
    networks: list[Network] = []

    def make_subject(loop: VirtualLoop, network: Network, options: Data) -> PythonSubject:
        networks.append(network)
        return PythonSubject(loop, network, options)

    play(scenario, make_subject)
    for frame in [frame for link in networks[0].links for frame in link.frames]:
        text = json.dumps({"type": frame.type, "data": frame.data})
        # Where a scenario has many users, it numbers them with too few digits for a UUID.
        text = re.sub(r'"(00000000-0000-4000-8000)-(\d{1,11})"', lambda m: f'"{m[1]}-{m[2]:0>12}"', text)
        # The schema is that of a server whose users are UUIDs.
        text = re.sub(r'"\w+@example\.com"', '"11111111-1111-4111-8111-111111111111"', text)
        assert strange("fromClient", text) is None, text


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario["name"] for scenario in SCENARIOS])
def test_scenario_over_sockets(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with the transport that users have."""
    real_sockets.play(scenario, monkeypatch)
