"""Where users, chats and messages are kept; every implementation keeps the promises of ``core.chat.store.Store``, and these."""

from __future__ import annotations

from typing import Any, Protocol

from core.chat import store
from workers.store.tracking import Tracking


class ShardStore(store.Store, Protocol):
    """A store as a worker drives it: `listen`, `start`, then `core.chat.store.Store.flush` at the end of each loop turn, and `close`."""

    #: The sentence that writes and reads fail with at present; None when all is well.
    failure: str | None

    def listen(self, listeners: store.Listeners) -> None:
        """Say who is told what the store has done. All calls come from `flush`, or `close`."""

    def prepare_start(self) -> None:
        """Load what `start` will need, while another process still has what there is: nobody waits for that, as clients do for `start`."""

    def start(self) -> None:
        """Open what there is. Raises ``core.process.settings.ConfigurationError``."""

    @property
    def tracking(self) -> Tracking | None:
        """What notes changes while other files are filled with all that is stored; None where there are no files. Once it is started."""
        ...

    def stats(self) -> dict[str, Any]:
        """Return its part of what the worker reports, by the names of ``core.process.metrics``."""
        ...

    def hurry(self, hurries: bool) -> None:
        """Save at once what otherwise may wait, since this process is about to end; or no longer."""

    def begin_close(self, patience: float = 5.0) -> None:
        """Commit what was called, for at most so many seconds, and begin to close: nothing may be called any more but `close`."""

    def close(self, patience: float = 5.0) -> None:
        """Do that unless it has been done, and return when everything is closed, after `patience` seconds at the latest."""
