"""Gatecrew: gateways hold the sockets of clients, stateless workers run your handlers.

What handler modules and programs around a cluster need is named here. It is imported when it is first used (PEP 562), so
that a gateway does not load what only workers need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .business.app import App as App
    from .business.blocking import BlockingCluster as BlockingCluster
    from .business.client import Client as Client
    from .business.client import ClientHandle as ClientHandle
    from .business.client import Group as Group
    from .business.client import Request as Request
    from .business.client import Uid as Uid
    from .business.cluster import Cluster as Cluster
    from .business.handshake import Accept as Accept
    from .business.handshake import Refuse as Refuse
    from .business.handshake import Token as Token
    from .business.jwt import JwtAuth as JwtAuth
    from .business.storage import Entry as Entry
    from .business.storage import History as History
    from .business.storage import HistoryError as HistoryError
    from .business.storage import Page as Page
    from .business.storage import Position as Position
    from .common.errors import AppError as AppError
    from .common.errors import ClientIdError as ClientIdError
    from .common.errors import ConfigError as ConfigError
    from .common.errors import GatecrewError as GatecrewError
    from .common.errors import HandlerTimeout as HandlerTimeout
    from .common.errors import ListenError as ListenError
    from .common.errors import PartialAnswer as PartialAnswer
    from .common.errors import QueryError as QueryError
    from .common.errors import TokenError as TokenError
    from .common.errors import TurnDropped as TurnDropped
    from .common.errors import Unreachable as Unreachable

__version__ = "0.1.0"

_HOMES: Final = {
    "business.app": ("App",),
    "business.blocking": ("BlockingCluster",),
    "business.client": ("Client", "ClientHandle", "Group", "Request", "Uid"),
    "business.cluster": ("Cluster",),
    "business.handshake": ("Accept", "Refuse", "Token"),
    "business.jwt": ("JwtAuth",),
    "business.storage": ("Entry", "History", "HistoryError", "Page", "Position"),
    "common.errors": (
        "AppError",
        "ClientIdError",
        "ConfigError",
        "GatecrewError",
        "HandlerTimeout",
        "ListenError",
        "PartialAnswer",
        "QueryError",
        "TokenError",
        "TurnDropped",
        "Unreachable",
    ),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604  # all are strings


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
