"""The supervisor, with small scripts in place of the roles."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import crew, notify, supervisor
from gatecrew.common.errors import ConfigError, GatecrewError
from gatecrew.common.supervisor import Origin, Program, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

# Begins each script. What it notes is read by the tests.
PRELUDE = """
import os, signal, socket, sys, time
def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{NAME} {text} {os.getpid()}\\n")
def leave(number, frame):
    note("leaves")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
"""
GOOD = """
note("is ready")
tell("READY=1\\nSTATUS=ws://127.0.0.1:7272")
while True:
    signal.pause()
"""
BAD = 'tell("STATUS=chat.py:3: SyntaxError"); sys.exit(1)'
ORIGIN = Origin(folder="/srv/chat", file="/srv/chat/gatecrew.toml", flags={"worker.processes": 4}, background=True)


class Notes:
    """What the scripts noted: lines of name, text and pid."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[str]:
        return [line.rpartition(" ")[0] for line in self.path.read_text().splitlines()]

    def pid(self, name: str) -> int:
        """Return the latest pid of the script with this name."""
        return [int(line.split()[-1]) for line in self.path.read_text().splitlines() if line.startswith(f"{name} ")][-1]

    async def until(self, true: Callable[[list[str]], bool]) -> list[str]:
        while not true(self.lines()):  # noqa: ASYNC110  # a file has no event
            await asyncio.sleep(0.01)
        return self.lines()


@pytest.fixture
def notes(run_dir: Path) -> Notes:
    return Notes(run_dir / "notes")


@pytest.fixture
def where(run_dir: Path) -> Path:
    """The run directory of the supervisor, with nothing else in it."""
    path = run_dir / "run"
    path.mkdir(mode=0o700)
    return path


Script = tuple[str, Program]  # with its name


def program(notes: Notes, name: str, script: str = GOOD) -> Script:
    code = f"NAME = {name!r}\n{PRELUDE}\n{script}"
    return name, Program([sys.executable, "-S", "-E", "-c", code], {"NOTES": str(notes.path)})


class Stage:
    """A supervisor in this process.

    Args:
        more: what runs when it is scaled up.
        most: how many of a role can run at once.
    """

    def __init__(
        self,
        where: Path,
        *scripts: Script,
        patience: float = 20.0,
        more: Sequence[Script] = (),
        most: Mapping[str, int] | None = None,
    ) -> None:
        self.said: list[str] = []
        self.failed: list[GatecrewError | None] = []
        places = [(name.partition("-")[0], name) for name, _ in scripts]
        programs = dict([*scripts, *more])
        self.supervisor = Supervisor(
            places,
            lambda _, name: programs[name],
            where,
            ORIGIN,
            patience=patience,
            announce=self.said.append,
            most=most,
        )
        self.service = self.supervisor.serve(self.failed.append)


@asynccontextmanager
async def started(where: Path, *scripts: Script, **options: Any) -> AsyncIterator[Stage]:
    stage = Stage(where, *scripts, **options)
    try:
        await stage.service.start()
        yield stage
    finally:
        stage.supervisor.kill()
        await stage.service.stop()


@contextmanager
def apart(where: Path, only: Script) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own, in the frame of all processes."""
    code = f"""
from pathlib import Path
from gatecrew.common import process
from gatecrew.common.config import ClusterConfig, Config
from gatecrew.common.supervisor import *
where = Path({str(where)!r})
program = lambda role, name: {only[1]!r}
origin = Origin("/", None, {{}}, False)
supervisor = Supervisor([("worker", "worker-1")], program, where, origin, patience=5.0, announce=lambda line: print(line, flush=True))
config = Config(cluster=ClusterConfig(run_dir=str(where)))
raise SystemExit(process.run(config, "supervisor", "supervisor", supervisor.serve, at_once=supervisor.kill))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready: 1 worker\n"
            yield process
        finally:
            process.kill()


def contents(where: Path, pattern: str = "*") -> list[Path]:
    return list(where.glob(pattern))


