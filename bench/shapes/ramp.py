"""``make load SHAPE=ramp``: more and more users, in equal steps up to USERS, the last of which ends with DURATION."""

from __future__ import annotations

import time
from typing import Final

from locust import LoadTestShape

#: Steps, of the same length and the same number of users.
STEPS: Final = 5
#: Seconds of a run for which no duration was given, as may be on locust's page.
DEFAULT_DURATION: Final = 60


class Ramp(LoadTestShape):
    """After the fraction k/`STEPS` of the time there are (k+1)/`STEPS` of the users, each step rounded up."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """How many users there are to be now, and how many are to come in a second; None at the end."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        step = (
            int((time.perf_counter() - self.start_time) / (options.run_time or DEFAULT_DURATION) * STEPS) + 1
        )
        if step > STEPS:
            return None
        return -(-(options.num_users or 1) * step // STEPS), options.spawn_rate or 1
