"""The cluster, seen from outside: a web backend, a cron job, a shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from ..common.config import Config, load
from ..common.errors import GatecrewError, QueryError, Unreachable
from ..common.ids import new_key
from ..common.link import Node
from ..common.messages import Ask
from ..register.agent import link_settings
from .checks import size
from .client import Api
from .hub import Hub, unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..common.messages import Message
    from .queries import Answers

T = TypeVar("T")


class Cluster(Api):
    """All that can be commanded and asked, for programs that are no workers.

    ``async with Cluster("gatecrew.toml") as cluster:``, in the event loop that uses it. Commands leave at the end of the loop's
    turn; ``await cluster.flush()`` returns when all gateways have carried them out, and so does leaving the block.

    Args:
        config: the configuration file of the cluster, or a configuration; None for the environment (``GATECREW_*``) and
            the defaults.

    Raises:
        ConfigError: if the configuration is no good.
    """

    def __init__(self, config: str | Path | Config | None = None) -> None:
        self._config = configuration(config)
        self._hub: Hub | None = None
        self._missed: dict[str, None] = {}  # names of gateways that did not get what was commanded since the last flush

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Unreachable: if no register answers in time.
        """
        config = self._config
        node = Node("caller", f"caller-{os.getpid()}", new_key())
        hub = Hub(node, link_settings(config), config.cluster.register_addresses(), timeout=config.worker.query_timeout)
        try:
            ready = await hub.agent.ready(config.worker.query_timeout)
        except BaseException:
            await hub.close()
            raise
        if not ready:
            await hub.close()
            addresses = ", ".join(config.cluster.register_addresses())
            raise Unreachable(f"no register answers at {addresses}: is the cluster running?")
        self._hub = hub
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let what was commanded take effect, and disconnect.

        Raises:
            Unreachable, PartialAnswer: as :meth:`flush` does, unless the block failed by itself.
        """
        try:
            await self.flush()
        except (Unreachable, QueryError):
            if error is None:
                raise
        finally:
            await self.disconnect()

    async def disconnect(self) -> None:
        """Disconnect at once, if it is connected."""
        hub, self._hub = self._hub, None
        if hub is not None:
            await hub.close()

    async def flush(self) -> None:
        """Return when all that was commanded so far has taken effect.

        Raises:
            Unreachable: if something commanded could not be handed to a gateway.
            PartialAnswer: if a gateway did not confirm before the deadline.
        """
        await self._confirm(None)

    async def deliver(self, commands: list[tuple[str | None, Message]]) -> None:
        """Send commands, and return when they have taken effect.

        Raises:
            Unreachable, PartialAnswer: as :meth:`flush` does.
        """
        self._record_many(commands)
        await self._confirm(commands[0][0] if len(commands) == 1 else None)

    async def _confirm(self, gateway: str | None) -> None:
        missed, self._missed = self._missed, {}
        await self._query(gateway, Ask.SYNC, None, any)
        if missed:
            raise unreachable(missed)

    @property
    def _connected(self) -> Hub:
        if self._hub is None:
            raise GatecrewError("not connected: use it in an async with block")
        return self._hub

    def _record(self, gateway: str | None, message: Message) -> None:
        size(message)
        self._missed |= dict.fromkeys(self._connected.post([(gateway, message)]))

    async def _query(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        return await self._connected.ask(gateway, ask, argument, merge)


def configuration(config: str | Path | Config | None) -> Config:
    """Return the configuration: as it is given, from a file, or from the environment and the defaults.

    Raises:
        ConfigError: if it is no good.
    """
    if isinstance(config, Config):
        return config
    return load(Path(config) if config is not None else None, os.environ, {})
