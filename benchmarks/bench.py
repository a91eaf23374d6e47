"""What the cluster costs, beside a server that does nothing else.

    python benchmarks/bench.py [--quick] [--only echo,cpu] [--against REV] [--json] [--check]

One gateway and one worker, load included, on this machine. All subjects are up at the same time and are loaded in turns,
in several short rounds; a ratio is the median of the ratios of the rounds, so that whatever else the machine does
meanwhile falls on both sides of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servers import HERE, ROOT, Bare, BenchError, Cluster, Server, worktree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servers import Subject

SIZE = 64  # bytes of a message
ECHO_CLIENTS, ECHO_DEPTH = 100, 1
FANOUT_CLIENTS, FANOUT_DEPTH = 1000, 4
RATE_CLIENTS = 100
LATENCY_RATE = 10_000  # messages a second
CPU_RATE = 20_000
IDLE_CLIENTS = 5000
TALK = 1.5  # seconds after its start at which the loader has connected, settled and warmed up
OURS, BARE = "cluster", "bare"


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach: at least ``limit`` of the bare server's, or at most ``limit`` by itself."""

    limit: float
    of_bare: bool = False

    def passed(self, value: float, ratio: float | None) -> bool:
        """Say whether a figure is good enough."""
        if self.of_bare:
            return ratio is not None and ratio >= self.limit
        return value <= self.limit

    def __str__(self) -> str:
        return f"ratio >= {self.limit}" if self.of_bare else f"<= {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    title: str
    unit: str
    bar: Bar | None = None


FIGURES = {
    "echo": Figure(f"echo, {ECHO_CLIENTS} clients x {ECHO_DEPTH}", "/s", Bar(0.7, of_bare=True)),
    "fanout": Figure(f"fan-out to {FANOUT_CLIENTS}", "/s", Bar(0.8, of_bare=True)),
    "p50": Figure(f"latency at {LATENCY_RATE:,}/s, p50", "ms"),
    "p99": Figure(f"latency at {LATENCY_RATE:,}/s, p99", "ms", Bar(1.0)),
    "cpu": Figure(f"CPU a message at {CPU_RATE:,}/s", "us"),
    "memory": Figure("memory a connection", "KiB", Bar(8.0)),
}


