"""Going into the background: the command returns once what it started is ready, or with the error of what failed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from . import notify
from .errors import ConfigError
from .exits import Exit, ending

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path


def run(body: Callable[[], int], *, run_dir: Path, output: Path) -> str:
    """Run a function in a process of its own, in the background; return what it says once it is ready.

    Args:
        body: returns the exit code; it tells READY or why it failed by :mod:`gatecrew.common.notify`.
        run_dir: where to listen for that.
        output: file for its standard output and error.

    Raises:
        GatecrewError: with why it failed.

    """
    path = run_dir / f"start-{os.getpid()}.sock"
    with contextlib.ExitStack() as stack:
        ear = stack.enter_context(notify.listen(str(path)))
        stack.callback(path.unlink, missing_ok=True)
        try:
            out = stack.enter_context(output.open("ab"))
        except OSError as error:
            raise ConfigError(f"[log] file: cannot open {output}: {error.strerror}") from error
        alive, held = os.pipe()  # not inherited by what it runs: it is closed when, and only when, the process ends
        pid = os.fork()
        if pid == 0:
            _become(body, str(path), out.fileno())
        os.close(held)
        stack.callback(os.close, alive)
        try:
            fields = _outcome(ear, alive)
        except BaseException:  # Ctrl-C: then it shall not run
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            raise
        if "READY" in fields:
            return fields["STATUS"]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = fields.get("STATUS") or f"it {ending(code)}; see {output}"
        raise (Exit.USAGE if code == Exit.USAGE else Exit.FAILED).error(text)


def _become(body: Callable[[], int], address: str, output: int) -> NoReturn:
    """Be the process in the background: a session of its own, without a terminal."""
    code = int(Exit.FAILED)
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ[notify.VARIABLE] = address
        code = body()
    except Exception:  # noqa: BLE001  # nobody above could tell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what the parent left open is not this process's to tidy up


def _outcome(ear: socket.socket, alive: int) -> dict[str, str]:
    """Wait until the process is ready or ends; return the last that it said of it."""
    said: dict[str, str] = {}
    while True:
        ended = alive in select.select([ear.fileno(), alive], [], [])[0]
        while (fields := notify.receive(ear)) is not None:
            said.update(fields)
        if ended or "READY" in said:
            return said
