"""Starting a whole cluster on this machine: from the command line's words to a supervisor that runs."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import background, config, notify, process
from .addresses import parse, parse_listen
from .errors import ConfigError
from .preflight import refuse_if_in_use
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
    places: list[tuple[str, str]]  #: role and name of each process
    program: Callable[[str, str], Program]  #: how to run one of them
    most: dict[str, int]  #: how many of a role can run at once


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
    return Plan(origin, found, _places(found), _programs(origin, flags), _most(found))


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

    def check() -> None:
        if settings.gateway.processes:
            for address in settings.gateway.listen:
                refuse_if_in_use(address)

    def supervise(announce: Callable[[str], None], **hooks: Callable[..., Any]) -> int:
        supervisor = Supervisor(
            plan.places,
            plan.program,
            run_dir,
            plan.origin,
            patience=process.patience(settings),
            announce=announce,
            check=check,
            most=plan.most,
        )
        return process.run(settings, "supervisor", "supervisor", supervisor.serve, at_once=supervisor.kill, **hooks)

    if plan.origin.background:
        output = Path(settings.log.file)
        # whoever started it complains
        line = background.run(lambda: supervise(_log.info, complain=lambda _: None), run_dir=run_dir, output=output)
        echo(f"{line}; log: {output}")
        return 0
    if notify.VARIABLE in os.environ:  # systemd, if it waits to be told, is told by the frame
        return supervise(_log.info)
    return supervise(echo, at_first=lambda: echo("stopping; Ctrl-C again kills at once"))


def _places(found: config.Config) -> list[tuple[str, str]]:
    return [
        *(("register", name) for name in found.local_registers()),
        *(("gateway", f"gateway-{number}") for number in range(1, found.gateway.processes + 1)),
        *(("worker", f"worker-{number}") for number in range(1, found.worker.processes + 1)),
    ]


def _programs(origin: Origin, flags: dict[str, object]) -> Callable[[str, str], Program]:
    # -P: what lies in the current directory is for the application; it must not hide a module of Python
    command = [sys.executable, "-P", "-m", "gatecrew"]
    file = ["-c", origin.file] if origin.file else []
    variables = {f"{ENV_PREFIX}{name.replace('.', '_').upper()}": str(value) for name, value in flags.items()}
    return lambda role, name: Program([*command, role, "--name", name, *file], variables)


def _most(found: config.Config) -> dict[str, int]:
    """Return the roles with addresses that no two processes can share, and how many of these there are.

    Where clients connect is none of them, but for unix sockets: gateways share ports.
    """
    most = {"register": len(found.local_registers())}
    if any(parse_listen(text).address is None for text in found.gateway.listen):
        most["gateway"] = 1
    if found.gateway.link != config.IPC:
        link = parse(found.gateway.link, "tcp", ports=True)
        if link.first:  # port 0 stands for as many as are needed
            most["gateway"] = min(link.last - link.first + 1, most.get("gateway", sys.maxsize))
    return most
