"""Going into the background, in processes of their own: forking the test runner would be bad manners."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from gatecrew.common import background
from gatecrew.common.errors import GatecrewError
from gatecrew.common.exits import Exit
from gatecrew.common.notify import Notifier

run_dir = Path({run_dir!r})

def body():
    tell = Notifier(os.environ["NOTIFY_SOCKET"]).send
    (run_dir / "pid").write_text(str(os.getpid()))
    {body}

try:
    print(background.run(body, run_dir=run_dir, output=run_dir / "out"))
except GatecrewError as error:
    print("failed:", error)
    sys.exit(Exit.of(error))
"""


@pytest.fixture
def where(run_dir: Path) -> Path:
    return run_dir


def run(where: Path, body: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(run_dir=str(where), body=body)
    # its streams are pipes: if the process in the background held one of them, this would wait for it
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def test_it_returns_once_what_it_started_is_ready(where: Path) -> None:
    ended = run(where, "tell(READY='1', STATUS='up'); print('hello', flush=True); time.sleep(1000)")
    pid = int((where / "pid").read_text())
    try:
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "up\n", "")
        assert os.getsid(pid) == pid  # a terminal that closes does not end it
        assert not list(where.glob("*.sock"))
    finally:
        os.kill(pid, 9)


def test_what_it_prints_goes_to_the_file(where: Path) -> None:
    (where / "out").write_text("before\n")

    ended = run(where, "print('hello'); print('oops', file=sys.stderr); return 1")

    assert (ended.returncode, ended.stdout) == (1, f"failed: it ended with exit code 1; see {where / 'out'}\n")
    assert (where / "out").read_text() == "before\nhello\noops\n"


@pytest.mark.parametrize("code", [1, 2])
def test_its_last_words_and_its_exit_code_are_those_of_the_command(where: Path, code: int) -> None:
    ended = run(where, f"tell(STATUS='port 7272 is in use'); return {code}")

    assert (ended.returncode, ended.stdout) == (code, "failed: port 7272 is in use\n")


def test_one_that_is_killed_before_it_is_ready_has_failed(where: Path) -> None:
    ended = run(where, "os.kill(os.getpid(), signal.SIGKILL)")

    assert (ended.returncode, ended.stdout) == (1, f"failed: it was killed by SIGKILL; see {where / 'out'}\n")


def test_an_unexpected_error_is_in_the_file(where: Path) -> None:
    ended = run(where, "1 / 0")

    assert ended.returncode == 1
    assert "ZeroDivisionError" in (where / "out").read_text()


def test_a_file_that_cannot_be_opened_is_an_error_of_the_configuration(where: Path) -> None:
    (where / "out").mkdir()

    ended = run(where, "return 0")

    assert (ended.returncode, ended.stdout) == (2, f"failed: [log] file: cannot open {where / 'out'}: Is a directory\n")


def test_a_command_that_is_interrupted_takes_what_it_started_with_it(where: Path) -> None:
    ended = run(where, "os.kill(os.getppid(), signal.SIGINT); time.sleep(1000)")

    assert "KeyboardInterrupt" in ended.stderr
    with suppress(ProcessLookupError):
        os.kill(int((where / "pid").read_text()), 0)
        pytest.fail("it still runs")
