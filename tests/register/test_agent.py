"""Members announce themselves and see each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import messages
from gatecrew.common.config import ClusterConfig, Config
from gatecrew.common.link import LinkSettings
from gatecrew.register.agent import link_settings

if TYPE_CHECKING:
    from .conftest import Log, Recorder, Town

MORTAL = """
import asyncio, sys
from gatecrew.common.link import LinkSettings, Node
from gatecrew.register.agent import Agent

async def main():
    agent = Agent(Node("worker", "mortal", "mortalkey"), LinkSettings(), sys.argv[1:])
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_members_see_each_other_whoever_comes_first(town: Town) -> None:
    early = town.member("early", role="gateway", address="ipc:///tmp/early", meta={"zone": "north"})
    assert not await early.agent.ready(0)
    assert early.agent.members == {}
    await town.register()
    late = town.member("late")
    await early.sees("early", "late")
    await late.sees("early", "late")
    assert late.agent.members[early.node.key] == (
        "gateway",
        "early",
        early.node.key,
        "ipc:///tmp/early",
        {"zone": "north"},
    )


async def test_an_agent_is_ready_once_a_register_told_who_is_there(town: Town) -> None:
    await town.register()
    first = town.member("first")
    await first.sees("first")
    second = town.member("second", [town.address("missing"), town.address()])
    assert await second.agent.ready(20)
    assert "first" in second.names
    assert second.agent.reachable == {town.address("missing"): False, town.address(): True}


async def test_two_processes_of_one_name_are_both_there(town: Town) -> None:
    await town.register()
    old, new = town.member("worker-1"), town.member("worker-1")
    other = town.member("worker-2")
    while other.agent.members.keys() != {old.node.key, new.node.key, other.node.key}:
        other.news.clear()
        await other.news.wait()


async def test_who_leaves_is_gone_without_waiting_for_the_lease(town: Town, log: Log) -> None:
    await town.register()
    stays, leaves = town.member("stays"), town.member("leaves")
    await stays.sees("stays", "leaves")
    leaves.agent.leave()
    await stays.sees("stays")
    await leaves.sees("stays")  # its links stay, so that it can finish its work
    assert f"worker leaves ({leaves.node.key}) left" in log.lines
    leaves.agent.leave()


async def test_closing_an_agent_is_leaving(town: Town, log: Log) -> None:
    await town.register()
    stays, closes = town.member("stays"), town.member("closes")
    await stays.sees("stays", "closes")
    await closes.agent.close()
    await stays.sees("stays")
    assert f"worker closes ({closes.node.key}) left" in log.lines


async def test_a_killed_member_disappears(town: Town, log: Log) -> None:
    await town.register()
    stays = town.member("stays")
    process = await town.process(MORTAL, town.address())
    await stays.sees("stays", "mortal")
    await town.kill(process)
    await stays.sees("stays")
    assert "worker mortal (mortalkey) is gone: it is silent" in log.lines


async def test_a_caller_sees_everybody_and_is_seen_by_nobody(town: Town) -> None:
    await town.register()
    worker = town.member("worker")
    caller = town.member("caller", role="caller", announce=False)
    await caller.sees("worker")
    caller.agent.leave()
    second = town.member("second")
    await caller.sees("worker", "second")
    await second.sees("worker", "second")
    assert "caller" not in worker.names | second.names


async def test_one_of_two_registers_may_die(town: Town) -> None:
    addresses = [town.address("one"), town.address("two")]
    one = await town.register("one")
    await town.register("two")
    watcher, other = town.member("watcher", addresses), town.member("other", addresses)
    for address in addresses:
        await town.knows(address, "watcher", "other")
    await one.stop()
    town.member("late", addresses)
    await watcher.sees("watcher", "other", "late")
    assert watcher.left == []
    other.agent.leave()  # the dead register never hears of it
    await watcher.sees("watcher", "late")


async def test_members_stay_while_the_only_register_is_away(town: Town) -> None:
    register = await town.register()
    one, two = town.member("one"), town.member("two")
    await one.sees("one", "two")
    await register.stop()
    await two.agent.close()
    late = town.member("late")
    assert not await late.agent.ready(0.5)
    assert one.names == {"one", "two"}


async def test_a_member_of_two_registers_joins_once(town: Town) -> None:
    addresses = [town.address("one"), town.address("two")]
    for name in ("one", "two"):
        await town.register(name)
    watcher = town.member("watcher", addresses)
    for address in addresses:
        await town.knows(address, "watcher")
    assert [member.name for member in watcher.joined] == ["watcher"]


