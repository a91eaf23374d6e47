"""A whole cluster in one thread and in virtual time: the real registers, gateways and workers, on a simulated network.

@simulate(app, workers=2)
async def test_echo(cluster: Simulation) -> None:
    ann = await cluster.connect()
    ann.send("hello")
    cluster.kill("worker-1")
    assert await ann.receive() == "hello"
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from ..business.app import App
from ..business.worker import Worker
from ..common.config import ClusterConfig, Config, GatewayConfig, LogConfig, WorkerConfig
from ..common.errors import AppError, GatecrewError
from ..common.ids import new_key
from ..common.link import Node
from ..gateway.server import Gateway
from ..register.agent import link_settings
from ..register.server import Register
from .clients import Guest
from .clock import World, current_loop
from .network import Network

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from ..business.app import Runtime
    from ..business.queries import Answers
    from ..business.turn import Turn
    from ..common.messages import Ask, Message
    from .clock import Loop

T = TypeVar("T")
P = ParamSpec("P")
Q = ParamSpec("Q")

LOOK_EVERY: Final = 0.02  #: virtual seconds between looks at what is waited for


class Simulation:
    """A simulated cluster. Its processes are named ``register-1``, ``gateway-1``, ``worker-1`` and so on.

    Args:
        app: whose handlers are run. All workers share the module that it is in, and what that keeps in variables.
        gateways: how many.
        workers: how many.
        registers: how many.
        seed: of all chance: delays, keys, and what the handlers get from ``random`` and ``secrets``.
        gateway: settings of ``[gateway]``, as ``{"client_pending": 4}``.
        worker: settings of ``[worker]``.
        cluster: settings of ``[cluster]``.
    """

    def __init__(
        self,
        app: App,
        *,
        gateways: int = 1,
        workers: int = 1,
        registers: int = 1,
        seed: int = 0,
        gateway: dict[str, Any] | None = None,
        worker: dict[str, Any] | None = None,
        cluster: dict[str, Any] | None = None,
    ) -> None:
        self.seed = seed
        self.world = World(seed)
        self.network = Network(self.world)
        self.random = self.world.chance("test")  #: for what the test itself leaves to chance
        self.config = Config(
            cluster=ClusterConfig(
                **{
                    "registers": tuple(f"tcp://127.0.0.1:{7270 + number}" for number in range(registers)),
                    **(cluster or {}),
                }
            ),
            gateway=GatewayConfig(
                **{"listen": ("ws://127.0.0.1:0",), "link": "tcp://127.0.0.1:0", **(gateway or {})},
            ),
            worker=WorkerConfig(**(worker or {})),
            log=LogConfig(),
        )
        self.processes: dict[str, Process] = {}  #: by name: those that were started and have not ended
        self.guests: list[Guest] = []
        self._app = app
        self._here = _Here()
        self._names = [
            *(f"register-{number + 1}" for number in range(registers)),
            *(f"gateway-{number + 1}" for number in range(gateways)),
            *(f"worker-{number + 1}" for number in range(workers)),
        ]
        self._loop: Loop  # of the test
        self._all: list[Process] = []

    def run(self, test: Callable[[Simulation], Coroutine[Any, Any, T]]) -> T:
        """Start the cluster, run an async function with it, and end everything; return what that function returns.

        Raises:
            Failed: if something failed of which the test did not hear.
            RuntimeError: if it is called from an async function.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "a simulation has loops of its own: call it from a plain function, not from an async one"
            )
        self._loop = self.world.loop("test")
        self._loop.zmq_socket = partial(self.network.socket, self._loop)
        path = sys.path[:]
        try:
            result = self.world.run(self._loop.start(self._run(test)))
        finally:
            for process in self._all:
                process.vanish()
            self.world.close()
            self._app.run_by(None)
            sys.path[:] = path
        self.world.check()
        return result

    async def _run(self, test: Callable[[Simulation], Coroutine[Any, Any, T]]) -> T:
        await self.start(*self._names)
        await self.until(self.linked)
        return await test(self)

    # Time

    @property
    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self.world.now

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def until(self, true: Callable[[], object], timeout: float = 60.0) -> None:
        """Let time pass until something is true.

        Raises:
            TimeoutError: if it is not within so many virtual seconds.
        """
        deadline = self.time + timeout
        while not true():
            if self.time > deadline:
                raise TimeoutError(f"{getattr(true, '__name__', 'it')} does not come true within {timeout:g} s")
            await asyncio.sleep(LOOK_EVERY)

    # Clients

    async def connect(self, gateway: str = "gateway-1", path: str = "/", **headers: str) -> Guest:
        """Connect a client, and return it when the gateway has accepted it.

        Args:
            gateway: the name of its gateway.
            path: of its URL, with the query.
            headers: of its handshake.

        Raises:
            Closed: if it is refused.
        """
        process = self.process(gateway)
        guest = Guest(self.world, self._loop, len(self.guests) + 1, gateway)
        self.guests.append(guest)
        process.guests.append(guest)
        await guest.connect(process.loop, process.door(), path, headers)
        return guest

    # Processes

    def process(self, name: str) -> Process:
        """Return the process of this name.

        Raises:
            KeyError: if there is none.
        """
        if name not in self.processes:
            raise KeyError(f"there is no process {name}; there are {', '.join(self.processes)}")
        return self.processes[name]

    async def start(self, *names: str) -> None:
        """Start processes, and return when all serve.

        Raises:
            GatecrewError: if one cannot.
        """
        for process in [self.begin(name) for name in names]:
            await self.until(lambda process=process: process.ready or process.ended)  # type: ignore[misc]
            if process.error is not None:
                raise process.error

    def begin(self, name: str) -> Process:
        """Start a process, and do not wait for it. One of the same name that runs goes on, but has the name no more."""
        process = Process(self, name, self._make(name))
        self.processes[name] = process
        self._all.append(process)
        return process

    def kill(self, name: str) -> None:
        """End a process at once, as SIGKILL does."""
        self.processes.pop(name).vanish()

    def freeze(self, name: str) -> None:
        """Stop a process where it is, as SIGSTOP does."""
        self.process(name).loop.freeze()

    def thaw(self, name: str) -> None:
        """Let it go on, as SIGCONT does."""
        self.process(name).loop.go_on()

    async def stop(self, name: str) -> None:
        """Stop a process gracefully, as SIGTERM does, and return when it has ended."""
        await self.end(self.processes.pop(name))

    async def end(self, process: Process) -> None:
        """Stop a process that may have its name no more."""
        process.leave()
        await self.until(lambda: process.ended)

    async def reload(self) -> None:
        """Replace all workers, one after the other, as ``gatecrew reload`` does."""
        for name in [name for name in self.processes if name.startswith("worker")]:
            former = self.process(name)
            await self.start(name)
            await self.end(former)

    def linked(self) -> bool:
        """Return whether every worker takes events from every gateway."""
        gateways = [process.service for process in self.processes.values() if isinstance(process.service, Gateway)]
        workers = sum(isinstance(process.service, Worker) for process in self.processes.values())
        return all(len(gateway._dispatch.workers) == workers for gateway in gateways)

    # The network

    def cut(self, one: str, other: str, *, silent: bool = True) -> None:
        """Cut the wire between two processes: what is under way is lost.

        Args:
            one: a process.
            other: another one.
            silent: whether the sockets do not notice at once.
        """
        self.network.cut(one, other, silent=silent)

    def heal(self, one: str, other: str) -> None:
        """Mend the wire between two processes."""
        self.network.heal(one, other)

    # How it is done

    def _make(self, name: str) -> Callable[[Process], Service]:
        config = self.config
        role = name.partition("-")[0]
        if role == "register":
            settings = link_settings(config)
            address = config.cluster.register_address(name)
            return lambda _: Register(Node("register", name, new_key()), settings, address)
        if role == "gateway":
            return lambda process: Gateway(config, name, process.fail)
        if role == "worker":
            app = _WorkerApp(self._app, self._here)
            return lambda _: Worker(config, name, app)
        raise ValueError(f"{name}: expected the name of a register, a gateway or a worker, as worker-1")


