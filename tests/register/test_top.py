from __future__ import annotations

from typing import Any

from gatecrew.register.top import Top, fitted

STARTED = 1000.0


def member(name: str, **stats: Any) -> dict[str, Any]:
    return {
        "role": name.partition("-")[0],
        "name": name,
        "key": f"key of {name}",
        "age": 0.5,
        "started": STARTED,
        **stats,
    }


def test_the_whole_cluster_and_each_process_are_shown() -> None:
    worker = member("worker-1", events_per_second=9.0, queue=3, errors=2, memory=2**20, connections=1)
    gateways = [member(f"gateway-{n}", connections=10, events_per_second=4.6, queue=0) for n in (2, 1)]
    summary, head, *rows = Top().lines([worker, *gateways, member("register-1")], STARTED + 90)

    assert summary.split("  ")[1:] == ["2 gateways, 1 register, 1 worker", "20 clients", "9 events/s"]
    assert head.split()[-2:] == ["CPU", "ERRORS"]
    assert [row.split()[1] for row in rows] == ["gateway-1", "gateway-2", "register-1", "worker-1"]
    assert rows[3].split()[-1] == "2"


def test_the_share_of_a_processor_is_that_since_the_last_look() -> None:
    top = Top()

    def share(cpu: float, seconds: float) -> str:
        return top.lines([member("worker-1", cpu=cpu)], STARTED + 0.5 + seconds)[2].split()[-2]

    assert share(cpu=5, seconds=10) == "50%"
    assert share(cpu=5.5, seconds=12) == "25%"
    assert share(cpu=5.5, seconds=12) == "-"  # it has said nothing since
    assert share(cpu=7.5, seconds=14) == "100%"


def test_what_does_not_fit_the_terminal_is_counted() -> None:
    lines = [f"{n}" * 30 for n in range(9)]

    assert fitted(lines, 10, 4) == ["0" * 10, "1" * 10, "2" * 10, "... and 6 more"[:10]]
    assert fitted(lines, 80, 9) == lines
