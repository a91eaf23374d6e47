"""Starting a whole cluster on this machine: from the command line's words to a supervisor that runs."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import background, config, notify, process
from .errors import ConfigError
from .security import prepare_run_dir
from .settings import ENV_PREFIX
from .supervisor import Origin, Program, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("gatecrew.supervisor")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started."""

    origin: Origin
    config: config.Config
    programs: list[Program]


def plan(origin: Origin) -> Plan:
    """Find out what is to be started; the current directory becomes the one that it is started from.

    Raises:
        ConfigError: if it cannot work.
    """
    try:
        os.chdir(origin.folder)
    except OSError as error:
        raise ConfigError(f"cannot go to {origin.folder}, from where it was started: {error.strerror}") from error
    file = Path(origin.file) if origin.file else None
    flags = dict(origin.flags)
    found = config.load(file, os.environ, flags)
    if origin.background and not found.log.file:
        flags["log.file"] = str(found.cluster.directory / "gatecrew.log")
        found = config.load(file, os.environ, flags)
    return Plan(origin, found, _programs(origin, found, flags))


def run(plan: Plan, echo: Callable[[str], None]) -> int:
    """Carry out a plan. In the foreground, return its exit code; in the background, return once all are ready.

    Args:
        plan: from :func:`plan`.
        echo: shows a line to whoever started it.

    Raises:
        GatecrewError: if it cannot start in the background.
    """
    settings = plan.config
    run_dir = settings.cluster.directory
    prepare_run_dir(run_dir)

    def supervise(announce: Callable[[str], None]) -> int:
        patience = process.patience(settings)
        supervisor = Supervisor(plan.programs, run_dir, plan.origin, patience=patience, announce=announce)
        return process.run(settings, "supervisor", "supervisor", supervisor.serve, at_once=supervisor.kill)

    if not plan.origin.background:
        # systemd, if it waits to be told, is told by the frame
        return supervise(_log.info if notify.VARIABLE in os.environ else echo)
    output = Path(settings.log.file)
    line = background.run(lambda: supervise(_log.info), run_dir=run_dir, output=output)
    echo(f"{line}; log: {output}")
    return 0


def _programs(origin: Origin, found: config.Config, flags: dict[str, object]) -> list[Program]:
    names = {
        "register": found.local_registers(),
        "gateway": [f"gateway-{number}" for number in range(1, found.gateway.processes + 1)],
        "worker": [f"worker-{number}" for number in range(1, found.worker.processes + 1)],
    }
    # -P: what lies in the current directory is for the application; it must not hide a module of Python
    command = [sys.executable, "-P", "-m", "gatecrew"]
    file = ["-c", origin.file] if origin.file else []
    variables = {f"{ENV_PREFIX}{name.replace('.', '_').upper()}": str(value) for name, value in flags.items()}
    return [
        Program(role, name, [*command, role, "--name", name, *file], variables)
        for role in names
        for name in names[role]
    ]