async def test_everybody_with_stats_and_the_register_too(town: Town) -> None:
    register = await town.register("register-1", town.address())
    worker = town.member("worker-1", stats=lambda: {"pid": 7}, meta={"a": 1})
    await worker.sees("worker-1")
    first, second = await worker.agent.ask_members(20)
    assert (first["role"], first["name"], first["address"]) == ("register", "register-1", register.address)
    assert first["stats"]["pid"] > 0
    age = second.pop("age")
    assert age >= 0
    assert second == {
        "role": "worker",
        "name": "worker-1",
        "key": worker.node.key,
        "address": "",
        "meta": {"a": 1},
        "stats": {"pid": 7},
    }


async def test_what_several_registers_say_of_a_member_is_told_once(town: Town) -> None:
    addresses = [town.address("one"), town.address("two")]
    for name in ("one", "two"):
        await town.register(name)
    worker = town.member("worker", addresses)
    for address in addresses:
        await town.knows(address, "worker")
    reports = await worker.agent.ask_members(20)
    assert [(report["role"], report["name"]) for report in reports] == [
        ("register", "one"),
        ("register", "two"),
        ("worker", "worker"),
    ]


async def test_a_register_that_cannot_be_reached_is_left_out_of_the_answer(town: Town) -> None:
    await town.register()
    asker = town.member("asker", [town.address(), town.address("missing")])
    await asker.sees("asker")
    assert [report["name"] for report in await asker.agent.ask_members(0.5)] == ["register-1", "asker"]


async def test_the_newest_word_about_a_member_wins(town: Town, recorder: Recorder) -> None:
    await town.register("real")
    fake = town.acceptor(recorder)
    worker = town.member("worker", [town.address("real"), fake.address], stats=lambda: {"pid": 7})
    await worker.sees("worker")
    peer = await recorder.peers.get()
    asked = asyncio.create_task(worker.agent.ask_members(20))
    while (await recorder.messages.get())[0] != messages.ASK_MEMBERS:
        pass
    old = {"role": "worker", "name": "worker", "key": worker.node.key, "stats": {}, "age": 1e6}
    peer.send([messages.MEMBERS, [old, {**old, "name": "z", "key": "z"}]])
    assert [(report["name"], report["stats"]) for report in await asked if report["role"] == "worker"] == [
        ("worker", {"pid": 7}),
        ("z", {}),
    ]


async def test_a_question_waits_for_the_register(town: Town) -> None:
    asker = town.member("asker", role="caller", announce=False)
    assert await asker.agent.ask_members(0) == []
    await town.register()
    assert [report["name"] for report in await asker.agent.ask_members(20)] == ["register-1"]


async def test_without_registers_nobody_is_known(town: Town) -> None:
    assert await town.member("lonely", []).agent.ask_members(20) == []


def _broken() -> dict[str, Any]:
    raise RuntimeError("cannot count")


@pytest.mark.parametrize("stats", [_broken, lambda: {"a": object()}, lambda: {"a": "b" * 20_000}, lambda: None])
async def test_stats_that_fail_are_left_out_and_complained_of_once(town: Town, log: Log, stats: Any) -> None:
    await town.register()
    worker = town.member("worker", stats=stats)
    await worker.sees("worker")
    worker.agent._beat()
    reports = {report["name"]: report["stats"] for report in await worker.agent.ask_members(20)}
    assert reports["worker"] == {}
    assert [line for line in log.lines if "stats" in line] == [
        f"no stats of {worker.agent.members[worker.node.key]!r} are announced while they fail"
    ]


RECORD = ["worker", "w", "k", "", {}]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ([messages.CHANGE, "epoch", 9, [RECORD], []], "changes 9 of epoch do not follow"),
        ([messages.CHANGE, "another", 8, [RECORD], []], "changes 8 of another do not follow"),
        ([messages.CHANGE, "epoch", 8, [], [["a"]]], "is nothing that a register says"),
        ([messages.SNAPSHOT, "epoch", 8, [["worker"]]], "a member without a proper role"),
        ([messages.MEMBERS, [{"role": "worker"}]], "is nothing that a register says"),
        ([messages.ANNOUNCE], "is nothing that a register says"),
    ],
)
async def test_a_register_that_breaks_the_rules_is_dropped(
    town: Town, recorder: Recorder, log: Log, message: list[Any], complaint: str
) -> None:
    town.acceptor(recorder)
    worker = town.member("worker")
    peer = await recorder.peers.get()
    peer.send([messages.SNAPSHOT, "epoch", 7, [RECORD]])
    await worker.sees("w")
    peer.send(message)
    peer.send([messages.CHANGE, "epoch", 8, [["worker", "x", "x", "", {}]], []])
    await log.says("no link to", town.address(), complaint)
    assert worker.names == {"w"}


def test_the_settings_of_links_come_from_the_cluster() -> None:
    cluster = ClusterConfig(probe_interval=0.1, dead_after=1.0, lane_buffer=70_000)
    assert link_settings(Config(cluster=cluster)) == LinkSettings(0.1, 1.0, 70_000)
