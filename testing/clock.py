"""Virtual time: event loops that share one clock, which jumps to the next timer whenever nothing is left to do.

Each simulated process has a :class:`Loop` of its own, on which its code runs as it does in the world. :class:`World` turns them all in one
thread: so a process can be stopped, go on, or vanish, as one that gets a signal does, and everything happens in an order that
depends on the seed alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import secrets
import socket
import threading
from collections import deque
from contextvars import Context, ContextVar, copy_context
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEP: Final = 1e-6  #: seconds that a callback takes, so that time passes for those who never wait, too
UNWIND: Final = 5.0  #: virtual seconds for all tasks to end when they are cancelled at the end
FASTEST: Final = 100.0  #: virtual seconds in a real one, at most, while other threads may have something to say

#: The loop of the simulated process whose code runs, in its tasks and its threads.
current_loop: ContextVar[Loop] = ContextVar("current_loop")


class Stuck(Exception):
    """Nothing will ever happen any more, and somebody still waits."""


class Failed(Exception):
    """Something failed in a callback or a process, of which nobody else would have heard."""


class State(Enum):
    """What a simulated process does."""

    RUNS = auto()
    FROZEN = auto()
    DEAD = auto()


class World:
    """The clock, and all that is to happen.

    Args:
        seed: of all chance in it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0  #: seconds since its beginning
        self.random = self.chance("world")
        self.failures: list[str] = []  #: of callbacks and tasks that nobody waited for
        self.callbacks = 0  #: that were run
        self.delay = (0.0001, 0.003)  #: seconds that whatever is sent is on its way: from, to
        self.sent = 0  #: how much was sent
        self._ready: deque[tuple[Loop, asyncio.Handle]] = deque()
        self._timers: list[tuple[float, int, Loop | None, Any]] = []  # a callable if it is of no process, else a handle
        self._counter = 0
        self._loops: list[Loop] = []
        self._threads = threading.active_count()
        self._woken = threading.Event()
        self._called: deque[tuple[Loop, asyncio.Handle]] = deque()  # from other threads

    def chance(self, name: str) -> random.Random:
        """Return a source of chance of its own for what has this name."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311  # it keeps no secret

    def loop(self, name: str) -> Loop:
        """Return the loop of a new process."""
        loop = Loop(self, name, self.chance(f"{len(self._loops)}/{name}"))
        self._loops.append(loop)
        return loop

    def at(self, when: float, function: Callable[[], object]) -> None:
        """Let something happen then that no process does."""
        self._counter += 1
        heapq.heappush(self._timers, (when, self._counter, None, function))

    def run(self, main: asyncio.Future[T]) -> T:
        """Let time pass until this is done, and return its result.

        Raises:
            Stuck: if it never will be.
            Failed: if something fails meanwhile of which nobody else hears.
        """
        with self._seeded():
            while not main.done() and not self.failures:
                self._turn()
        self.check()
        return main.result()

    def check(self) -> None:
        """Say if something failed.

        Raises:
            Failed: if so.
        """
        if self.failures:
            raise Failed("; ".join(self.failures))

    def close(self) -> None:
        """End everything: cancel what still runs, in the dead processes too, and close the loops."""
        failed = len(self.failures)
        with self._seeded():
            for loop in self._loops:
                loop.go_on()
            unwinding = [loop.start(loop.unwind()) for loop in self._loops]
            until = self.now + UNWIND
            while self.now < until and not all(task.done() for task in unwinding):
                self._turn()
        for loop in self._loops:
            loop.close()
        del self.failures[failed:]  # it is over
        self._timers.clear()
        self._ready.clear()

    def push(self, loop: Loop, handle: asyncio.Handle) -> None:
        """Let a callback run in this turn."""
        self._ready.append((loop, handle))

    def push_at(self, when: float, loop: Loop, handle: asyncio.TimerHandle) -> None:
        """Let a callback run then."""
        self._counter += 1
        heapq.heappush(self._timers, (when, self._counter, loop, handle))

    def push_from_outside(self, loop: Loop, handle: asyncio.Handle) -> None:
        """Let a callback run soon, from another thread."""
        self._called.append((loop, handle))
        self._woken.set()

    def _turn(self) -> None:
        """Do all that is to be done now, or else go to the time of what comes next."""
        ready, timers = self._ready, self._timers
        if self._called:
            self._woken.clear()
            while self._called:
                ready.append(self._called.popleft())
        if not ready and not self._jump():
            return
        while timers and timers[0][0] <= self.now:
            _, _, loop, what = heapq.heappop(timers)
            if loop is None:
                what()
            else:
                ready.append((loop, what))
        self._run_ready()

    def _jump(self) -> bool:
        """Go to the time of the next timer; return whether no other thread had something to say before that."""
        timers = self._timers
        while timers and timers[0][2] is not None and timers[0][3].cancelled():
            heapq.heappop(timers)
        if threading.active_count() > self._threads:
            if self._woken.wait((timers[0][0] - self.now) / FASTEST if timers else None):
                return False
        elif not timers:
            raise Stuck("nothing happens any more, and somebody still waits")
        self.now = max(self.now, timers[0][0])
        return True

    def _run_ready(self) -> None:
        ready = self._ready
        running: Loop | None = None
        for _ in range(len(ready)):
            loop, handle = ready.popleft()
            if handle.cancelled():
                continue
            if loop.state is not State.RUNS:
                loop.put_off(handle)
                continue
            if loop is not running:
                asyncio._set_running_loop(loop)
                running = loop
            handle._run()
            self.callbacks += 1
            self.now += STEP
        if running is not None:
            asyncio._set_running_loop(None)

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        """Let all chance depend on the seed: that of each process on it and the process alone."""

        def by(name: str) -> Callable[..., Any]:
            def draw(*args: Any) -> Any:
                return getattr(self._chance_of_the_running(), name)(*args)

            return draw

        before = random.getstate()
        random.seed(self.random.random())
        try:
            with mock.patch.multiple(
                secrets,
                choice=by("choice"),
                randbelow=by("randrange"),
                randbits=by("getrandbits"),
                token_bytes=by("randbytes"),
            ):
                yield
        finally:
            random.setstate(before)
            asyncio._set_running_loop(None)

    def _chance_of_the_running(self) -> random.Random:
        loop = asyncio._get_running_loop()  # get_running_loop raises where there is none, as in threads
        return loop.random if isinstance(loop, Loop) else self.random


class Loop(asyncio.BaseEventLoop):
    """The event loop of one simulated process. It has no sockets but those that the process is given.

    Args:
        world: that turns it.
        name: of the process.
        chance: of the process.
    """

    def __init__(self, world: World, name: str, chance: random.Random) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.random = chance
        self.state = State.RUNS
        self.zmq_socket: Callable[[int], Any]  #: makes the sockets of links
        self.readers: dict[int, Callable[[], object]] = {}  #: by descriptor
        self.at_end: Callable[[], Coroutine[Any, Any, None]] | None = (
            None  #: ends what does not end when it is cancelled
        )
        self.serve: Callable[[Callable[[], asyncio.BaseProtocol], Any], None]  #: is told of each socket that listens
        self.context: Context = copy_context()
        self.context.run(current_loop.set, self)
        self._put_off: list[asyncio.Handle] = []
        self.set_exception_handler(lambda _, context: world.failures.append(_failure(name, context)))

    def __repr__(self) -> str:
        return f"<loop of {self.name}>"

    # The process

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in the process."""
        return self.create_task(work, context=self.context)

    def poke(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something in the process soon, from outside of it."""
        self.call_soon(callback, *args, context=self.context)

    def freeze(self) -> None:
        """Run nothing until :meth:`go_on`: it got SIGSTOP."""
        if self.state is State.RUNS:
            self.state = State.FROZEN

    def go_on(self) -> None:
        """Run again what was frozen."""
        self.state = State.RUNS
        put_off, self._put_off = self._put_off, []
        for handle in put_off:
            self.world.push(self, handle)

    def die(self) -> None:
        """Run nothing any more: it got SIGKILL. Its tasks are ended when the simulation ends."""
        self.state = State.DEAD
        self._put_off.clear()

    def put_off(self, handle: asyncio.Handle) -> None:
        """Keep what is due while it does not run."""
        if self.state is State.FROZEN:
            self._put_off.append(handle)

    async def unwind(self) -> None:
        """End all tasks."""
        if self.at_end is not None:
            await self.at_end()
        tasks = asyncio.all_tasks(self) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # The loop

    def time(self) -> float:
        """Return the virtual time."""
        return self.world.now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As every loop does."""
        handle = asyncio.Handle(callback, args, self, context)
        self.world.push(self, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As every loop does; callable from any thread."""
        handle = asyncio.Handle(callback, args, self, context)
        self.world.push_from_outside(self, handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop does, in virtual time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.push_at(when, self, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop does, in virtual time."""
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """Call something when this simulated descriptor can be read."""
        self.readers[fd] = partial(callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        """Call it no more."""
        return self.readers.pop(fd, None) is not None

    async def create_server(self, protocol_factory: Callable[[], asyncio.BaseProtocol], *_: Any, **options: Any) -> Any:
        """Let simulated clients come in by this socket."""
        self.serve(protocol_factory, options["sock"])
        return options["sock"]

    async def getaddrinfo(
        self, host: bytes | str | None, port: bytes | str | int | None, **options: Any
    ) -> list[tuple[Any, ...]]:
        """Look an address up, without a thread."""
        return list(socket.getaddrinfo(host, port, **options))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: it is dropped when its time comes."""


def _failure(name: str, context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{name}: {context['message']}" + (f": {type(error).__name__}: {error}" if error is not None else "")
