"""Which worker gets a client: the routers."""

from __future__ import annotations

import importlib
import inspect
import operator
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from random import Random

    from .client import Client
    from .dispatch import Port

#: A router chooses one of the workers for a client. There is always at least one to choose from.
Route = Callable[["Client", "Sequence[Port]"], "Port"]


class Router(NamedTuple):
    """A way to choose.

    With ``sticky`` a choice stands until the set of workers changes; otherwise it is made anew whenever nothing of the client
    is outstanding. So its events stay in order, however the choice falls out.
    """

    route: Route
    sticky: bool


def weight(client_id: str, worker: str) -> bytes:
    """Return how much this client wants this worker. It depends on these two alone."""
    return blake2b(f"{worker}/{client_id}".encode(), digest_size=8).digest()


def rendezvous(client: Client, workers: Sequence[Port]) -> Port:
    """Choose the worker that the client wants most: when one joins or leaves, only its own clients move.

    It goes by the name, which the successor of a worker inherits, and with it the clients. Workers that happen to have the
    same name, on two machines or while one takes over from the other, share what comes to that name.
    """
    client_id = client.id
    return max(workers, key=lambda worker: (weight(client_id, worker.name), weight(client_id, worker.key)))


def least_loaded(_: Client, workers: Sequence[Port]) -> Port:
    """Choose the worker with the fewest events outstanding."""
    return min(workers, key=lambda worker: len(worker.outstanding) + len(worker.waiting))


def router(name: str, random: Random) -> Router:
    """Return the router with this name (``[gateway] router``).

    Raises:
        ConfigError: if there is none, or it cannot be imported.
    """
    if name == "sticky":
        return Router(rendezvous, sticky=True)
    if name == "least_loaded":
        return Router(least_loaded, sticky=False)
    if name == "random":
        return Router(lambda _, workers: random.choice(workers), sticky=False)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"[gateway] router: {name!r} is not one of sticky, random, least_loaded or module:function")
    try:
        route: Any = operator.attrgetter(attribute)(importlib.import_module(module))
    except Exception as error:  # whatever the user's module does wrong
        raise ConfigError(f"[gateway] router: cannot import {name}: {type(error).__name__}: {error}") from error
    if not callable(route) or inspect.iscoroutinefunction(route):
        raise ConfigError(f"[gateway] router: {name} is not a plain function of a client and the workers")
    return Router(route, sticky=False)
