"""Break a cluster under load, again and again, and see what its clients notice.

    python -m gatecrew.benchmarks.chaos [--only worker-kills,reloads] [--count 100] [--rate 5000] [--clients 200]

Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from random import Random
from time import monotonic

import uvloop

from .ledger import quantile
from .scenarios import SCENARIOS
from .stage import a_stage

HEAD = [
    "scenario",
    "faults",
    "sent",
    "per-s",
    "handled",
    "lost",
    "reordered",
    "repeated",
    "across",
    "p50",
    "p99",
    "max",
]


async def run(name: str, chosen: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Run one scenario, and return its row of the table and what else is to be said of it."""
    scenario = SCENARIOS[name]
    clients, count = chosen.clients or scenario.clients, chosen.count or scenario.count
    async with a_stage(
        clients,
        chosen.rate,
        count,
        Random(chosen.seed),
        proxied=scenario.proxied,
        supervised=scenario.supervised,
    ) as stage:
        await scenario.run(stage)
    failures = scenario.judge(stage)
    ledger = stage.load.ledger
    recoveries = (f"{quantile(ledger.recoveries, share):.2f} s" for share in (0.5, 0.99, 1))
    figures = [stage.faults, ledger.sent, ledger.sent / stage.load.seconds, ledger.handled, ledger.lost]
    figures += [ledger.reordered, ledger.repeated, ledger.repeated_across]
    row = [name, *(f"{figure:,.0f}" for figure in figures), *recoveries, "FAIL" if failures else "pass"]
    return row, [f"{name}: {line}" for line in (*stage.notes, *(f"FAIL: {failure}" for failure in failures))]


def table(rows: list[list[str]]) -> str:
    """Lay the rows out for people."""
    lines = [[*HEAD, ""], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def options() -> argparse.Namespace:
    """Read the command line."""
    about = "\n".join(f"  {name:15} {scenario.run.__doc__}" for name, scenario in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SCENARIOS), help="some of the scenarios, by commas")
    parser.add_argument("--count", type=int, help="faults in each; by default as many as its bar is for")
    parser.add_argument("--rate", type=int, default=5000, help="messages a second in all: %(default)s")
    parser.add_argument("--clients", type=int, help="clients that talk: 200, or what the scenario is for")
    parser.add_argument("--seed", type=int, default=1, help="of the choices: %(default)s")
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(",")
    if unknown := set(chosen.only) - SCENARIOS.keys():
        parser.error(f"--only: {', '.join(sorted(unknown))}: expected {', '.join(SCENARIOS)}")
    return chosen


def main() -> int:
    """Run the scenarios one after the other, and print what came of it."""
    chosen = options()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends what it started
    rows = []
    for name in chosen.only:
        start = monotonic()
        row, said = uvloop.run(run(name, chosen))
        print(f"{name}: {row[-1]} after {monotonic() - start:.0f} s", *said, sep="\n", file=sys.stderr, flush=True)
        rows.append(row)
    print(table(rows))
    return int(any(row[-1] == "FAIL" for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("chaos: interrupted")
