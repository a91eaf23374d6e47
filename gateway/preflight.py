"""Whether gateways could read what their part of the configuration names: see :mod:`gatecrew.common.preflight`."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.addresses import parse_listen
from ..common.config import for_listener
from ..common.preflight import Check
from .pages import Pages
from .placement import router
from .protocols import spoken
from .server import import_hooks
from .tls import Certificates

if TYPE_CHECKING:
    from ..common.config import Config, GatewayConfig


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
    for url in gateway.listen:
        own = for_listener(gateway, url, config.folder)
        if ":" in own.protocol:
            found.append(Check("protocol", partial(_protocol, own.protocol)))
        if parse_listen(url).tls:
            found.append(Check("certificate", partial(_certificate, own)))
    if gateway.pages:
        found.append(Check("pages", lambda: _pages(Path(gateway.pages))))
    return found if gateway.processes else []


def _router(name: str) -> str:
    router(name, random.Random())  # noqa: S311  # it keeps no secret
    return name


def _hooks(name: str) -> str:
    import_hooks(name)
    return name


def _protocol(name: str) -> str:
    spoken(name)
    return name


def _certificate(config: GatewayConfig) -> str:
    Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
    return config.tls_cert


def _pages(folder: Path) -> str:
    return f"{folder} has {len(Pages.read(folder))}"
