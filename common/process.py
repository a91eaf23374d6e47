"""The frame of every process: logging, signals, the event loop, an ordered start and stop, the words to its supervisor.

A role gives :func:`run` a :class:`Service` and is done. What happens around it:

* it starts; then ``READY=1`` is told, and ``WATCHDOG=1`` every second for as long as the loop turns
  (see :mod:`gatecrew.common.notify`);
* SIGTERM, SIGINT or SIGHUP stop it gracefully, within bounds of its own; a second one ends the process at once;
* an error on the way is one line, on standard error, in the log file if there is one, and told as ``STATUS``; and an exit code;
* a process whose supervisor is gone stops by itself. Its standard input is a pipe, whose other end closes however the
  supervisor dies; a thread waits for that, so that a hung loop does not matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar

from . import logs, notify
from .endpoint import Endpoint
from .errors import GatecrewError
from .exits import Exit
from .observation import Observation
from .security import prepare_run_dir

if TYPE_CHECKING:
    from types import FrameType

    from .config import Config

_log = logging.getLogger("gatecrew.process")

#: How often the process was started again. Only the supervisor sets it; standard input is its pipe then.
RESTARTS: Final = "GATECREW_RESTARTS"
WATCHDOG_EVERY: Final = 1.0  #: seconds
_STARTED: Final = time.time()
_STATM: Final = Path("/proc/self/statm")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_vitals: dict[str, Any] = {"restarts": 0}

Fail = Callable[[GatecrewError | None], None]
T = TypeVar("T", bound="Service")


class Service(Protocol):
    """What a role is to the frame."""

    async def start(self) -> str | None:
        """Return when it serves, and perhaps what to tell of it, as where clients connect.

        A :exc:`GatecrewError` raised here ends the process with that one line. A signal cancels it. :meth:`stop` is
        called in each case.
        """

    async def stop(self) -> None:
        """Stop gracefully, within a time that it bounds by itself; whatever :meth:`start` got to is undone."""


def _to_stderr(error: str) -> None:
    sys.stderr.write(f"Error: {error}\n")


def run(
    config: Config,
    role: str,
    name: str,
    make: Callable[[Fail], T],
    *,
    observe: Callable[[T], Observation] | None = None,
    complain: Callable[[str], None] = _to_stderr,
    at_first: Callable[[], None] = lambda: None,
    at_once: Callable[[], None] = lambda: None,
) -> int:
    """Run a service until it is told to stop, and return the exit code of the process.

    Args:
        config: the configuration.
        role: for the log.
        name: for the log.
        make: returns the service; it is called on the running loop. What it is given is to be called by a service that
            cannot go on: the process then stops, with exit code 1, or with 0 if there is no error.
        observe: looks at a service that has started, for ``[metrics] listen``; None if there is nothing to be seen there.
        complain: is told the error with which the process ends, in one line.
        at_first: is called on the loop when a signal asks the process to stop.
        at_once: is called before a second signal ends the process.

    """
    notifier = notify.Notifier(os.environ.pop(notify.VARIABLE, ""))
    supervised = RESTARTS in os.environ
    try:
        if supervised:
            _vitals["restarts"] = int(os.environ.pop(RESTARTS))
            _watch_supervisor(patience(config))
        logs.set_up(config.log, role=role, name=name)
        _warn_of_open_doors(config)
        prepare_run_dir(config.cluster.directory)
        _raise_file_limit()
        frame = _Frame(make, notifier, at_first)
        if observe is not None and config.metrics.listen:
            frame.show(config.metrics.listen, role, name, observe)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner, _signals(frame.interrupted, at_once):
            runner.run(frame.main())
    except GatecrewError as error:
        # a supervisor says it itself, once for all that fail in the same way
        if not notifier.send(STATUS=str(error)) or not supervised:
            if config.log.file and _log.hasHandlers():  # it could be opened
                _log.error("%s", error)
            complain(str(error))
        return Exit.of(error)
    except Exception as error:  # noqa: BLE001  # the last place at which it can be told
        notifier.send(STATUS=f"{type(error).__name__}: {error}")
        _log.exception("ended by an unexpected error")
        return Exit.FAILED
    finally:
        notifier.close()
    return Exit.FINE


def patience(config: Config) -> float:
    """Return the seconds that any process of the cluster may take to stop; what takes longer is killed."""
    worker = 2 * config.worker.drain_timeout  # its clients, then its stop handlers
    gateway = config.gateway.close_timeout + 2 * config.gateway.drain_timeout  # its clients, then their last events
    return max(worker, gateway) + 5.0


def vitals() -> dict[str, Any]:
    """Return what every process announces of itself.

    ``pid``, ``started`` (Unix time in seconds), ``memory`` (resident bytes), ``cpu`` (seconds), ``restarts`` (times that the
    supervisor started it again) and, if it tells Prometheus how it is, ``metrics`` (where).
    """
    return {"pid": os.getpid(), "started": _STARTED, "memory": _memory(), "cpu": time.process_time(), **_vitals}


class Meter:
    """How fast a total grows, for ``events_per_second`` of what a process announces."""

    def __init__(self) -> None:
        self._total = 0
        self._since = time.monotonic()
        self._rate = 0.0

    def read(self, total: int) -> float:
        """Return by how much the total grew per second, lately: since it was last read, if that is half a second or more."""
        now = time.monotonic()
        if now - self._since >= 0.5:
            self._rate = round((total - self._total) / (now - self._since), 1)
            self._total, self._since = total, now
        return self._rate


def _memory() -> int:
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux: the most that it ever had
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Frame(Generic[T]):
    """One run of a service on the loop."""

    def __init__(self, make: Callable[[Fail], T], notifier: notify.Notifier, at_first: Callable[[], None]) -> None:
        self._make = make
        self._at_first = at_first
        self._notifier = notifier
        self._leave = asyncio.Event()
        self._error: GatecrewError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service: T
        self._phase = "starting"  # or "stopping"; empty in between
        self._listen = ""
        self._endpoint: Endpoint | None = None

    def show(self, listen: str, role: str, name: str, observe: Callable[[T], Observation]) -> None:
        """Let the service be looked at, at that address."""

        def look() -> Observation:
            if self._phase:
                return Observation(self._phase, vitals())
            return observe(self._service)

        self._listen = listen
        self._endpoint = Endpoint(role, name, look)

    async def main(self) -> None:
        """Start, serve, stop; raise the error with which it ended."""
        self._loop = asyncio.get_running_loop()
        leave = asyncio.create_task(self._leave.wait())
        service = self._service = self._make(self._fail)
        try:
            if self._endpoint is not None:
                _vitals["metrics"] = await self._endpoint.start(self._listen)
            start = asyncio.create_task(service.start())
            await asyncio.wait({start, leave}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                self._phase = ""
                self._notifier.send(READY="1", STATUS=start.result() or "serving")
                self._tell_that_it_turns(self._loop)
                await leave
            else:
                start.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await start
        finally:
            self._phase = "stopping"
            self._notifier.send(STOPPING="1")
            await service.stop()
            if self._endpoint is not None:
                await self._endpoint.stop()
        if self._error is not None:
            raise self._error

    def _tell_that_it_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        self._notifier.send(WATCHDOG="1")
        loop.call_later(WATCHDOG_EVERY, self._tell_that_it_turns, loop)

    def _fail(self, error: GatecrewError | None) -> None:
        self._error = self._error or error
        self._leave.set()

    def interrupted(self) -> None:
        """Stop. Called from a signal handler, perhaps before there is a loop."""
        if self._loop is None:
            self._leave.set()
        else:
            self._loop.call_soon_threadsafe(self._at_first)
            self._loop.call_soon_threadsafe(self._leave.set)


@contextlib.contextmanager
def _signals(first: Callable[[], None], at_once: Callable[[], None]) -> Iterator[None]:
    """Handle the signals that end a process, except those that it was started to ignore, as under nohup.

    Python's own handlers, not the loop's: they work while the loop hangs in somebody's code.
    """
    seen = False

    def handle(_signal: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            at_once()
            os._exit(Exit.FAILED)
        seen = True
        first()

    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _watch_supervisor(grace: float) -> None:
    """Stop when the pipe at standard input closes, because whoever holds the other end is gone."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the pipe is neither for handlers nor for what they start
    os.close(nothing)

    def wait() -> NoReturn:
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(Exit.FAILED)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def _warn_of_open_doors(config: Config) -> None:
    if addresses := config.insecure_addresses():
        _log.warning(
            "INSECURE: %s without keys: whoever is on that network can read and command everything; see gatecrew keys",
            ", ".join(addresses),
        )


def _raise_file_limit() -> None:
    """Allow as many sockets as the system lets us."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS calls unlimited what it then refuses
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415  # it is not there on every platform

    return uvloop.new_event_loop
