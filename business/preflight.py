"""Whether workers could run the application, and reach its databases: see :mod:`gatecrew.common.preflight`."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.preflight import Check
from . import loader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..common.config import Config
    from .storage import History


def checks(config: Config) -> Iterator[Check]:
    """Yield what there is to look at; the databases are known once the application is imported."""
    if config.worker.processes:
        yield Check("application", partial(_application, config.worker.app, config.folder))
        for history in _histories(config.folder):
            yield Check("database", partial(_database, history))


def _application(name: str, folder: Path) -> str:
    loader.load(name, folder)
    return name


def _histories(folder: Path) -> list[History]:
    """Return the histories that stand in the modules of the application."""
    if "gatecrew.business.storage" not in sys.modules:
        return []
    from .storage import History  # noqa: PLC0415  # an application without one does not wait for SQLAlchemy

    own = [
        module
        for module in list(sys.modules.values())
        if loader.is_of(folder, Path(getattr(module, "__file__", None) or "/"))
    ]
    return list(dict.fromkeys(value for module in own for value in vars(module).values() if isinstance(value, History)))


def _database(history: History) -> str:
    async def look() -> None:
        await history.open()
        await history.close()

    asyncio.run(look())
    return repr(history.engine.url)
