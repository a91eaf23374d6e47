"""What an operator sees of a running cluster: ``connections``, ``kick``, ``why``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from gatecrew import cli
from prometheus_client.parser import text_string_to_metric_families

from .crew import PATIENCE, Crew, until

if TYPE_CHECKING:
    from .crew import Guest


def gatecrew(crew: Crew, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, env=crew.variables())


def connections(crew: Crew, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the rows of clients, by id, in their order."""
    found = json.loads(gatecrew(crew, "connections", "--json", *arguments).stdout)
    return {row["client"]: row for row in found["connections"]}


def why(crew: Crew, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gatecrew(crew, "why", "--json", *arguments).stdout)
    return found


def test_clients_of_all_gateways_are_shown(crew: Crew, ann: Guest, bob: Guest) -> None:
    ann.do("bind_uid", ann.id, "u-ann")
    ann.do("join_group", ann.id, "g-seen")
    rows = connections(crew)

    assert rows.keys() == {ann.id, bob.id}
    assert (rows[ann.id]["gateway"], rows[ann.id]["worker"]) == ("gateway-1", "worker-1")
    assert (rows[bob.id]["gateway"], rows[bob.id]["worker"]) == ("gateway-2", "worker-2")
    assert (rows[ann.id]["uid"], rows[ann.id]["groups"]) == ("u-ann", ["g-seen"])
    assert rows[ann.id]["remote"] == ann.call("about")["remote"]
    assert rows[ann.id]["events"] > rows[bob.id]["events"] >= 1
    text = gatecrew(crew, "connections").stdout.splitlines()
    assert text[0].split() == [
        "CLIENT",
        "GATEWAY",
        "WORKER",
        "UID",
        "REMOTE",
        "AGE",
        "EVENTS",
        "QUEUE",
        "UNSENT",
        "GROUPS",
    ]
    assert len(text) == 3


def test_clients_are_filtered_sorted_and_limited(crew: Crew, ann: Guest, bob: Guest, cyd: Guest) -> None:
    ann.do("bind_uid", ann.id, "u-ann")
    ann.do("join_group", bob.id, "g-seen")
    address, _, port = cyd.call("about")["remote"].rpartition(":")

    assert connections(crew, "--uid", "u-ann").keys() == {ann.id}
    assert connections(crew, "--group", "g-seen").keys() == {bob.id}
    assert connections(crew, "--gateway", "gateway-1").keys() == {ann.id, cyd.id}
    assert connections(crew, "--address", f"{address}:{port}").keys() == {cyd.id}
    assert connections(crew, "--address", address).keys() == {ann.id, bob.id, cyd.id}
    assert next(iter(connections(crew, "--sort", "traffic"))) == ann.id
    ages = [row["age"] for row in connections(crew, "--sort", "age").values()]
    assert ages == sorted(ages, reverse=True)
    assert gatecrew(crew, "connections", "--limit", "1").stdout.splitlines()[-1] == "and 2 more"
    missed = gatecrew(crew, "connections", "--gateway", "gateway-9")
    assert (missed.exit_code, missed.stderr) == (1, "Error: there is no gateway gateway-9\n")


def test_a_client_is_kicked_and_it_is_told_why(crew: Crew, ann: Guest, bob: Guest) -> None:
    ann.do("bind_uid", bob.id, "u-bob")

    assert gatecrew(crew, "kick", "--client", ann.id).stdout == "closed: 1\n"
    assert gatecrew(crew, "kick", "--uid", "u-bob", "--reason", "out of here").stdout == "closed: 1\n"
    assert ann.closed() == (1008, "kicked")
    assert bob.closed() == (1008, "out of here")
    assert [(one["process"], one["client"], one["reason"]) for one in why(crew, "--uid", "u-bob")] == [
        ("gateway-2", bob.id, "closed.command")
    ]
    missed = gatecrew(crew, "kick", "--uid", "u-bob")
    assert (missed.exit_code, missed.stderr) == (1, "Error: no client has the uid u-bob\n")
    assert gatecrew(crew, "kick").exit_code == 2


def test_why_tells_what_did_not_reach_a_client(crew: Crew, ann: Guest, gone: str) -> None:
    ann.do("bind_uid", ann.id, "u-why")
    ann.do("join_group", ann.id, "g-why")
    ann.do("send_to_client", gone, "too late")
    ann.send("nonsense", raises=True)

    assert [one["reason"] for one in why(crew, "--client", gone)] == ["closed.by_itself", "discarded.client_gone"]
    until(lambda: [one["reason"] for one in why(crew, "--uid", "u-why")] == ["handler.errors"])
    (failed,) = why(crew, "--client", ann.id)
    assert failed["process"] == "worker-1"
    assert ann.id in failed["note"]
    ann.leave()
    until(lambda: [one["reason"] for one in why(crew, "--group", "g-why")] == ["closed.by_itself"])
    assert "gateway-1 lost client" in gatecrew(crew, "why", "--group", "g-why", "--last", "1h").stdout
    nobody = gatecrew(crew, "why", "--uid", "nobody", "--last", "1h")
    assert nobody.stdout == "nothing was discarded in the last 1h\nno client has the uid nobody now\n"
    assert gatecrew(crew, "why", "--group", "g-why").stdout.endswith("no client is in the group g-why now\n")
    assert gatecrew(crew, "why", "--last", "ten").exit_code == 2


