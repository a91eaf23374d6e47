"""The register as a process and what it does not put up with."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import messages
from gatecrew.common.errors import ListenError
from gatecrew.common.link import LinkSettings

if TYPE_CHECKING:
    from .conftest import Log, Recorder, Town

REGISTER = """
import sys
from gatecrew.common.config import ClusterConfig, Config
from gatecrew.register.server import run

sys.exit(run(Config(cluster=ClusterConfig(run_dir=sys.argv[1], registers=tuple(sys.argv[3:]))), sys.argv[2]))
"""


async def test_a_register_that_is_killed_and_started_again_loses_nobody(town: Town) -> None:
    process = await town.process(REGISTER, town.directory, "register-1", "ipc")
    one, two = town.member("one"), town.member("two")
    await one.sees("one", "two")
    await two.sees("one", "two")
    await town.kill(process)
    await town.process(REGISTER, town.directory, "register-1", "ipc")
    await town.knows(town.address(), "one", "two")
    three = town.member("three")
    await three.sees("one", "two", "three")
    await one.sees("one", "two", "three")
    assert one.left == two.left == []


async def test_a_register_ends_when_it_is_told_to_and_its_members_stay(town: Town, log: Log) -> None:
    process = await town.process(REGISTER, town.directory, "register-1", "ipc")
    one = town.member("one")
    await one.sees("one")
    process.terminate()
    assert await process.wait() == 0
    await log.says("lost the register at", town.address(), "left")
    assert one.names == {"one"}


async def test_several_registers_have_an_address_each(town: Town) -> None:
    for name in ("register-1", "register-2"):
        await town.process(REGISTER, town.directory, name, "ipc", "ipc")
    one = town.member("one", [town.address("register-1"), town.address("register-2")])
    reports: list[dict[str, Any]] = []
    while len(reports) < 3:
        reports = await one.agent.ask_members(20)
    assert [report["name"] for report in reports] == ["register-1", "register-2", "one"]
    assert len({report["stats"]["pid"] for report in reports[:2]} | {os.getpid()}) == 3


async def test_a_register_without_an_address_is_a_wrong_configuration(town: Town) -> None:
    process = await town.process(REGISTER, town.directory, "register-2", "ipc")
    assert await process.wait() == 2


async def test_over_tcp_a_register_tells_which_port_it_got(town: Town) -> None:
    register = await town.register(address="tcp://127.0.0.1:0")
    assert not register.address.endswith(":0")
    await town.member("one", [register.address]).sees("one")


async def test_a_port_in_use_is_told_before_anything_else_happens(town: Town) -> None:
    register = await town.register(address="tcp://127.0.0.1:0")
    with pytest.raises(ListenError, match=re.escape(f"cannot bind {register.address}")):
        await town.register("second", register.address)


async def test_changes_are_numbered_within_an_epoch(town: Town, recorder: Recorder) -> None:
    await town.register()
    town.connector(recorder, "caller")
    opcode, epoch, number, members = await recorder.messages.get()
    assert (opcode, number, members) == (messages.SNAPSHOT, 0, [])
    one = town.member("one")
    record = ["worker", "one", one.node.key, "", {}]
    assert await recorder.messages.get() == [messages.CHANGE, epoch, 1, [record], []]
    one.agent.leave()
    assert await recorder.messages.get() == [messages.CHANGE, epoch, 2, [], [one.node.key]]


async def test_who_lags_behind_gets_everything_anew_once_there_is_room(town: Town, recorder: Recorder) -> None:
    patient = LinkSettings(probe_interval=5.0, dead_after=30.0, lane_buffer=0)  # it acknowledges once a second
    await town.register(settings=patient)  # full until the last message is acknowledged
    town.connector(recorder, "caller", patient)
    opcode, epoch, number, members = await recorder.messages.get()
    assert (opcode, number, members) == (messages.SNAPSHOT, 0, [])
    one = town.member("one")  # at once: the snapshot is not acknowledged yet, also on a machine that is busy
    record = ["worker", "one", one.node.key, "", {}]
    assert await recorder.messages.get() == [messages.SNAPSHOT, epoch, 1, [record]]


async def test_who_asks_without_reading_the_answers_is_dropped(town: Town, recorder: Recorder, log: Log) -> None:
    await town.register(settings=replace(LinkSettings(), lane_buffer=0))
    connector = town.connector(recorder)
    await recorder.peers.get()
    while recorder.losses.empty():
        if connector.peer.up:
            connector.peer.send([messages.ASK_MEMBERS])
        await asyncio.sleep(0)
    await log.says("refused worker", "raw", "it asks without reading the answers")


async def test_who_asks_for_too_much_at_once_is_dropped(town: Town, recorder: Recorder, log: Log) -> None:
    """The answers to one batch were put together, all of them, before the first one left."""
    patient = LinkSettings(probe_interval=5.0, dead_after=30.0)
    await town.register(settings=replace(patient, lane_buffer=1000))
    connector = town.connector(recorder, settings=patient)
    await recorder.messages.get()
    for _ in range(100):
        connector.peer.send([messages.ASK_MEMBERS])
    await log.says("refused worker", "raw", "it asks without reading the answers")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "which it is not"),  # an honest one, of somebody else
        ({2: "own", 0: "gateway"}, "which it is not"),
        ({2: "own", 1: "other"}, "which it is not"),
        ({2: "own", 4: []}, "a member without a proper role"),
        ({2: "own", 3: None}, "a member without a proper role"),
        ({2: "own", 5: None}, "is nothing that a member says"),
        ({2: "own", 5: {"a": "b" * 20_000}}, "is nothing that a member says"),
    ],
)
async def test_a_wrong_announcement_is_refused_and_named(
    town: Town, recorder: Recorder, log: Log, fields: dict[int, Any], complaint: str
) -> None:
    await town.register()
    connector = town.connector(recorder)
    peer = await recorder.peers.get()
    announcement = ["worker", "raw", "some other key", "", {}, {}]
    for position, value in fields.items():
        announcement[position] = connector.node.key if value == "own" else value
    peer.send([messages.ANNOUNCE, *announcement])
    await log.says("refused worker", "raw", complaint)
    watcher = town.member("watcher")
    await watcher.sees("watcher")


@pytest.mark.parametrize(
    "message", [[messages.ANNOUNCE], [messages.SNAPSHOT, "epoch", 0, []], [messages.LEAVING, 1], [999]]
)
async def test_what_no_member_says_is_refused(town: Town, recorder: Recorder, log: Log, message: list[Any]) -> None:
    await town.register()
    town.connector(recorder)
    peer = await recorder.peers.get()
    peer.send(message)
    await log.says("refused worker", "raw", f"message {message[0]} with")


async def test_a_member_that_says_something_else_of_itself_is_refused(town: Town, recorder: Recorder, log: Log) -> None:
    await town.register()
    connector = town.connector(recorder)
    peer = await recorder.peers.get()
    for address in ("", "tcp://127.0.0.1:1"):
        peer.send([messages.ANNOUNCE, "worker", "raw", connector.node.key, address, {}, {}])
    await log.says("refused worker", "raw", "something else of itself")
