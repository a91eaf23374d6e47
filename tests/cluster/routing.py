"""A router and hooks of an application's own, for tests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatecrew.gateway.client import Client
    from gatecrew.gateway.dispatch import Port

log = logging.getLogger("routing")


def by_path(client: Client, workers: Sequence[Port]) -> Port:
    """Choose the worker that the path of the client names."""
    name = client.path.removeprefix("/")
    return next(worker for worker in workers if worker.name == name)


def worker_connected(name: str) -> None:
    log.info("hook: %s connected", name)


def worker_gone(name: str, reason: str) -> None:
    log.info("hook: %s is gone: %s", name, reason)
    raise RuntimeError("a hook that fails")


def event_given_up(event_id: str, data: str | bytes | list[object]) -> None:
    log.info("hook: %s is given up: %s", event_id, data)