class Service(Protocol):
    """A role."""

    async def start(self) -> str | None:
        """Return when it serves."""

    async def stop(self) -> None:
        """Stop gracefully."""


class Process:
    """One simulated process.

    Args:
        simulation: which it belongs to.
        name: of it.
        make: returns its service; it is called in the process.
    """

    def __init__(self, simulation: Simulation, name: str, make: Callable[[Process], Service]) -> None:
        self.name = name
        self.loop = loop = simulation.world.loop(name)
        self.service: Service | None = None
        self.ready = False  #: whether it serves
        self.ended = False  #: whether it is gone
        self.error: GatecrewError | None = None  #: with which it ended
        self.guests: list[Guest] = []  #: of a gateway
        self._world = simulation.world
        self._network = simulation.network
        self._doors: list[tuple[Callable[[], asyncio.BaseProtocol], socket.socket]] = []
        self._leave = asyncio.Event()
        loop.zmq_socket = partial(self._network.socket, loop)
        loop.serve = lambda factory, sock: self._doors.append((factory, sock))
        loop.at_end = self._unwind
        self._main = loop.start(self._run(make))

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    def door(self) -> Callable[[], asyncio.BaseProtocol] | None:
        """Return what accepts clients, if anything does."""
        for factory, sock in self._doors:
            if sock.fileno() >= 0 and not self.ended:
                return factory
        return None

    def leave(self) -> None:
        """Stop gracefully, soon."""
        self.loop.poke(self._leave.set)

    def fail(self, error: GatecrewError | None) -> None:
        """Stop, because it cannot go on. Called by the service."""
        self.error = self.error or error
        self._leave.set()

    def vanish(self) -> None:
        """End at once."""
        if self.ended:
            return
        self.loop.die()
        self._network.vanish(self.loop)
        self._gone()

    def _gone(self) -> None:
        self.ended = True
        for _, sock in self._doors:
            sock.close()
        for guest in self.guests:
            guest.lose()

    async def _unwind(self) -> None:
        """Let no leader follow the one that is cancelled."""
        if isinstance(self.service, Worker) and self.service._started:
            await self.service._runner.close()

    async def _run(self, make: Callable[[Process], Service]) -> None:
        try:
            self.service = make(self)
            try:
                await self.service.start()
                self.ready = True
                await self._leave.wait()
            finally:
                if not self.ended:
                    await self.service.stop()
        except GatecrewError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  # a bug: nobody waits for this task
            self._world.failures.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            if not self.ended:
                self._gone()


