"""The business worker: a process that runs an app for the clients of all gateways."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from math import inf
from threading import Semaphore, get_ident
from threading import enumerate as enumerate_threads
from time import time
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from ..common import messages as op
from ..common import process
from ..common.errors import AppError, QueryError
from ..common.ids import new_key
from ..common.link import Node
from ..common.observation import Observation
from ..register.agent import link_settings
from . import loader
from .checks import size
from .hub import Gateway, Hub, unreachable
from .runner import Runner
from .timers import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..common.config import Config
    from ..common.messages import Ask, Message
    from .app import App, Timer
    from .queries import Answers
    from .turn import Turn

_log = logging.getLogger(__name__)
MAX_POSTS: Final = 1000  #: commands of other threads that wait for the loop
_THREADS: Final = "handler"  # what the names of the threads of def handlers begin with
#: What the present task ran last in a thread.
_last_call: ContextVar[Future[Any] | None] = ContextVar("last_call", default=None)
T = TypeVar("T")
P = ParamSpec("P")


class Worker:
    """One worker. It is the runtime of its app, and hears from the links.

    Args:
        config: the configuration.
        name: of this worker.
        app: what it runs; None for the one that the configuration names.
    """

    def __init__(self, config: Config, name: str, app: App | None = None) -> None:
        self._config = config
        self._name = name
        self._key = new_key()
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._app = app
        self._hub: Hub
        self._runner: Runner
        self._threads = ThreadPoolExecutor(config.worker.threads, thread_name_prefix=_THREADS)
        self._posts = Semaphore(MAX_POSTS)
        self._free = asyncio.Semaphore(config.worker.threads)  # who was given up does not wait for a thread any more
        self._timers: list[asyncio.Task[None]] = []
        self._once: list[str] = []  # names of timers that the cluster has once
        self._turns = Turns(self._key, wait=config.cluster.dead_after)
        self._meter = process.Meter()
        self._takes = False  # whether it takes events
        self._started = False

    # The service

    async def start(self) -> str | None:
        """Import the app, meet the cluster, run the start handlers, then take events from all gateways that answer in time.

        Raises:
            AppError: if the app cannot be imported, or a start handler fails.
            ConfigError: if none is configured.
        """
        config = self._config
        app = self._app = self._app or loader.load(config.worker.app, config.folder)
        timers = app.timers()
        self._once = [timer.name for timer in timers if timer.once]
        node = Node("worker", self._name, self._key)
        self._hub = Hub(
            node,
            link_settings(config),
            config.cluster.register_addresses(),
            timeout=config.worker.query_timeout,
            listener=self,
            stats=self._stats,
        )
        self._runner = Runner(
            app,
            self._hub,
            concurrency=config.worker.concurrency,
            time_limit=config.worker.handler_timeout,
            timed=bool(config.metrics.listen),
        )
        self._started = True
        app.run_by(self)
        on_start = app.handler("start")
        if on_start is not None:
            await self._hub.agent.ready(config.worker.query_timeout)  # so that it can command and ask
            try:
                await self._runner.run(on_start, time_limit=0)
            except Exception as error:
                _log.exception("a start handler failed")
                raise AppError(f"a start handler failed: {loader.in_one_line(error, config.folder)}") from error
        self._hub.agent.join()
        self._takes = True
        for gateway in self._hub.gateways.values():
            if gateway.alive:
                self._take_from(gateway)
        self._timers = [self._loop.create_task(self._run_timer(timer)) for timer in timers]
        with suppress(TimeoutError):  # a gateway may hang, and registers come in any order
            async with asyncio.timeout(config.worker.query_timeout):
                await self._linked()  # whoever is replaced by this worker may leave when it is ready
        return None

    async def stop(self) -> None:
        """Take no more events, finish those that came, run the stop handlers, leave."""
        if not self._started:
            self._threads.shutdown(wait=False)
            return
        for task in self._timers:
            task.cancel()
        took, self._takes = self._takes, False
        self._hub.agent.leave()  # so that other workers take over the timers of the cluster
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.worker.drain_timeout):
                await self._drain()
        await self._runner.close()
        app = self._app
        assert app is not None, "it has started"
        on_stop = app.handler("stop")
        if took and on_stop is not None:
            try:
                await self._runner.run(on_stop, time_limit=self._config.worker.drain_timeout)
            except Exception:  # noqa: BLE001  # it stops all the same
                _log.exception("a stop handler failed")
        with suppress(QueryError):  # what was said last is there when this process is gone
            await self._hub.ask(None, op.Ask.SYNC, None, all)
        await self._hub.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        app.run_by(None)

    async def _linked(self) -> None:
        """Wait until all gateways that the registers name can send events."""
        await self._hub.agent.ready(inf)
        while not all(gateway.alive for gateway in self._hub.gateways.values()):  # noqa: ASYNC110  # links set no event
            await asyncio.sleep(0.01)

    async def _drain(self) -> None:
        self._hub.drain()
        with suppress(QueryError):  # a gateway that does not answer sends no events either
            # what a gateway sends before it knows comes before its answer
            await self._hub.ask(None, op.Ask.SYNC, None, all)
        await self._runner.idle()

    def _stats(self) -> dict[str, Any]:
        runner, hub = self._runner, self._hub
        return {
            **process.vitals(),
            "connections": sum(gateway.alive for gateway in hub.gateways.values()),
            "events": runner.events,
            "events_per_second": self._meter.read(runner.events),
            "queue": runner.queued + runner.suspended,
            "errors": runner.counters["handler.errors"],
            **runner.counters,
            **hub.counts(),
        }

    def observe(self) -> Observation:
        """Look at it, for Prometheus. Without gateways, it cannot serve."""
        stats = self._stats()
        linked = stats.pop("connections")
        loads = [gateway.connector.load for gateway in self._hub.gateways.values()]
        more = {"links": linked, "unacked": sum(unacked for _, unacked in loads), "running": self._runner.suspended}
        return Observation("" if linked else "no gateway is linked", {**stats, **more}, self._runner.took)

    # What the links tell

    def joined(self, gateway: Gateway) -> None:
        """A gateway can be reached."""
        if self._takes:
            self._take_from(gateway)

    def received(self, gateway: Gateway, batch: list[Message]) -> None:
        """A batch came."""
        self._runner.received(gateway, batch)

    def lost(self, gateway: Gateway) -> None:
        """A gateway is gone."""
        self._runner.lost(gateway)

    def members_changed(self) -> None:
        """Other workers may have come or gone, and with them the choice of who runs a timer."""
        workers = [key for key, member in self._hub.agent.members.items() if member.role == "worker"]
        self._turns.seen(self._once, workers, self._loop.time())

    def _take_from(self, gateway: Gateway) -> None:
        app = self._app
        assert app is not None, "it has started"
        for revoked in self._hub.revocations.all(time()):
            gateway.peer.send([op.REVOKE, *revoked])
        if gateway.cut:
            gateway.peer.send([op.CUT])
        gateway.peer.send([op.TAKE, self._config.worker.credit, bool(app.functions("handshake"))])

    # What the app needs

    def post(self, gateway: str | None, message: Message) -> None:
        """Send a command that belongs to no turn. Another thread that makes them faster than the loop takes them waits.

        Raises:
            ValueError: if it is too big.
            Unreachable: if it could not be handed over; from another thread, this is only logged.
        """
        size(message)
        if get_ident() != self._thread:
            self._posts.acquire()
            self._loop.call_soon_threadsafe(self._post_of_thread, gateway, message)
            return
        missed = self._hub.post([(gateway, message)])
        if missed:
            raise unreachable(missed)

    def _post_of_thread(self, gateway: str | None, message: Message) -> None:
        self._posts.release()
        self.post(gateway, message)

    def flush(self, turn: Turn) -> None:
        """Let go what a turn has recorded so far."""
        self._runner.flush(turn)

    async def ask(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        """Ask gateways and put their answers together."""
        return await self._hub.ask(gateway, ask, argument, merge)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the thread pool, in the present context, as soon as there is a thread for it."""
        await self._free.acquire()
        call = self._threads.submit(partial(copy_context().run, function, *args, **kwargs))
        call.add_done_callback(self._freed)
        _last_call.set(call)
        return await asyncio.wrap_future(call)

    def _freed(self, _: object) -> None:
        with suppress(RuntimeError):  # the loop is gone: the thread outlasted its worker
            self._loop.call_soon_threadsafe(self._free.release)

    def wait(self, question: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from another thread, and wait for it.

        Raises:
            RuntimeError: on the loop's own thread, where it would wait for ever.
        """
        if get_ident() == self._thread:
            question.close()
            raise RuntimeError("app.wait is for def handlers; in an async def handler write await")
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    # Timers

    async def _run_timer(self, timer: Timer) -> None:
        due = self._loop.time()
        late = self._config.cluster.dead_after
        while True:
            due += timer.seconds
            now = self._loop.time()
            due = max(due, now)
            await asyncio.sleep(due - now)
            now = self._loop.time()
            # after a stop of this process, others may have taken over without its knowing yet
            if timer.once and (now - due > late or not self._turns.holds(timer.name, now)):
                continue
            try:
                await self._runner.run(timer.function)
            except Exception as error:  # noqa: BLE001  # a timer goes on whatever its function does
                call = _last_call.get()
                await self._runner.failed(error, f"running {timer.name}")
                if call is not None:  # past its time limit, a thread goes on all the same
                    await asyncio.gather(asyncio.wrap_future(call), return_exceptions=True)


def run(config: Config, name: str) -> int:
    """Be a worker until told to stop; return the exit code."""
    code = process.run(config, "worker", name, lambda _: Worker(config, name), observe=Worker.observe)
    threads = [thread for thread in enumerate_threads() if thread.name.startswith(_THREADS)]
    for thread in threads:
        thread.join(0.1)
    if any(thread.is_alive() for thread in threads):  # Python would wait for them, however long they take
        _log.warning("ended with def handlers still running")
        logging.shutdown()
        os._exit(code)
    return code