class Loader:
    """The compiled ``wsload``, and how long it measures."""

    def __init__(self, folder: str, seconds: float) -> None:
        self.seconds = seconds
        self.warnings: list[str] = []
        self._program = f"{folder}/wsload"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-o", self._program, HERE / "wsload.c"], check=True)

    def start(self, server: Server, mode: str, clients: int, depth: int, seconds: float) -> subprocess.Popen[str]:
        """Start to load a server."""
        command = [self._program, mode, str(server.port), str(clients), str(depth), str(seconds), str(SIZE)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(
        self, server: Server, mode: str, clients: int, depth: int, during: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Load a server and return what the loader prints. ``during`` is called when it has started."""
        process = self.start(server, mode, clients, depth, self.seconds)
        try:
            during()
            output, _ = process.communicate(timeout=self.seconds + 180)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise BenchError(f"wsload {mode} against {server.name} ended with {process.returncode}")
        result: dict[str, float] = json.loads(output)
        if result["open"] != clients:
            raise BenchError(f"wsload {mode}: {server.name} kept {result['open']} of {clients} connections")
        if mode == "rate" and result["received_per_s"] < 0.99 * depth:
            self.warnings.append(
                f"{server.name} answered {result['received_per_s']:,.0f} of {depth:,} messages a second"
            )
        return result


def measure_echo(server: Server, loader: Loader) -> dict[str, float]:
    """Every client has a message in flight."""
    return {"echo": loader.run(server, "echo", ECHO_CLIENTS, ECHO_DEPTH)["received_per_s"]}


def measure_fanout(server: Server, loader: Loader) -> dict[str, float]:
    """One client sends to all."""
    return {"fanout": loader.run(server, "broadcast", FANOUT_CLIENTS, FANOUT_DEPTH)["received_per_s"]}


def measure_latency(server: Server, loader: Loader) -> dict[str, float]:
    """Messages come at fixed times, whether or not those before are answered."""
    result = loader.run(server, "rate", RATE_CLIENTS, LATENCY_RATE)
    return {"p50": result["p50_ms"], "p99": result["p99_ms"]}


def measure_cpu(server: Server, loader: Loader) -> dict[str, float]:
    """User and system time of all processes of the server, by the kernel's accounts, over the measured window."""
    spent: list[float] = []

    def watch() -> None:
        time.sleep(TALK + 0.2)
        before, start = server.cpu_seconds(), time.monotonic()
        time.sleep(loader.seconds - 0.4)
        spent.append((server.cpu_seconds() - before) / (time.monotonic() - start))

    loader.run(server, "rate", RATE_CLIENTS, CPU_RATE, during=watch)
    return {"cpu": spent[0] / CPU_RATE * 1e6}


def measure_memory(server: Server, loader: Loader) -> dict[str, float]:
    """What idle connections add to the process that holds them; only right for a fresh one."""
    before, descriptors = server.memory(), server.descriptors()
    process = loader.start(server, "idle", IDLE_CLIENTS, 0, 60)
    try:
        deadline = time.monotonic() + 60
        while server.descriptors() < descriptors + IDLE_CLIENTS:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{server.name} does not take {IDLE_CLIENTS} connections (see ulimit -n)")
            time.sleep(0.1)
        time.sleep(1.5)  # for the last handshakes and what they cause
        return {"memory": (server.memory() - before) / IDLE_CLIENTS / 1024}
    finally:
        process.kill()
        process.wait()


MEASURES = {
    "echo": measure_echo,
    "fanout": measure_fanout,
    "latency": measure_latency,
    "cpu": measure_cpu,
    "memory": measure_memory,
}


def in_turns(
    measure: Callable[[Server, Loader], dict[str, float]], subjects: Sequence[Subject], loader: Loader, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Measure all subjects once a round, every other round in reverse; return figure -> subject -> one value a round."""
    values: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        servers = [stack.enter_context(subject.start()) for subject in subjects]
        for number in range(rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                for figure, value in measure(server, loader).items():
                    values.setdefault(figure, {}).setdefault(server.name, []).append(value)
    return values


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of the rounds."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def judge(name: str, values: dict[str, list[float]], other: str | None) -> dict[str, Any]:
    """Make one row: the medians, the ratios, and whether they reach the bar."""
    figure = FIGURES[name]
    medians = {subject: statistics.median(rounds) for subject, rounds in values.items()}
    of_bare = ratio(values[OURS], values[BARE])
    return {
        "name": name,
        "title": figure.title,
        "unit": figure.unit,
        "medians": medians,
        "ratio": of_bare,
        "against": ratio(values[OURS], values[other]) if other else None,
        "bar": str(figure.bar) if figure.bar else None,
        "passed": figure.bar.passed(medians[OURS], of_bare) if figure.bar else None,
        "rounds": values,
    }


def table(rows: Sequence[dict[str, Any]], other: str | None) -> str:
    """Lay the rows out for people."""
    lines = [["", OURS, BARE, "ratio", "bar", ""]]
    if other:
        lines[0] += [other, f"{OURS}/{other}"]
    for row in rows:
        shown = {subject: _number(value, row["unit"]) for subject, value in row["medians"].items()}
        mark = {True: "pass", False: "FAIL", None: ""}[row["passed"]]
        line = [row["title"], shown[OURS], shown[BARE], f"{row['ratio']:.2f}", row["bar"] or "", mark]
        lines.append(line + ([shown[other], f"{row['against']:.2f}"] if other else []))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if at in (0, 4, 5) else cell.rjust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}{unit}" if unit == "/s" else f"{value:.3f} {unit}" if unit == "ms" else f"{value:.1f} {unit}"


def machine() -> dict[str, Any]:
    """Say what the figures were had on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", default=",".join(MEASURES), help="some of them, by commas: %(default)s")
    parser.add_argument("--against", metavar="REV", help="measure an older commit, too, in the same rounds")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(",")
    if unknown := set(chosen.only) - set(MEASURES):
        parser.error(f"--only: {', '.join(sorted(unknown))}: expected {', '.join(MEASURES)}")
    return chosen


def main() -> int:
    """Measure, print, judge."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends what it started
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    rounds, seconds = (3, 1.0) if chosen.quick else (7, 2.0)
    about = machine()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        loader = Loader(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatecrew-")), seconds)
        subjects: list[Subject] = [Cluster(OURS, ROOT), Bare()]
        if chosen.against:
            subjects.append(stack.enter_context(worktree(chosen.against)))
        other = subjects[2].name if chosen.against else None
        for name in chosen.only:
            print(f"{name} ...", file=sys.stderr, flush=True)
            values = in_turns(MEASURES[name], subjects, loader, 1 if name == "memory" else rounds)
            rows += [judge(figure, of_figure, other) for figure, of_figure in values.items()]
    if chosen.json:
        print(json.dumps({"machine": about, "figures": rows, "warnings": loader.warnings}, indent=2))
    else:
        print(f"{about['cores']} cores, Python {about['python']}, load before {about['load_before']:.1f}")
        print(table(rows, other))
        print(*loader.warnings, sep="\n")
    return int(chosen.check and any(row["passed"] is False for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
