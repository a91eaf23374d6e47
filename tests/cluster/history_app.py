"""The application for tests, with a history in the folder of its cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatecrew.business.storage import History
from gatecrew.tests.cluster.app import Actions, app

if TYPE_CHECKING:
    from gatecrew import Client

DATABASE = "history.db"

history = History(f"sqlite:///{DATABASE}", timeout=0.3)
app.on_start(history.open)
app.on_stop(history.close)


async def append(client: Client, size: int) -> int:
    """Append an entry of so many characters, and return its offset."""
    return (await history.append("room", "x" * size)).offset


Actions.append = staticmethod(append)  # type: ignore[attr-defined]
