"""Examples, each run as its README says: by a real cluster."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Running:
    """A cluster that runs an example, on a port that it keeps when it is started again.

    Args:
        folder: for its sockets and logs; the path must be short.
        arguments: for ``gatecrew start``.
        cwd: the example's folder.
        env: variables on top of those of the test.
    """

    def __init__(self, folder: Path, arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.env = {
            **os.environ,
            "GATECREW_CLUSTER_RUN_DIR": str(folder / "run"),
            "GATECREW_GATEWAY_LISTEN": f"ws://127.0.0.1:{self.port}",
            **env,
        }
        self._arguments = arguments
        self._cwd = cwd
        self._log = folder / "log"
        self._process: subprocess.Popen[str] | None = None

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it unless it runs, and return when it is ready."""
        if self._process is not None:
            return
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gatecrew", "start", *self._arguments],
                cwd=self._cwd,
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready"), line + self._log.read_text()

    def stop(self) -> None:
        """Stop it gracefully, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                assert process.wait(30) == 0, self._log.read_text()
            finally:
                process.kill()
                process.communicate()

    def kill(self, role: str) -> None:
        """Kill all processes of a role; their supervisor starts others."""
        said = subprocess.run(
            [sys.executable, "-P", "-m", "gatecrew", "status", "--json"],
            cwd=self._cwd,
            env=self.env,
            stdout=subprocess.PIPE,
            check=True,
        )
        pids = [member["pid"] for member in json.loads(said.stdout) if member["role"] == role]
        assert pids, f"there is no {role}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def connect(self, query: str = "") -> contextlib.AbstractContextManager[ClientConnection]:
        return connect(f"ws://127.0.0.1:{self.port}/{query}", open_timeout=10)


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Return a function that starts an example: its folder, arguments of ``gatecrew start``, variables."""
    with contextlib.ExitStack() as stack:

        def run(example: str, *arguments: str, **env: str) -> Running:
            folder = Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp"))
            stack.callback(shutil.rmtree, folder)
            running = Running(folder, list(arguments), EXAMPLES / example, env)
            stack.callback(running.stop)
            running.start()
            return running

        yield run