def touch(path: Path) -> None:
    path.touch()


def move(path: Path, target: Path) -> Path:
    return path.rename(target)


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() not in ("", "Z", "Zs")  # the dead need not be buried yet


async def test_all_are_started_and_stopped_in_order_and_nothing_is_left_behind(where: Path, notes: Notes) -> None:
    names = ["register-1", "gateway-1", "gateway-2", "worker-1"]
    stage = Stage(where, *(program(notes, name) for name in names))

    line = await stage.service.start()

    assert line == "ready: 1 register, 2 gateways, 1 worker; clients connect to ws://127.0.0.1:7272"
    assert stage.said == [line]
    assert sorted(notes.lines()) == sorted(f"{name} is ready" for name in names)
    await stage.service.stop()
    left = [line for line in notes.lines() if line.endswith("leaves")]
    assert sorted(left[:2]) == ["gateway-1 leaves", "gateway-2 leaves"]
    assert left[2:] == ["worker-1 leaves", "register-1 leaves"]
    assert not any(alive(notes.pid(name)) for name in names)
    assert contents(where) == []


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (BAD, GatecrewError, "worker-1: chat.py:3: SyntaxError"),
        ('tell("STATUS=no such key"); sys.exit(2)', ConfigError, "worker-1: no such key"),
        ("os.kill(os.getpid(), signal.SIGKILL)", GatecrewError, "worker-1 was killed by SIGKILL; its log may tell why"),
    ],
)
async def test_a_process_that_cannot_start_fails_the_start(
    where: Path, notes: Notes, script: str, error: type[GatecrewError], text: str
) -> None:
    stage = Stage(where, program(notes, "gateway-1"), program(notes, "worker-1", script))

    with pytest.raises(GatecrewError) as caught:
        await stage.service.start()

    assert (type(caught.value), str(caught.value)) == (error, text)
    await stage.service.stop()
    assert contents(where) == []


async def test_a_program_that_is_not_there_fails_the_start(where: Path) -> None:
    stage = Stage(where, ("worker-1", Program(["/nowhere/python"], {})))

    with pytest.raises(GatecrewError, match=r"worker-1: it cannot be started: .*nowhere"):
        await stage.service.start()

    await stage.service.stop()


async def test_what_is_killed_comes_back_and_is_told_how_often_it_did(
    where: Path, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    script = 'note(os.environ["GATECREW_RESTARTS"])\n' + GOOD
    async with started(where, program(notes, "worker-1", script)):
        os.kill(notes.pid("worker-1"), signal.SIGKILL)

        lines = await notes.until(lambda lines: len(lines) == 4)

    assert lines == ["worker-1 0", "worker-1 is ready", "worker-1 1", "worker-1 is ready"]
    assert "worker-1 was killed by SIGKILL; it starts again in 0." in caplog.text


async def test_what_cannot_be_started_again_is_tried_again(
    where: Path, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(where, program(notes, "worker-1")):
        away = move(where, where.with_name("away"))
        os.kill(notes.pid("worker-1"), signal.SIGKILL)
        while "it cannot be started" not in caplog.text:  # noqa: ASYNC110  # a log has no event
            await asyncio.sleep(0.01)

        move(away, where)

        await notes.until(lambda lines: lines == ["worker-1 is ready"] * 2)


async def test_what_hangs_is_killed_and_comes_back(
    where: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew, "HUNG_AFTER", 0.2)
    async with started(where, program(notes, "worker-1")):
        await notes.until(lambda lines: lines.count("worker-1 is ready") == 2)

    assert "worker-1 hung, without a sign of life for 0.2 s, and was killed; it starts again" in caplog.text


async def test_what_does_not_stop_in_time_is_killed(where: Path, notes: Notes) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: note('stays'))\n" + GOOD
    async with started(where, program(notes, "worker-1", script), patience=0.2) as stage:
        await stage.service.stop()

        assert notes.lines() == ["worker-1 is ready", "worker-1 stays"]
        assert not alive(notes.pid("worker-1"))


async def test_a_stop_right_at_the_start_leaves_nobody(where: Path, notes: Notes) -> None:
    stage = Stage(where, *(program(notes, f"worker-{number}") for number in (1, 2, 3)))
    start = asyncio.create_task(stage.service.start())
    while not contents(where, "*.notify"):  # noqa: ASYNC110  # a folder has no event
        await asyncio.sleep(0)

    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await stage.service.stop()

    assert contents(where) == []


async def test_a_second_signal_kills_all_at_once(where: Path, notes: Notes) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: note('stays'))\n" + GOOD
    with apart(where, program(notes, "worker-1", script)) as process:
        process.terminate()
        await notes.until(lambda lines: lines == ["worker-1 is ready", "worker-1 stays"])

        process.terminate()

        assert process.wait() == 1
        while alive(notes.pid("worker-1")):  # noqa: ASYNC110  # another process has no event
            await asyncio.sleep(0.01)


