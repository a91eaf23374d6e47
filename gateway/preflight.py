"""Whether gateways could read what their part of the configuration names: see :mod:`gatecrew.common.preflight`."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.preflight import Check
from .pages import Pages
from .placement import router
from .server import import_hooks

if TYPE_CHECKING:
    from ..common.config import Config


def checks(config: Config) -> list[Check]:
    """Return what there is to look at."""
    gateway = config.gateway
    if str(config.folder) not in sys.path:
        sys.path.insert(0, str(config.folder))
    found = []
    if ":" in gateway.router:
        found.append(Check("router", lambda: _router(gateway.router)))
    if gateway.hooks:
        found.append(Check("hooks", lambda: _hooks(gateway.hooks)))
    if gateway.pages:
        found.append(Check("pages", lambda: _pages(Path(gateway.pages))))
    return found if gateway.processes else []


def _router(name: str) -> str:
    router(name, random.Random())  # noqa: S311  # it keeps no secret
    return name


def _hooks(name: str) -> str:
    import_hooks(name)
    return name


def _pages(folder: Path) -> str:
    return f"{folder} has {len(Pages.read(folder))}"