# Metrics


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(url: str) -> Counter[str]:
    """Return the sum of each metric over its labels."""
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(fetch(url)[1]):
        for sample in family.samples:
            sums[sample.name] += int(sample.value)
    return sums


def test_each_process_tells_what_it_does_and_whether_it_can_serve() -> None:
    with Crew(metrics_listen="http://127.0.0.1:0") as crew:
        crew.start("register-1", "gateway-1")
        until(lambda: "metrics" in crew.stats("gateway-1"))
        gateway = crew.stats("gateway-1")["metrics"]
        ready = gateway.replace("/metrics", "/readyz")
        assert fetch(ready) == (503, "no worker takes events\n")
        assert fetch(gateway.replace("/metrics", "/healthz")) == (200, "ok\n")
        crew.start("worker-1")
        until(lambda: fetch(ready)[0] == 200)
        guest = crew.connect()
        guest.call("about")
        guest.do("send_to_all", "hi")
        guest.send("nonsense", raises=True)
        guest.call("about")

        seen = metrics(gateway)
        assert (seen["gatecrew_connections"], seen["gatecrew_workers"], seen["gatecrew_links"]) == (1, 1, 1)
        assert seen["gatecrew_events_total"] == 6
        assert seen["gatecrew_commands_total"] >= 4
        assert seen["gatecrew_link_sent_bytes_total"] > seen["gatecrew_events_total"]
        assert seen["gatecrew_credit_events"] > 0
        worker = metrics(crew.stats("worker-1")["metrics"])
        assert worker["gatecrew_handler_seconds_count"] == worker["gatecrew_events_total"] == 6
        assert (worker["gatecrew_links"], worker["gatecrew_handler_errors_total"]) == (1, 1)
        assert metrics(crew.stats("register-1")["metrics"])["gatecrew_members"] == 2


# Top


def test_top_shows_the_cluster_one_look_below_the_other_if_there_is_no_terminal(crew: Crew) -> None:
    shown = gatecrew(crew, "top", "--count", "2", "--every", "0.1").stdout

    assert shown.count("2 gateways, 1 register, 2 workers") == 2
    assert "\x1b" not in shown


def test_top_takes_the_screen_until_q_is_pressed(crew: Crew) -> None:
    master, terminal = pty.openpty()
    try:
        ended = subprocess.Popen(
            [sys.executable, "-m", "gatecrew", "top"],
            env=crew.environment() | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        screen = b""
        while b"worker-2" not in screen:
            screen += os.read(master, 4096)
        os.write(master, b"q")
        assert ended.wait(PATIENCE) == 0
        while not screen.endswith(b"\x1b[?25h\x1b[?1049l"):
            screen += os.read(master, 4096)
    finally:
        os.close(master)
    assert screen.startswith(b"\x1b[?1049h\x1b[?25l")


# Logs


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_that_clients_say_is_seen_in_logs_or_by_commands(form: str) -> None:
    """With all that is logged at ``debug``, while clients come, fail, are kicked, and a gateway is killed."""
    marker = "Zb7QmarkerXw"
    with Crew(log_level="debug", log_format=form, metrics_listen="http://127.0.0.1:0") as crew:
        crew.start("register-1", "gateway-1", "gateway-2", "worker-1")
        headers = {"Authorization": f"Bearer {marker}", "Cookie": f"token={marker}"}
        ann = crew.connect("gateway-1", path=f"/?token={marker}", additional_headers=headers)
        bob = crew.connect("gateway-2")
        ann.call("set_session", ann.id, {marker: marker})
        ann.do("send_to_client", bob.id, marker)
        ann.send("nonsense", marker, raises=True)
        ann.connection.send(f"no call, but {marker}")
        ann.call("about")
        said = [
            gatecrew(crew, *command).output
            for command in (
                ("status", "--json"),
                ("connections", "--json"),
                ("top", "--count", "1"),
                ("kick", "--client", bob.id),
            )
        ]
        until(lambda: why(crew, "--client", bob.id))
        said += [
            gatecrew(crew, "why").output,
            *(fetch(crew.stats(name)["metrics"])[1] for name in ("gateway-1", "worker-1")),
        ]
        crew.kill("gateway-1")
        until(lambda: "is lost" in crew.processes["gateway-2"].log)
        logs = [path.read_text() for path in crew.folder.glob("*.log")]
        handled = crew.processes["worker-1"].log

    assert len(logs) == 4
    assert [text for text in (*said, *logs) if marker in text] == []
    assert ann.id in handled
    if form == "json":
        events = [json.loads(line) for line in handled.splitlines()]
        failed = next(event for event in events if event["level"] == "error")
        assert (failed["role"], failed["name"], failed["client"]) == ("worker", "worker-1", ann.id)
        assert failed["event"].startswith(f"{ann.id}:")
        assert failed["pid"] > 0
    else:
        assert f" client={ann.id} event={ann.id}:" in handled