async def test_a_terminal_does_not_reach_the_children(where: Path, notes: Notes) -> None:
    async with started(where, program(notes, "worker-1")):
        assert os.getsid(notes.pid("worker-1")) != os.getsid(0)


async def test_standard_input_of_the_children_ends_with_the_supervisor(where: Path, notes: Notes) -> None:
    script = 'tell("READY=1")\nsys.stdin.read()\nnote("is alone")'
    with apart(where, program(notes, "worker-1", script)) as process:
        process.kill()

        await notes.until(lambda lines: lines == ["worker-1 is alone"])


async def test_a_run_directory_has_one_supervisor(where: Path, notes: Notes) -> None:
    async with started(where, program(notes, "worker-1")):
        second = Stage(where, program(notes, "worker-1"))

        with pytest.raises(GatecrewError, match=f"it runs already, as process {os.getpid()}"):
            await second.service.start()
        await second.service.stop()

        running = await asyncio.to_thread(supervisor.find, where)
        assert running == supervisor.Running(os.getpid(), ORIGIN)
        assert notes.lines() == ["worker-1 is ready"]
    assert supervisor.find(where) is None


async def test_what_a_killed_supervisor_left_behind_is_no_hindrance(where: Path, notes: Notes) -> None:
    (where / supervisor.RECORD).write_text("rubbish")
    for name in (supervisor.SOCKET, "gateway-1-abcdefgh.sock"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(where / name))
            left.listen()
    notify.listen(str(where / "worker-1-1.notify")).close()
    assert supervisor.find(where) is None

    async with started(where, program(notes, "worker-1")) as stage:
        assert stage.said == ["ready: 1 worker"]
    assert contents(where) == []


async def test_sockets_of_those_that_were_started_by_hand_stay(where: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gateway, notify.listen(str(where / "start-1.sock")):
        gateway.bind(str(where / "gateway-9.sock"))
        gateway.listen()

        async with started(where):
            pass

        assert sorted(path.name for path in contents(where)) == ["gateway-9.sock", "start-1.sock"]


async def test_pages_are_told_apart_from_where_clients_connect(where: Path, notes: Notes) -> None:
    script = 'tell("READY=1\\nSTATUS=ws://127.0.0.1:1 ws://127.0.0.1:2 http://127.0.0.1:1/ http://127.0.0.1:2/")\nsignal.pause()'
    async with started(where, program(notes, "gateway-1", script), program(notes, "gateway-2", script)) as stage:
        (line,) = stage.said

    clients, pages = "ws://127.0.0.1:1, ws://127.0.0.1:2", "http://127.0.0.1:1/, http://127.0.0.1:2/"
    assert line == f"ready: 2 gateways; clients connect to {clients}; pages at {pages}"


def test_stop_asks_the_supervisor_and_waits_until_it_is_gone(where: Path, notes: Notes) -> None:
    with apart(where, program(notes, "worker-1")) as process:
        supervisor.stop(where)

        assert process.wait() == 0
        assert notes.lines() == ["worker-1 is ready", "worker-1 leaves"]
        assert contents(where) == []


@pytest.mark.parametrize("command", ["stop", "reload"])
def test_without_a_supervisor_a_command_says_so(where: Path, command: str) -> None:
    with pytest.raises(GatecrewError, match=f"not running .there is no supervisor in {where}"):
        supervisor.ask(where, command, limit=1.0)


def test_a_supervisor_that_does_not_answer_is_named(where: Path) -> None:
    (where / supervisor.RECORD).write_text(
        json.dumps({"pid": 4711, "folder": "/", "file": None, "flags": {}, "background": False})
    )
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(where / supervisor.SOCKET))
        silent.listen()

        with pytest.raises(GatecrewError, match="process 4711 does not answer; kill -9 4711 ends it"):
            supervisor.ask(where, "stop", limit=0.01)


