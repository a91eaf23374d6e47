"""The supervisor: runs the processes of one machine as :mod:`gatecrew.common.crew` says, and listens to commands.

It is a :class:`~gatecrew.common.process.Service` like the others. It knows the roles by their command lines only, hears them
through ``sd_notify`` datagrams, and holds the writing end of the pipe that is standard input to all of them: when it is gone,
they stop. A run directory has one supervisor: it holds a lock on the directory (with which systemd-tmpfiles leaves it alone,
too), and ``supervisor.json`` says its ``pid`` and how it was started. It listens on ``supervisor.sock``: one line of JSON in,
``{"do": "stop"}``, ``{"do": "reload"}``, ``{"do": "restart"}`` (one process after the other) or ``{"do": "scale", "to":
["workers=8"]}``, and one out, with ``error`` if it went wrong, or with what was ``done``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import random
import signal
import socket
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from . import notify
from .crew import START_ORDER, Child, Crew, Operation, Phase, Report, Signal, Start, read_numbers
from .errors import GatecrewError
from .exits import Exit
from .process import RESTARTS, Fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger("gatecrew.supervisor")

RECORD: Final = "supervisor.json"
SOCKET: Final = "supervisor.sock"
ANSWER_LIMIT: Final = 5.0  #: seconds in which a command is said, and in which a supervisor says that it heard it


@dataclass(frozen=True, slots=True)
class Program:
    """How to run one process."""

    command: Sequence[str]
    variables: Mapping[str, str]  #: environment variables over those of the supervisor


@dataclass(frozen=True, slots=True)
class Origin:
    """How a supervisor was started, so that it can be started again in the same way."""

    folder: str  #: the current directory
    file: str | None  #: the configuration file
    flags: dict[str, Any]  #: settings on the command line, keyed ``worker.app``
    background: bool

    def changed(self, new: Origin) -> Origin:
        """Return this one with what somebody gave who wants another start."""
        return replace(self, flags={**self.flags, **new.flags}, background=self.background or new.background)


@dataclass(frozen=True, slots=True)
class Running:
    """A supervisor that runs."""

    pid: int
    origin: Origin


class Supervisor:
    """Runs the processes of this machine.

    Args:
        places: role and name of each, in the order in which to start them.
        program: returns how to run the process of this role and name.
        run_dir: a directory of its own, which exists.
        origin: how it was started.
        patience: seconds that a process may take to stop.
        announce: is told once, when everything is ready, with a line for people.
        check: is called before anything is started, once it is certain that no other supervisor runs here; it may refuse.
        most: how many processes of a role can run at once, for roles that have such a limit.

    """

    def __init__(
        self,
        places: Sequence[tuple[str, str]],
        program: Callable[[str, str], Program],
        run_dir: Path,
        origin: Origin,
        *,
        patience: float,
        announce: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        most: Mapping[str, int] | None = None,
    ) -> None:
        # chance, not secrecy: what died together should not come back together
        self._crew = Crew(places, patience=patience, random=random.random, most=most)
        self._program = program
        self._run_dir = run_dir
        self._origin = origin
        self._announce = announce
        self._check = check
        self._processes: dict[Child, asyncio.subprocess.Process] = {}
        self._ears: dict[Child, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turned = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._fail: Fail | None = None
        self._undo = contextlib.ExitStack()
        self._stdin = -1

    def serve(self, fail: Fail) -> Supervisor:
        """Return itself, as the frame wants it: ``process.run(..., supervisor.serve, at_once=supervisor.kill)``."""
        self._fail = fail
        return self

    async def start(self) -> str:
        """Start everything; once all are ready, return that line.

        Gateways tell in their STATUS where clients connect, and ``http://`` addresses at which they serve pages.

        Raises:
            GatecrewError: if a supervisor runs in this directory already, or one of the processes cannot start.

        """
        _lock(self._run_dir)
        self._check()
        record = self._run_dir / RECORD
        record.write_text(json.dumps({"pid": os.getpid(), **asdict(self._origin)}))
        self._undo.callback(record.unlink, missing_ok=True)
        _sweep(self._run_dir)
        self._stdin, holder = os.pipe()
        self._undo.callback(os.close, self._stdin)
        self._undo.callback(os.close, holder)
        path = self._run_dir / SOCKET
        self._undo.callback(path.unlink, missing_ok=True)
        server = await asyncio.start_unix_server(self._command, path)
        self._undo.callback(server.close)
        self._turn()
        await self._until(lambda: self._crew.phase is not Phase.STARTING or self._crew.failure is not None)
        if self._crew.failure is not None:
            text, code = self._crew.failure
            raise (Exit.USAGE if code == Exit.USAGE else Exit.FAILED).error(text)
        line = self._greeting()
        self._announce(line)
        return line

    async def stop(self) -> None:
        """Stop everything in order; what takes too long is killed."""
        self._crew.stop()
        self._turn()
        await self._until(lambda: self._crew.phase is Phase.GONE)
        if self._timer is not None:
            self._timer.cancel()
        self._undo.close()

    def kill(self) -> None:
        """Kill everything at once."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _greeting(self) -> str:
        gateways = [child for child in self._crew.children if child.place.role == "gateway"]
        addresses = dict.fromkeys(address for child in gateways for address in child.status.split())
        pages = [address for address in addresses if address.startswith("http:")]
        clients = [address for address in addresses if address not in pages]
        line = f"ready: {self._counts()}"
        if clients:
            line += f"; clients connect to {', '.join(clients)}"
        if pages:
            line += f"; pages at {', '.join(pages)}"
        return line

    def _counts(self, *roles: str) -> str:
        """Say how many processes there are, of these roles or all."""
        counts = {role: self._crew.count(role) for role in roles or START_ORDER}
        return ", ".join(f"{count} {role}{'s'[: count != 1]}" for role, count in counts.items() if count)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self._turned.wait()

    def _turn(self) -> None:
        """Do what the crew says is to be done, and wake up when there is more."""
        loop = asyncio.get_running_loop()
        for child in list(self._ears):
            self._hear(child)  # what was said while this process was busy or stopped is no silence
        for effect in self._crew.tick(loop.time()):
            match effect:
                case Start(child):
                    task = asyncio.create_task(self._live(child))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case Signal(child, number):
                    self._signal(child, number)
                case Report(text, serious):
                    _log.log(logging.WARNING if serious else logging.INFO, "%s", text)
        if self._timer is not None:
            self._timer.cancel()
        wake = self._crew.wake
        self._timer = loop.call_at(wake, self._turn) if wake < float("inf") else None
        self._turned.set()  # whoever waits looks again
        self._turned.clear()

    async def _live(self, child: Child) -> None:
        """Start the process of a child, and wait until it ends."""
        loop = asyncio.get_running_loop()
        path = self._run_dir / f"{child.place.name}-{child.number}.notify"
        try:
            with notify.listen(str(path)) as ear:
                self._ears[child] = ear
                loop.add_reader(ear, self._heard, child)
                try:
                    code = await self._run(child, str(path))
                    self._hear(child)  # its last words
                finally:
                    loop.remove_reader(ear)
                    del self._ears[child]
                    path.unlink(missing_ok=True)
        except OSError as error:
            self._crew.told(child, {"STATUS": f"it cannot be started: {error}"}, loop.time())
            code = Exit.FAILED
        self._crew.exited(child, code, loop.time())
        self._turn()

    async def _run(self, child: Child, address: str) -> int:
        """Run the process of a child, and return its exit code, or minus the signal that killed it."""
        program = self._program(child.place.role, child.place.name)
        process = await asyncio.create_subprocess_exec(
            *program.command,
            stdin=self._stdin,
            env={**os.environ, **program.variables, notify.VARIABLE: address, RESTARTS: str(child.restarts)},
            start_new_session=True,  # Ctrl-C in the terminal is for the supervisor, which stops them in order
        )
        self._processes[child] = process
        if child.leaving:
            self._signal(child, signal.SIGTERM)  # it was asked to leave before it was there
        code = await process.wait()
        del self._processes[child]
        return code

    def _signal(self, child: Child, number: signal.Signals) -> None:
        process = self._processes.get(child)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def _heard(self, child: Child) -> None:
        self._hear(child)
        self._turn()

    def _hear(self, child: Child) -> None:
        now = asyncio.get_running_loop().time()
        while (fields := notify.receive(self._ears[child])) is not None:
            self._crew.told(child, fields, now)

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one command, one answer. One that only connects wants to know that somebody is here."""
        try:
            line = await asyncio.wait_for(reader.readline(), ANSWER_LIMIT)
            answer = await self._obey(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError) as error:  # it went away, the line has no end, or none comes
            _log.debug("a command was given up: %s", error)
        finally:
            writer.close()

    async def _obey(self, line: bytes) -> dict[str, str]:
        crew = self._crew
        try:
            match command := json.loads(line):
                case {"do": "stop"}:
                    assert self._fail is not None, "the frame made it before it started"
                    self._fail(None)
                    return {}
                case {"do": "reload"}:
                    return await self._carry_out(crew.reload(), lambda: f"{self._counts('worker')} replaced")
                case {"do": "restart"}:
                    return await self._carry_out(crew.restart(), lambda: f"{self._counts()} replaced")
                case {"do": "scale", "to": [*words]}:
                    numbers = read_numbers(map(str, words))
                    return await self._carry_out(crew.scale(numbers), lambda: f"now {self._counts(*numbers)}")
        except ValueError:
            command = line
        except GatecrewError as error:
            return {"error": str(error)}
        return {"error": f"there is no command {command!r}"}

    async def _carry_out(self, operation: Operation, done: Callable[[], str]) -> dict[str, str]:
        self._turn()
        await self._until(lambda: operation.over)
        if operation.error:
            _log.error("%s failed: %s", operation.name, operation.error)
            return {"error": operation.error}
        text = done()
        _log.info("%s", text)
        return {"done": text}


def find(run_dir: Path) -> Running | None:
    """Return the supervisor that runs in this directory, if there is one."""
    try:
        with _connected(run_dir / SOCKET):
            said = json.loads((run_dir / RECORD).read_text())
            return Running(said.pop("pid"), Origin(**said))
    except (OSError, ValueError):
        return None


def stop(run_dir: Path) -> None:
    """Ask the supervisor that runs in this directory to stop, and wait until it is gone.

    Raises:
        GatecrewError: if there is none, or it does not answer.

    """
    ask(run_dir, "stop", limit=ANSWER_LIMIT)
    descriptor = os.open(run_dir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def ask(run_dir: Path, command: str, *to: str, limit: float | None) -> str:
    """Give a command to the supervisor that runs in this directory, and return what it says when it has carried it out.

    Args:
        run_dir: the directory.
        command: ``stop``, ``reload``, ``restart`` or ``scale``.
        to: for ``scale``: see :func:`gatecrew.common.crew.read_numbers`.
        limit: seconds to wait for the answer; None for as long as it takes.

    Raises:
        GatecrewError: if there is none, if it does not answer, or says what went wrong.

    """
    try:
        with _connected(run_dir / SOCKET) as sock, sock.makefile("rwb") as stream:
            sock.settimeout(limit)
            stream.write(json.dumps({"do": command, "to": to}).encode() + b"\n")
            stream.flush()
            line = stream.readline()
    except TimeoutError:
        found = find(run_dir)
        pid = found.pid if found else 0
        raise GatecrewError(f"process {pid} does not answer; kill -9 {pid} ends it and all that it runs") from None
    except OSError:
        raise GatecrewError(f"not running (there is no supervisor in {run_dir})") from None
    answer = json.loads(line or b'{"error": "it ended before it was done"}')
    if "error" in answer:
        raise GatecrewError(answer["error"])
    return str(answer.get("done", ""))


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(ANSWER_LIMIT)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _sweep(run_dir: Path) -> None:
    """Remove the sockets that killed processes left behind; those at which somebody listens stay."""
    for path in (*run_dir.glob("*.sock"), *run_dir.glob("*.notify")):
        try:
            _connected(path).close()
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:  # somebody is there, but is too busy, or hears datagrams
            _log.debug("%s is left as it is", path)


def _lock(run_dir: Path) -> None:
    """Lock the run directory until this process ends.

    Raises:
        GatecrewError: if somebody else has it.
    """
    descriptor = os.open(run_dir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        found = find(run_dir)
        raise GatecrewError(f"it runs already{f', as process {found.pid}' if found else ''}") from None
