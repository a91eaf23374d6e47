"""The command line: parses, loads the configuration, and calls what does the work."""

# ruff: noqa: PLC0415  # each command imports what it needs, so that none waits for the others

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .common.errors import GatecrewError
from .common.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .common.config import Config
    from .common.supervisor import Origin

DEFAULT_FILE = "gatecrew.toml"


class _Group(click.Group):
    """Commands that are listed as they stand here, and whose errors are one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except GatecrewError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(Exit.of(error))


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: gatecrew start chat:app",
)
@click.version_option(__version__, message="gatecrew %(version)s")
def main() -> None:
    """Run a real-time gateway cluster: gateways hold the sockets, stateless workers run your handlers."""


_file = click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help=f"Configuration file; ./{DEFAULT_FILE} if there is one.",
)
_app = click.argument("app", required=False)


def _options_of_start(command: Callable[..., None]) -> Callable[..., None]:
    """Add what start and restart have in common."""
    command = _app(command)
    command = click.option("--workers", type=int, metavar="N", help="Number of workers.")(command)
    command = click.option("--gateways", type=int, metavar="N", help="Number of gateways.")(command)
    command = _file(command)
    return click.option("-d", "--daemon", is_flag=True, help="Return when all are ready; they run in the background.")(
        command
    )


@main.command(epilog="Example: gatecrew init chat")
@click.argument("folder", type=click.Path(path_type=Path), metavar="NAME")
def init(folder: Path) -> None:
    """Make a new project: an application with its configuration, its page and its test.

    NAME is its folder, which must be new or empty.
    """
    from .common import scaffold

    for file in scaffold.make(folder):
        click.echo(f"{file.relative_to(folder.absolute().parent)}")
    click.echo(f"cd {folder} && gatecrew start")


@main.command(epilog="Example: gatecrew start -d --workers 4 chat:app")
@_options_of_start
def start(daemon: bool, file: Path | None, gateways: int | None, workers: int | None, app: str | None) -> None:
    """Run a cluster on this machine: registers, gateways and workers.

    APP is the application as module:attribute, looked for in the folder of the configuration file, or else in the current
    one. What dies is started again. Ctrl-C stops all in order, a second Ctrl-C at once.
    """
    from .common import launch

    sys.exit(launch.run(launch.plan(_origin(daemon, file, gateways, workers, app)), click.echo))


@main.command(epilog="Example: gatecrew stop -c chat.toml")
@_file
def stop(file: Path | None) -> None:
    """Stop the cluster on this machine, and wait until it is gone."""
    from .common import supervisor

    supervisor.stop(_load(_found(file)).cluster.directory)
    click.echo("stopped")


@main.command(epilog="Example: gatecrew restart --workers 8")
@_options_of_start
@click.option("--rolling", is_flag=True, help="Replace the processes one after the other; nothing is lost.")
def restart(
    *, rolling: bool, daemon: bool, file: Path | None, gateways: int | None, workers: int | None, app: str | None
) -> None:
    """Stop the cluster on this machine, and start it again.

    What is not given is as it was when it was started. If none runs, this is the same as start.
    """
    from .common import launch, supervisor

    if rolling:
        if daemon or gateways is not None or workers is not None or app is not None:
            raise click.UsageError("--rolling goes with -c only: the cluster stays what it is; scale changes its size")
        click.echo(supervisor.ask(_load(_found(file)).cluster.directory, "restart", limit=None))
        return
    origin = _origin(daemon, file, gateways, workers, app)
    run_dir = _load(_found(file)).cluster.directory
    running = supervisor.find(run_dir)
    plan = launch.plan(running.origin.changed(origin) if running else origin)  # what is wrong is said before all stops
    if running:
        supervisor.stop(run_dir)
    sys.exit(launch.run(plan, click.echo))


@main.command(epilog="Example: gatecrew reload")
@_file
def reload(file: Path | None) -> None:
    """Run the handlers as they are on disk now: replace the workers, one after the other.

    Clients stay connected and lose nothing. If a new worker fails, that is said, and the old ones go on.
    """
    from .common import supervisor

    click.echo(supervisor.ask(_load(_found(file)).cluster.directory, "reload", limit=None))


@main.command(epilog="Example: gatecrew scale gateways=4 workers=8")
@_file
@click.argument("numbers", nargs=-1, required=True, metavar="ROLE=N...")
def scale(file: Path | None, numbers: tuple[str, ...]) -> None:
    """Change how many processes run: gateways=N, workers=N, or both.

    What is too much finishes what it has, and leaves. A restart goes back to the configuration.
    """
    from .common import crew, supervisor

    crew.read_numbers(numbers)
    click.echo(supervisor.ask(_load(_found(file)).cluster.directory, "scale", *numbers, limit=None))


@main.command(epilog="Example: gatecrew status --json")
@_file
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of maps.")
def status(file: Path | None, as_json: bool) -> None:
    """Show all processes of the cluster, those on other machines too."""
    from .register import status as register_status

    members = register_status.ask(_load(_found(file)))
    if as_json:
        click.echo(json.dumps(members, indent=2))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in register_status.table(members, time.time()):
        click.echo(line[:width])


@main.command(epilog="Example: gatecrew top --every 5")
@_file
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Leave after so many looks.")
def top(file: Path | None, every: float, count: int | None) -> None:
    """Show all processes of the cluster, live, on the whole screen; q or Ctrl-C leaves.

    If standard output is no terminal, the tables come one below the other.
    """
    from .register import top as register_top

    register_top.run(_load(_found(file)), every, count)


@main.command(epilog="Example: gatecrew doctor --timeout 2")
@_file
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds that all may take to answer.",
)
def doctor(file: Path | None, as_json: bool, timeout: float) -> None:
    """See whether events get through between each gateway and each worker, and how fast.

    Shows milliseconds from the gateway to the worker and back. No handler sees anything of it. It fails if a pair does not answer,
    if a register cannot be reached, and if there is no gateway or no worker.
    """
    from .business.doctor import examine

    findings = examine(_load(_found(file)), timeout)
    for line in [json.dumps(findings.for_programs(), indent=2)] if as_json else findings.table():
        click.echo(line)
    if not findings.whole:
        raise GatecrewError("; ".join(findings.problems))


@main.command(epilog="Example: gatecrew check -c /srv/chat/gatecrew.toml")
@_file
@_app
def check(file: Path | None, app: str | None) -> None:
    """See whether a configuration would work on this machine, without starting anything.

    Looks at addresses, files, keys, limits, the application and its databases; a line for each, and exit code 1 if one would not
    work. APP is as for start.
    """
    from itertools import chain

    from .business import preflight as of_workers
    from .common import preflight
    from .gateway import preflight as of_gateways

    config = _load(_found(file), {"worker.app": app})
    lists = chain(preflight.checks(config), of_gateways.checks(config), of_workers.checks(config))
    whole = True
    for good, line in preflight.report(lists):
        click.echo(line)
        whole &= good
    if not whole:
        sys.exit(Exit.FAILED)


@main.command(epilog="Example: gatecrew send --group lobby 'Back in five minutes'")
@_file
@click.option("--all", "to_all", is_flag=True, help="Send to all clients.")
@click.option("--client", metavar="ID", help="Send to this client.")
@click.option("--uid", help="Send to the clients of this uid.")
@click.option("--group", metavar="NAME", help="Send to the clients in this group.")
@click.option("--binary", is_flag=True, help="Send a binary message.")
@click.argument("text")
def send(
    *, file: Path | None, to_all: bool, client: str | None, uid: str | None, group: str | None, binary: bool, text: str
) -> None:
    """Send a message to clients.

    TEXT is the message; - takes it from standard input, as it is. Returns when the gateways have it.
    """
    from .business.blocking import BlockingCluster

    if sum((to_all, client is not None, uid is not None, group is not None)) != 1:
        raise click.UsageError("give one of --all, --client, --uid and --group")
    raw = sys.stdin.buffer.read() if text == "-" else text.encode()
    data = raw if binary else _decoded(raw)
    with BlockingCluster(_found(file)) as cluster:
        if client is not None:
            cluster.send_to_client(client, data)
        elif uid is not None:
            cluster.send_to_uid(uid, data)
        elif group is not None:
            cluster.send_to_group(group, data)
        else:
            cluster.send_to_all(data)


@main.command(epilog="Example: gatecrew kick --uid 42 --reason 'Not in this lobby'")
@_file
@click.option("--client", default="", metavar="ID", help="Close this client.")
@click.option("--uid", default="", help="Close the clients of this uid.")
@click.option("--reason", default="kicked", show_default=True, help="What the client is told.")
def kick(file: Path | None, client: str, uid: str, reason: str) -> None:
    """Close a client, or all clients of a uid, with close code 1008."""
    from .business import lookup

    if bool(client) == bool(uid):
        raise click.UsageError("give one of --client and --uid")
    kicked = lookup.kick(_load(_found(file)), client=client, uid=uid, reason=reason)
    if not kicked:
        raise GatecrewError(f"there is no client {client}" if client else f"no client has the uid {uid}")
    click.echo(f"closed: {kicked}")


@main.command(epilog="Example: gatecrew connections --group lobby --sort queue --limit 10")
@_file
@click.option("--gateway", default="", metavar="NAME", help="Only those of this gateway.")
@click.option("--uid", default="", help="Only those of this uid.")
@click.option("--group", default="", metavar="NAME", help="Only those in this group.")
@click.option("--address", default="", help="Only those from this address.")
@click.option(
    "--sort",
    type=click.Choice(["age", "traffic", "queue"]),
    default="age",
    show_default=True,
    help="What comes first: the oldest, those with the most events, those for which the most waits.",
)
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="So many.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def connections(  # noqa: PLR0917  # options
    file: Path | None, gateway: str, uid: str, group: str, address: str, sort: str, limit: int, as_json: bool
) -> None:
    """Show clients of the whole cluster."""
    from .business import lookup

    found = lookup.connections(
        _load(_found(file)), gateway=gateway, uid=uid, group=group, address=address, sort=sort, limit=limit
    )
    if as_json:
        click.echo(json.dumps({"total": found.total, "connections": found.rows, "missing": found.missing}, indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in lookup.table(found):
            click.echo(line[:width])
        if found.total > len(found.rows):
            click.echo(f"and {found.total - len(found.rows)} more")
    _complain_of(found.missing)


@main.command(epilog="Example: gatecrew why --uid 42 --last 10m")
@_file
@click.option("--client", default="", metavar="ID", help="Only what was for this client.")
@click.option("--uid", default="", help="Only what was for this uid.")
@click.option("--group", default="", metavar="NAME", help="Only what was for this group, or for clients in it.")
@click.option(
    "--last", default="10m", show_default=True, metavar="TIME", help="How far to look back: 30s, 10m, 2h, 1d."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def why(file: Path | None, client: str, uid: str, group: str, last: str, as_json: bool) -> None:  # noqa: PLR0917  # options
    """Say why something did not reach a client: what was discarded, closed or failed lately, a line each.

    The gateways remember the latest 200 of each reason.
    """
    from .business import lookup

    found = lookup.why(_load(_found(file)), seconds=_seconds(last), client=client, uid=uid, group=group)
    if as_json:
        click.echo(json.dumps([one._asdict() for one in found.discards], indent=2))
    else:
        for one in found.discards:
            click.echo(lookup.line(one))
        if not found.discards:
            click.echo(f"nothing was discarded in the last {last}")
        if found.absent:
            click.echo(found.absent)
    _complain_of(found.missing)


def _seconds(text: str) -> float:
    """Return how many seconds 30s, 10m, 2h or 1d are."""
    number, unit = text[:-1], text[-1:]
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if unit not in units or not number.isdecimal() or len(number) > 9:
        raise click.UsageError(f"--last: found {text}, expected a number and s, m, h or d, as in 10m")
    return float(int(number) * units[unit])


def _complain_of(missing: tuple[str, ...]) -> None:
    if missing:
        raise GatecrewError(f"no answer from {', '.join(missing)}")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise click.UsageError("the message is not UTF-8; --binary sends it as it is") from None


@main.command(epilog="Example: gatecrew register --name register-1")
@_file
@click.option("--name", default="register-1", show_default=True, help="Which of [cluster] registers.")
def register(file: Path | None, name: str) -> None:
    """Run one register in the foreground."""
    from .register import server

    sys.exit(server.run(_load(_found(file)), name))


@main.command(epilog="Example: gatecrew gateway --name gateway-1")
@_file
@click.option("--name", default="gateway-1", show_default=True, help="Name of the process.")
def gateway(file: Path | None, name: str) -> None:
    """Run one gateway in the foreground."""
    from .gateway import server

    sys.exit(server.run(_load(_found(file)), name))


@main.command(epilog="Example: gatecrew worker --name worker-1 chat:app")
@_file
@click.option("--name", default="worker-1", show_default=True, help="Name of the process.")
@_app
def worker(file: Path | None, name: str, app: str | None) -> None:
    """Run one worker in the foreground.

    APP is the application as module:attribute, looked for in the folder of the configuration file, or else in the current
    one.
    """
    from .business import worker as business_worker

    sys.exit(business_worker.run(_load(_found(file), {"worker.app": app}), name))


@main.command(epilog="Example: gatecrew keys 10.0.0.1 10.0.0.2")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder for the files; the current one if not given.",
)
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
def keys(folder: Path, hosts: tuple[str, ...]) -> None:
    """Make the keys with which machines prove to each other that they take part.

    HOST is a machine, as its address stands in the configuration. Writes HOST.key, which is secret, for each, and adds their public
    keys to the list "keys".
    """
    from .common import curve

    for file in curve.make(folder, hosts):
        click.echo(f"{file}: secret; goes to {file.stem} alone, which names it in [cluster] key")
    click.echo(f"{folder / curve.LIST}: public; goes to all machines, which name it in [cluster] keys")


@main.command(epilog="Example: gatecrew version")
def version() -> None:
    """Show the version."""
    click.echo(f"gatecrew {__version__}")


def _found(file: Path | None) -> Path | None:
    """Return the configuration file, absolute."""
    if file is None and Path(DEFAULT_FILE).exists():
        file = Path(DEFAULT_FILE)
    return file and file.absolute()


def _load(file: Path | None, flags: Mapping[str, object] | None = None) -> Config:
    from .common import config

    return config.load(file, os.environ, flags or {})


def _origin(daemon: bool, file: Path | None, gateways: int | None, workers: int | None, app: str | None) -> Origin:
    from .common.supervisor import Origin

    flags = {"gateway.processes": gateways, "worker.processes": workers, "worker.app": app}
    given = {name: value for name, value in flags.items() if value is not None}
    found = _found(file)
    return Origin(str(Path.cwd()), str(found) if found else None, given, daemon)
