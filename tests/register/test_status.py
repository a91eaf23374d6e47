"""The table of ``gatecrew status``; that it is asked for is tested with the command line."""

from __future__ import annotations

import pytest
from gatecrew.common.config import ClusterConfig, Config
from gatecrew.common.errors import GatecrewError
from gatecrew.register import status

NOW = 1_800_000_000.0


def test_the_table_has_words_on_the_left_and_figures_on_the_right() -> None:
    members = [
        {
            "role": "gateway",
            "name": "gateway-1",
            "pid": 71,
            "started": NOW - 75,
            "memory": 31_457_280,
            "connections": 12_000,
            "events_per_second": 999.6,
            "queue": 0,
            "restarts": 0,
        },
        {"role": "worker", "name": "worker-1", "pid": 4711, "started": NOW - 5, "memory": 0, "queue": 7, "restarts": 2},
    ]

    assert status.table(members, NOW) == [
        "ROLE     NAME        PID  UPTIME    MEMORY  CONNECTIONS  EVENTS/S  QUEUE  RESTARTS",
        "gateway  gateway-1    71  1m 15s  30.0 MiB        12000      1000      0         0",
        "worker   worker-1   4711      5s   0.0 MiB            -         -      7         2",
    ]


def test_a_member_that_said_no_figures_is_there_all_the_same() -> None:
    assert status.table([{"role": "worker", "name": "worker-1"}], NOW)[1].split() == ["worker", "worker-1", *"-------"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (3599, "59m 59s"),
        (3600, "1h 0m"),
        (86399, "23h 59m"),
        (86400, "1d 0h"),
        (90_000_000, "1041d 16h"),
    ],
)
def test_an_uptime_has_the_two_largest_units(seconds: float, text: str) -> None:
    line = status.table([{"role": "worker", "name": "worker-1", "started": NOW - seconds}], NOW)[1]

    assert " ".join(line.split()[3:-5]) == text


def test_without_a_register_that_is_said(run_dir: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "ANSWER_LIMIT", 0.05)

    with pytest.raises(GatecrewError, match=f"not running: no register answers at ipc://{run_dir}/register"):
        status.ask(Config(cluster=ClusterConfig(run_dir=str(run_dir))))