class _Here:
    """The runtime of an app that several workers in this interpreter run: the worker whose code runs."""

    def __init__(self) -> None:
        self.workers: dict[Loop, Runtime] = {}

    @property
    def _worker(self) -> Runtime:
        worker = self.workers.get(current_loop.get())
        if worker is None:
            raise AppError("no worker runs this: in a test, use async with Cluster(cluster.config)")
        return worker

    def post(self, gateway: str | None, message: Message) -> None:
        self._worker.post(gateway, message)

    def flush(self, turn: Turn) -> None:
        self._worker.flush(turn)

    async def ask(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        return await self._worker.ask(gateway, ask, argument, merge)

    async def in_thread(self, function: Callable[Q, T], *args: Q.args, **kwargs: Q.kwargs) -> T:
        return await self._worker.in_thread(function, *args, **kwargs)

    def wait(self, question: Coroutine[Any, Any, T]) -> T:
        return self._worker.wait(question)


class _WorkerApp(App):
    """The app of one worker: what is included in it finds its worker by :class:`_Here`."""

    def __init__(self, app: App, here: _Here) -> None:
        super().__init__()
        self._here = here
        self.include(app)
        super().run_by(here)

    def run_by(self, runtime: Runtime | None) -> None:
        """Take note of the worker that runs it."""
        if runtime is not None:
            self._here.workers[current_loop.get()] = runtime


def simulate(
    app: App, **options: Any
) -> Callable[[Callable[Concatenate[Simulation, P], Coroutine[Any, Any, None]]], Callable[P, None]]:
    """Run an async test function in a simulation, which is its first argument. It becomes a plain function.

    Args:
        app: whose handlers are run.
        options: of :class:`Simulation`.
    """

    def decorate(test: Callable[Concatenate[Simulation, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            Simulation(app, **options).run(lambda cluster: test(cluster, *args, **kwargs))

        # pytest takes the other parameters for fixtures
        signature = inspect.signature(test)
        run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        del run.__wrapped__
        return run

    return decorate