async def test_a_reload_replaces_the_workers_and_nothing_else(where: Path, notes: Notes) -> None:
    names = ["gateway-1", "worker-1", "worker-2"]
    async with started(where, *(program(notes, name) for name in names)):
        before = {name: notes.pid(name) for name in names}

        assert await asyncio.to_thread(supervisor.ask, where, "reload", limit=None) == "2 workers replaced"

        assert notes.lines()[3:] == ["worker-1 is ready", "worker-1 leaves", "worker-2 is ready", "worker-2 leaves"]
        assert notes.pid("gateway-1") == before["gateway-1"]
        assert not any(alive(before[name]) for name in ("worker-1", "worker-2"))


async def test_a_reload_that_fails_says_why_and_the_old_workers_go_on(where: Path, notes: Notes) -> None:
    once = f"if os.path.exists({str(where / 'second')!r}): {BAD}\nopen({str(where / 'second')!r}, 'w')\n"
    async with started(where, program(notes, "worker-1", once + GOOD)):
        pid = notes.pid("worker-1")

        with pytest.raises(GatecrewError, match=r"exit code 1: chat\.py:3: SyntaxError; the old ones go on"):
            await asyncio.to_thread(supervisor.ask, where, "reload", limit=None)

        assert alive(pid)
        assert notes.lines() == ["worker-1 is ready"]


async def test_a_stop_ends_a_reload_that_is_under_way(where: Path, notes: Notes) -> None:
    slow = f"if os.path.exists({str(where / 'second')!r}): note('is slow'); time.sleep(1000)\nopen({str(where / 'second')!r}, 'w')\n"
    async with started(where, program(notes, "worker-1", slow + GOOD)) as stage:
        reload = asyncio.create_task(asyncio.to_thread(supervisor.ask, where, "reload", limit=None))
        await notes.until(lambda lines: lines[-1] == "worker-1 is slow")
        with pytest.raises(GatecrewError, match="a reload is under way"):
            await asyncio.to_thread(supervisor.ask, where, "reload", limit=None)

        await stage.service.stop()

        with pytest.raises(GatecrewError, match="it is stopping"):
            await reload


async def test_a_rolling_restart_replaces_all_one_after_the_other(where: Path, notes: Notes) -> None:
    names = ["register-1", "gateway-1", "worker-1"]
    async with started(where, *(program(notes, name) for name in names), most={"register": 1}):
        before = {name: notes.pid(name) for name in names}

        done = await asyncio.to_thread(supervisor.ask, where, "restart", limit=None)

        assert done == "1 register, 1 gateway, 1 worker replaced"
        assert notes.lines()[3:] == [
            *("register-1 leaves", "register-1 is ready"),  # its address is its own
            *("gateway-1 is ready", "gateway-1 leaves"),
            *("worker-1 is ready", "worker-1 leaves"),
        ]
        assert not any(alive(pid) for pid in before.values())


