"""Which worker gets a client: the routers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from ..common.errors import ConfigError
from .client import Client

if TYPE_CHECKING:
    from .dispatch import Port

#: A router chooses one of the workers for a client. There is always at least one to choose from.
Route = Callable[[Client, "Sequence[Port]"], "Port"]


class Router(NamedTuple):
    """A way to choose.

    With ``sticky`` a choice stands until the set of workers changes; otherwise it is made anew whenever nothing of the client
    is outstanding, so that its events stay in order however it falls out.
    """

    route: Route
    sticky: bool


def weight(client_id: str, worker_name: str) -> bytes:
    """Return how much this client wants this worker. It depends on these two alone."""
    return blake2b(f"{worker_name}/{client_id}".encode(), digest_size=8).digest()


def rendezvous(client: Client, workers: Sequence[Port]) -> Port:
    """Choose the worker that the client wants most: when one joins or leaves, only its own clients move."""
    client_id = client.id
    return max(workers, key=lambda worker: weight(client_id, worker.name))


def least_loaded(client: Client, workers: Sequence[Port]) -> Port:  # noqa: ARG001
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
        route: Route = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"[gateway] router: cannot import {name}: {error}") from error
    return Router(route, sticky=False)
