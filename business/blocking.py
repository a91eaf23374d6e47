"""The cluster for programs without an event loop: Flask and Django views, Celery tasks, scripts."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import ref

from .cluster import Cluster, configuration
from .commands import Commands

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from pathlib import Path
    from types import TracebackType

    from ..common.config import Config
    from ..common.messages import Message
    from .client import AnyClient

T = TypeVar("T")


class BlockingCluster(Commands):
    """All that can be commanded and asked, by calls that block.

    A command returns when the gateways have carried it out. It connects at the first call, in a thread of its own, and any
    threads may use it. After a fork it connects anew, so it may be made when a module is imported.

    ``with BlockingCluster("gatecrew.toml") as cluster:`` closes it at the end; otherwise call :meth:`close`, or let the process
    end.

    Args:
        config: the configuration file of the cluster, or a configuration; None for the environment (``GATECREW_*``) and
            the defaults.

    Raises:
        ConfigError: if the configuration is no good.

    All calls raise :exc:`Unreachable` if the cluster cannot be reached, and :exc:`PartialAnswer` if a gateway does not answer before the
    deadline.
    """

    def __init__(self, config: str | Path | Config | None = None) -> None:
        self._config = configuration(config)
        self._lock = Lock()
        self._thread: _Thread | None = None
        os.register_at_fork(after_in_child=partial(_forget, ref(self)))

    def __enter__(self) -> Self:
        """Connect at once.

        Raises:
            Unreachable: if no register answers in time.
        """
        self._connected()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect."""
        self.close()

    def close(self) -> None:
        """Disconnect, if it is connected. The next call connects again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and thread.pid == os.getpid():
            thread.close()

    # Who is there

    def is_online(self, client: AnyClient) -> bool:
        """As :meth:`Cluster.is_online`."""
        return self._ask(self._cluster.is_online(client))

    def is_uid_online(self, uid: str) -> bool:
        """As :meth:`Cluster.is_uid_online`."""
        return self._ask(self._cluster.is_uid_online(uid))

    def get_all_client_id_count(self) -> int:
        """As :meth:`Cluster.get_all_client_id_count`."""
        return self._ask(self._cluster.get_all_client_id_count())

    def get_client_id_count_by_group(self, group: str | Iterable[str]) -> int:
        """As :meth:`Cluster.get_client_id_count_by_group`."""
        return self._ask(self._cluster.get_client_id_count_by_group(group))

    def get_all_client_id_list(self) -> list[str]:
        """As :meth:`Cluster.get_all_client_id_list`."""
        return self._ask(self._cluster.get_all_client_id_list())

    def get_client_id_list_by_group(self, group: str | Iterable[str]) -> list[str]:
        """As :meth:`Cluster.get_client_id_list_by_group`."""
        return self._ask(self._cluster.get_client_id_list_by_group(group))

    def get_all_uid_count(self) -> int:
        """As :meth:`Cluster.get_all_uid_count`."""
        return self._ask(self._cluster.get_all_uid_count())

    def get_uid_count_by_group(self, group: str | Iterable[str]) -> int:
        """As :meth:`Cluster.get_uid_count_by_group`."""
        return self._ask(self._cluster.get_uid_count_by_group(group))

    def get_all_uid_list(self) -> list[str]:
        """As :meth:`Cluster.get_all_uid_list`."""
        return self._ask(self._cluster.get_all_uid_list())

    def get_uid_list_by_group(self, group: str | Iterable[str]) -> list[str]:
        """As :meth:`Cluster.get_uid_list_by_group`."""
        return self._ask(self._cluster.get_uid_list_by_group(group))

    def get_client_id_by_uid(self, uid: str | Iterable[str]) -> list[str]:
        """As :meth:`Cluster.get_client_id_by_uid`."""
        return self._ask(self._cluster.get_client_id_by_uid(uid))

    def get_uid_by_client_id(self, client: AnyClient) -> str | None:
        """As :meth:`Cluster.get_uid_by_client_id`."""
        return self._ask(self._cluster.get_uid_by_client_id(client))

    # Groups

    def get_all_group_id_list(self) -> list[str]:
        """As :meth:`Cluster.get_all_group_id_list`."""
        return self._ask(self._cluster.get_all_group_id_list())

    def get_all_group_client_id_list(self) -> dict[str, list[str]]:
        """As :meth:`Cluster.get_all_group_client_id_list`."""
        return self._ask(self._cluster.get_all_group_client_id_list())

    def get_all_group_client_id_count(self) -> dict[str, int]:
        """As :meth:`Cluster.get_all_group_client_id_count`."""
        return self._ask(self._cluster.get_all_group_client_id_count())

    def get_all_group_uid_list(self) -> dict[str, list[str]]:
        """As :meth:`Cluster.get_all_group_uid_list`."""
        return self._ask(self._cluster.get_all_group_uid_list())

    def get_all_group_uid_count(self) -> dict[str, int]:
        """As :meth:`Cluster.get_all_group_uid_count`."""
        return self._ask(self._cluster.get_all_group_uid_count())

    # Sessions

    def get_session(self, client: AnyClient) -> dict[str, Any] | None:
        """As :meth:`Cluster.get_session`."""
        return self._ask(self._cluster.get_session(client))

    def get_all_client_sessions(self) -> dict[str, dict[str, Any]]:
        """As :meth:`Cluster.get_all_client_sessions`."""
        return self._ask(self._cluster.get_all_client_sessions())

    def get_client_sessions_by_group(self, group: str | Iterable[str]) -> dict[str, dict[str, Any]]:
        """As :meth:`Cluster.get_client_sessions_by_group`."""
        return self._ask(self._cluster.get_client_sessions_by_group(group))

    # How it is done

    @property
    def _cluster(self) -> Cluster:
        return self._connected().cluster

    def _connected(self) -> _Thread:
        with self._lock:
            if self._thread is None or self._thread.pid != os.getpid():
                self._thread = _Thread(self._config)
            return self._thread

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return self._connected().run(question)

    def _record(self, gateway: str | None, message: Message) -> None:
        self._record_many([(gateway, message)])

    def _record_many(self, commands: list[tuple[str | None, Message]]) -> None:
        if commands:
            self._ask(self._cluster.deliver(commands))


def _forget(cluster: ref[BlockingCluster]) -> None:
    """Start anew after a fork: the thread is not here, and whoever held the lock may not be either."""
    forked = cluster()
    if forked is not None:
        forked._lock, forked._thread = Lock(), None  # noqa: SLF001


class _Thread:
    """A thread with a loop, in which a cluster is connected.

    Raises:
        Unreachable: if no register answers in time.
    """

    def __init__(self, config: Config) -> None:
        self.pid = os.getpid()
        self.cluster = Cluster(config)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="gatecrew", daemon=True)
        self._thread.start()
        try:
            self.run(self.cluster.__aenter__())
        except BaseException:
            self._end()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return what it does."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Disconnect and end."""
        try:
            self.run(self.cluster.disconnect())  # each command has been confirmed
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