async def test_a_running_cluster_is_scaled_up_and_down(where: Path, notes: Notes) -> None:
    more = [program(notes, name) for name in ("gateway-2", "worker-2", "worker-3")]
    async with started(where, program(notes, "gateway-1"), program(notes, "worker-1"), more=more) as stage:

        async def scale(*to: str) -> str:
            return await asyncio.to_thread(supervisor.ask, where, "scale", *to, limit=None)

        assert await scale("workers=3", "gateways=2") == "now 3 workers, 2 gateways"
        assert notes.lines()[2:] == ["worker-2 is ready", "worker-3 is ready", "gateway-2 is ready"]
        assert await scale("workers=1") == "now 1 worker"
        assert notes.lines()[5:] == ["worker-3 leaves", "worker-2 leaves"]
        assert await scale("gateways=2") == "now 2 gateways"

        await stage.service.stop()
        assert sorted(notes.lines()[7:9]) == ["gateway-1 leaves", "gateway-2 leaves"]
        assert notes.lines()[9:] == ["worker-1 leaves"]


@pytest.mark.parametrize("word", ["workers=0", "registers=2", ["workers"], 3])
async def test_what_is_no_scale_is_refused(where: Path, word: object) -> None:
    async with started(where):
        reader, writer = await asyncio.open_unix_connection(where / supervisor.SOCKET)
        writer.write(json.dumps({"do": "scale", "to": [word]}).encode() + b"\n")

        assert "error" in json.loads(await reader.readline())
        writer.close()


async def test_while_one_operation_is_under_way_others_are_refused_and_what_dies_comes_back(
    where: Path, notes: Notes
) -> None:
    slow = f"note('is slow')\nwhile not os.path.exists({str(where / 'go')!r}): time.sleep(0.01)\n"
    more = [program(notes, "worker-2", slow + GOOD)]
    async with started(where, program(notes, "worker-1"), more=more):
        scale = asyncio.create_task(asyncio.to_thread(supervisor.ask, where, "scale", "workers=2", limit=None))
        await notes.until(lambda lines: lines[-1] == "worker-2 is slow")

        for command in (["reload"], ["restart"], ["scale", "workers=1"]):
            with pytest.raises(GatecrewError, match=r"^a change of scale is under way; try again when it is over$"):
                await asyncio.to_thread(supervisor.ask, where, *command, limit=None)
        os.kill(notes.pid("worker-1"), signal.SIGKILL)
        await notes.until(lambda lines: lines.count("worker-1 is ready") == 2)
        os.kill(notes.pid("worker-2"), signal.SIGKILL)

        with pytest.raises(GatecrewError, match=r"^worker-2 was killed by SIGKILL; the others go on$"):
            await scale
        assert alive(notes.pid("worker-1"))
        touch(where / "go")
        assert await asyncio.to_thread(supervisor.ask, where, "scale", "workers=2", limit=None) == "now 2 workers"


@pytest.mark.parametrize("line", [b"rubbish\n", b"[]\n", b'{"do": "dance"}\n', b"3\n", b"\xff\xfe\n"])
async def test_what_is_no_command_is_refused(where: Path, line: bytes) -> None:
    async with started(where) as stage:
        reader, writer = await asyncio.open_unix_connection(where / supervisor.SOCKET)
        writer.write(line)

        answer = json.loads(await reader.readline())

        assert "there is no command" in answer["error"]
        assert await reader.read() == b""
        assert stage.failed == []
        writer.close()


async def test_a_command_that_does_not_come_is_given_up(
    where: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connected and said nothing was waited for as long as it stayed."""
    monkeypatch.setattr(supervisor, "ANSWER_LIMIT", 0.05)
    async with started(where, program(notes, "worker-1", GOOD)):
        reader, writer = await asyncio.open_unix_connection(where / supervisor.SOCKET)
        assert await reader.read() == b""
        writer.close()


async def test_a_line_without_an_end_is_given_up(where: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gatecrew.supervisor")
    async with started(where):
        reader, writer = await asyncio.open_unix_connection(where / supervisor.SOCKET)
        writer.write(b"x" * 200_000)

        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert "a command was given up" in caplog.text
        writer.close()
