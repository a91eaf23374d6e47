"""The links of a worker to all gateways: what leaves when, and who is asked. Gateways are played by real links."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.business import checks
from gatecrew.business import hub as module
from gatecrew.business.hub import Hub
from gatecrew.common import link as link_module
from gatecrew.common import messages as op
from gatecrew.common import wire
from gatecrew.common.errors import LinkError, PartialAnswer, QueryError
from gatecrew.common.ids import new_client_id, new_key
from gatecrew.common.link import Acceptor, Connector, LinkSettings, Node, Peer
from gatecrew.common.messages import Ask
from gatecrew.gateway.repeats import Repeats
from gatecrew.register.agent import Agent
from gatecrew.register.server import Register

from .waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gatecrew.business.hub import Gateway
    from gatecrew.common.messages import Message

SETTINGS = LinkSettings(probe_interval=0.1, dead_after=0.5, lane_buffer=65536)


class Played:
    """A gateway that notes what comes, in a list that all gateways share, and answers questions with its name."""

    def __init__(self, run_dir: Path, name: str, notes: list[tuple[str, list[Message]]]) -> None:
        self.name = name
        self.node = Node("gateway", name, new_key())
        self.answers = True
        self.refuses = ""
        self._notes = notes
        self._acceptor = Acceptor(self.node, SETTINGS, self, f"ipc://{run_dir}/{name}.sock")
        self._agent = Agent(self.node, SETTINGS, [f"ipc://{run_dir}/r.sock"], address=self._acceptor.address)

    def joined(self, peer: Peer) -> None: ...

    def lost(self, peer: Peer, reason: str) -> None: ...

    def received(self, peer: Peer, batch: list[Message]) -> None:
        self._notes.append((self.name, batch))
        for message in batch:
            if message[0] == op.QUERY and self.refuses:
                peer.send([op.NO_ANSWER, message[1], self.refuses])
            elif message[0] == op.QUERY and self.answers:
                peer.send([op.ANSWER, message[1], self.name])

    @property
    def carried_out(self) -> list[Message]:
        """What a real gateway would have carried out of the turns that came."""
        repeats = Repeats()
        turns = [
            message for name, batch in self._notes if name == self.name for message in batch if message[0] == op.TURN
        ]
        return [
            command for _, origin, number, commands in turns if not repeats.seen(origin, number) for command in commands
        ]

    def cut(self) -> None:
        """End the lane of the hub under test as if it had been silent; it begins another by itself."""
        for peer in self._acceptor._peers():
            self._acceptor.give_up(peer, "cut by a test")

    async def die(self) -> None:
        """Be gone without a word."""
        for peer in self._acceptor._peers():
            peer.lane = None
        await self.close()

    async def close(self) -> None:
        await self._agent.close()
        await self._acceptor.close()


class Stage:
    """A register, two played gateways, and the hub under test."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stack = AsyncExitStack()
        self.notes: list[tuple[str, list[Message]]] = []
        self.up = asyncio.Event()
        self.key = new_key()
        self.hub: Hub
        self.played: list[Played] = []

    def joined(self, gateway: Gateway) -> None:
        if all(gateway.alive for gateway in self.hub.gateways.values()) and len(self.hub.gateways) == 2:
            self.up.set()

    def lost(self, gateway: Gateway) -> None: ...

    def members_changed(self) -> None: ...

    def received(self, gateway: Gateway, batch: list[Message]) -> None:
        for message in batch:
            self.hub.answered(gateway, message)

    async def start(self) -> None:
        register = Register(Node("register", "r", new_key()), SETTINGS, f"ipc://{self._run_dir}/r.sock")
        await register.start()
        self._stack.push_async_callback(register.stop)
        for name in ("g1", "g2"):
            self.played.append(Played(self._run_dir, name, self.notes))
            self._stack.push_async_callback(self.played[-1].close)
        node = Node("worker", "w", self.key)
        self.hub = Hub(node, SETTINGS, [f"ipc://{self._run_dir}/r.sock"], timeout=0.5, listener=self, stats=dict)
        self._stack.push_async_callback(self.hub.close)
        await asyncio.wait_for(self.up.wait(), 5)

    async def stop(self) -> None:
        await self._stack.aclose()

    def gateway(self, number: int) -> Gateway:
        """Return the gateway ``g<number>`` as the hub sees it."""
        return self.hub.gateways[self.played[number - 1].node.key]

    async def sync(self) -> None:
        """Return when all that left before has come."""
        await self.hub.ask(None, Ask.SYNC, None, len)


@pytest.fixture
async def stage(run_dir: Path) -> AsyncIterator[Stage]:
    stage = Stage(run_dir)
    try:
        await stage.start()
        yield stage
    finally:
        await stage.stop()


def commands_in(batch: list[Message]) -> list[Message]:
    """Return the messages of a batch, with the commands of turns in their place."""
    return [command for message in batch for command in (message[3] if message[0] == op.TURN else [message])]


async def test_commands_for_the_own_gateway_leave_in_one_batch_with_the_ack(stage: Stage) -> None:
    one, two = stage.gateway(1), stage.gateway(2)
    stage.hub.post([(two.key, [op.UNGROUP, "other"])], gateway=one, stamp=("event", 1))
    stage.hub.commit(one, 7, [[op.UNGROUP, "own"]])
    await stage.sync()

    assert next(batch for name, batch in stage.notes if name == "g1") == [[op.UNGROUP, "own"], [op.ACK, 7]]
    assert next(batch for name, batch in stage.notes if name == "g2")[0] == [
        op.TURN,
        "event",
        1,
        [[op.UNGROUP, "other"]],
    ]


async def test_what_is_commanded_at_once_is_one_part_for_each_gateway(stage: Stage) -> None:
    one, two = stage.gateway(1), stage.gateway(2)
    others: list[tuple[str | None, Message]] = [(two.key, [op.UNGROUP, "a"]), (None, [op.UNGROUP, "b"])]
    stage.hub.post(others, [[op.UNGROUP, "b"]], one, ("event", 2))
    await stage.sync()

    turns = [(name, message) for name, batch in stage.notes for message in batch if message[0] == op.TURN]
    assert sorted(turns) == [
        ("g1", [op.TURN, "event", 2, [[op.UNGROUP, "b"]]]),
        ("g2", [op.TURN, "event", 2, [[op.UNGROUP, "a"], [op.UNGROUP, "b"]]]),
    ]


async def test_what_belongs_to_no_event_is_told_apart_by_the_process_and_a_number(stage: Stage) -> None:
    for group in ("a", "b"):
        stage.hub.post([(stage.gateway(2).key, [op.UNGROUP, group])])
    await stage.sync()

    first, second = [message for _, batch in stage.notes for message in batch if message[0] == op.TURN]
    assert first[1] == second[1] == stage.key
    assert first[2] < second[2]


async def test_turns_that_end_together_share_batches_and_one_ack(stage: Stage) -> None:
    one = stage.gateway(1)
    for number in range(1, 4):
        stage.hub.commit(one, number, [[op.UNGROUP, str(number)]])
    await stage.sync()

    assert stage.notes[0] == ("g1", [[op.UNGROUP, "1"], [op.UNGROUP, "2"], [op.UNGROUP, "3"], [op.ACK, 1, 2, 3]])


async def test_no_commands_are_carried_out_without_their_ack_because_they_are_much(stage: Stage) -> None:
    """Once a batch is cut in two, its end may be lost."""
    one = stage.gateway(1)
    large = module.MUCH * 2 // 3
    for number in range(1, 4):
        stage.hub.commit(one, number, [[op.SEND_ALL, "x" * large, []]], large)
    await until(lambda: len(stage.notes) == 2)

    assert [batch[-1] for _, batch in stage.notes] == [[op.ACK, 1, 2], [op.ACK, 3]]


async def test_no_ack_is_sent_before_what_its_turn_commanded_elsewhere(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, Message]] = []
    transmit = Connector.transmit

    def note(self: Connector, peer: Peer, frame: bytes) -> None:
        if frame[3] == wire.DATA:
            sent.extend((peer.name, message) for message in commands_in(wire.decode(frame)))
        transmit(self, peer, frame)

    monkeypatch.setattr(Connector, "transmit", note)
    one, two = stage.gateway(1), stage.gateway(2)
    for gateway, number, other, own in ((one, 1, "a", "a1"), (two, 1, "b", "b2"), (one, 2, "c", "c1")):
        stage.hub.post([(None, [op.UNGROUP, other])], gateway=gateway)
        stage.hub.commit(gateway, number, [[op.UNGROUP, own]])
    await stage.sync()

    assert [(name, message) for name, message in sent if message[0] != op.QUERY] == [
        ("g2", [op.UNGROUP, "a"]),
        ("g1", [op.UNGROUP, "a1"]),
        ("g1", [op.ACK, 1]),
        ("g1", [op.UNGROUP, "b"]),
        ("g2", [op.UNGROUP, "b2"]),
        ("g2", [op.ACK, 1]),
        ("g2", [op.UNGROUP, "c"]),
        ("g1", [op.UNGROUP, "c1"]),
        ("g1", [op.ACK, 2]),
    ]


async def test_a_question_to_all_has_all_answers_in_one_order(stage: Stage) -> None:
    answers = await stage.hub.ask(None, Ask.SYNC, None, list)

    assert sorted(answers) == ["g1", "g2"]
    assert answers == await stage.hub.ask(None, Ask.SYNC, None, list)


async def test_a_question_to_one_asks_nobody_else(stage: Stage) -> None:
    assert await stage.hub.ask(stage.gateway(2).key, Ask.SYNC, None, list) == ["g2"]
    assert [name for name, _ in stage.notes] == ["g2"]


async def test_a_question_to_a_gateway_that_there_is_not_has_no_answers(stage: Stage) -> None:
    assert await stage.hub.ask("gonegone", Ask.ONLINE, new_client_id("gonegone"), list) == []


async def test_who_is_silent_is_named_at_the_deadline(stage: Stage) -> None:
    stage.played[1].answers = False
    with pytest.raises(PartialAnswer, match="no answer from g2") as told:
        await stage.hub.ask(None, Ask.SYNC, None, list)

    assert (told.value.answer, told.value.missing) == (["g1"], ["g2"])


async def test_who_leaves_meanwhile_is_neither_waited_for_nor_missed(stage: Stage) -> None:
    stage.played[1].answers = False
    question = asyncio.create_task(stage.hub.ask(None, Ask.SYNC, None, list))
    await until(lambda: any(name == "g2" for name, _ in stage.notes))
    await stage.played[1].close()

    assert await question == ["g1"]
    await until(lambda: list(stage.hub.gateways) == [stage.played[0].node.key])
    assert stage.hub.counts()["link.lost"] == 1


async def test_commands_for_a_client_of_a_gateway_that_is_gone_are_counted(stage: Stage) -> None:
    assert stage.hub.post([("gonegone", [op.UNGROUP, "x"])]) == []
    assert stage.hub.counters["discarded.gateway_gone"] == 1


async def test_a_gateway_that_does_not_keep_up_gets_no_more_and_is_named(stage: Stage) -> None:
    much = "x" * 100_000
    assert stage.hub.post([(None, [op.SEND_ALL, much, []])]) == []
    await asyncio.sleep(0)  # it has left, and nothing of it is acknowledged
    missed = stage.hub.post([(stage.gateway(1).key, [op.UNGROUP, "no"])])
    assert missed == ["g1"]
    await until(lambda: not stage.gateway(1).peer.full and not stage.gateway(2).peer.full)
    assert stage.hub.post([(stage.gateway(1).key, [op.UNGROUP, "yes"])]) == []
    await stage.sync()

    groups = [m[1] for _, batch in stage.notes for m in commands_in(batch) if m[0] == op.UNGROUP]
    assert groups == ["yes"]


async def test_what_is_given_up_is_told_to_a_gateway_that_takes_it(stage: Stage) -> None:
    g1, g2 = stage.gateway(1), stage.gateway(2)
    stage.hub.post([(g1.key, [op.SEND_ALL, "x" * 100_000, []])])
    await asyncio.sleep(0)
    missed = [op.SEND_UID, ["ann"], "secret"], [op.SEND_GROUP, ["red"], "secret", []], [op.JOIN, "client", "red"]
    stage.hub.post([(g1.key, message) for message in missed] + [(g1.key, [op.SEND_ALL, "secret", []])] * 100)
    stage.hub.post([("gonegone", [op.SEND, ["client"], "secret"])])
    await until(lambda: not g1.peer.full)
    await stage.sync()

    told = [
        message for name, batch in stage.notes if name == g2.name for message in batch if message[0] == op.DISCARDED
    ]
    assert len(told) == module.NOTED + 1
    assert [message[3:7] for message in (*told[:4], told[-1])] == [
        ["discarded.gateway_full", "", "ann", []],
        ["discarded.gateway_full", "", "", ["red"]],
        ["discarded.gateway_full", "client", "", []],
        ["discarded.gateway_full", "", "", []],
        ["discarded.gateway_gone", "client", "", []],
    ]
    assert "secret" not in str(told)


async def test_what_was_commanded_in_one_turn_counts_before_it_has_left(stage: Stage) -> None:
    much = "x" * 40_000

    assert [stage.hub.post([(stage.gateway(1).key, [op.SEND_UID, ["ann"], much])]) for _ in range(3)] == [
        [],
        [],
        ["g1"],
    ]
    assert stage.hub.counters["discarded.gateway_full"] == 1


async def test_a_question_about_too_many_is_a_mistake_of_its_asker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MAX_COMMANDS", 1000)
    with pytest.raises(ValueError, match="name fewer in one call"):
        await stage.hub.ask(None, Ask.CLIENTS_OF_UIDS, ["ann"] * 1000, len)

    await stage.sync()  # the lanes go on


async def test_an_answer_that_is_too_big_is_an_error_that_says_so(stage: Stage) -> None:
    stage.played[1].refuses = "too big"
    with pytest.raises(QueryError, match=r"^g2: too big$"):
        await stage.hub.ask(None, Ask.CLIENTS, None, list)


async def test_only_so_many_questions_wait_for_their_answers(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS", 2)
    asked = [stage.hub.ask(None, Ask.ONLINE, "x", len) for _ in range(3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert answers[:2] == [2, 2]
    assert isinstance(answers[2], QueryError)
    assert stage.hub.counters["queries.refused"] == 1
    await stage.sync()  # there is room again


class TestALinkThatIsCut:
    @staticmethod
    def command(stage: Stage, *groups: str) -> None:
        for group in groups:
            assert stage.hub.post([(stage.gateway(2).key, [op.UNGROUP, group])]) == []
            stage.hub.flush()

    async def test_loses_and_doubles_nothing_and_keeps_the_order(self, stage: Stage) -> None:
        link = stage.gateway(2)
        self.command(stage, "arrives")
        await until(lambda: stage.played[1].carried_out)
        self.command(stage, "on its way", "on its way, too")
        stage.played[1].cut()
        await until(lambda: not link.alive)
        self.command(stage, "waits", "waits, too")
        await until(lambda: link.alive)
        self.command(stage, "after")
        await stage.sync()

        groups = ["arrives", "on its way", "on its way, too", "waits", "waits, too", "after"]
        assert stage.played[1].carried_out == [[op.UNGROUP, group] for group in groups]
        assert stage.hub.counters == {}

    async def test_may_be_cut_again_before_anything_arrived(self, stage: Stage) -> None:
        link = stage.gateway(2)
        for group in "abc":
            self.command(stage, group)
            stage.hub.gateways[link.key].connector.give_up(link.peer, "cut by a test")
            await until(lambda: link.alive)
        await stage.sync()

        assert stage.played[1].carried_out == [[op.UNGROUP, group] for group in "abc"]

    async def test_takes_with_it_what_is_void_without_it(self, stage: Stage) -> None:
        """Acks, what leaves with them, and questions: the events come again, and who asked was told."""
        one = stage.gateway(1)
        stage.hub.commit(one, 1, [[op.UNGROUP, "own"]])
        stage.hub.flush()
        await until(lambda: stage.notes)
        stage.hub.commit(one, 2, [[op.UNGROUP, "own"]])
        question = asyncio.create_task(stage.hub.ask(one.key, Ask.CLIENTS, None, len))
        await asyncio.sleep(0)
        stage.hub.commit(one, 3, [[op.UNGROUP, "own"]])
        one.connector.give_up(one.peer, "cut by a test")
        with pytest.raises(PartialAnswer):
            await question
        await until(lambda: one.alive)
        await stage.sync()

        came = [message for name, batch in stage.notes if name == "g1" for message in batch]
        assert came.count([op.ACK, 1]) == 1
        assert came.count([op.ACK, 2]) <= 1, "it had left"
        assert [op.ACK, 3] not in came

    async def test_is_waited_for_within_a_bound(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link_module, "MAX_WAITING", 3)
        link = stage.gateway(2)
        self.command(stage, "a", "b")
        link.connector.give_up(link.peer, "cut by a test")
        self.command(stage, "c")

        assert stage.hub.post([(link.key, [op.UNGROUP, "too much"])]) == ["g2"]
        assert stage.hub.counters == {"discarded.gateway_full": 1}
        await until(lambda: link.alive)
        await stage.sync()
        assert stage.played[1].carried_out == [[op.UNGROUP, group] for group in "abc"]

    async def test_what_waits_for_a_gateway_that_is_gone_is_counted(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        await stage.played[1].die()
        self.command(stage, "a", "b")
        await until(lambda: len(stage.hub.gateways) == 1)

        assert stage.hub.counters["discarded.gateway_gone"] == 2
        assert "commands that may not have arrived at gateway g2: 2" in caplog.messages


async def test_only_so_many_lost_gateways_are_remembered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FENCED", 2)
    for key in ("a", "b", "c"):
        stage.hub.fence(key)

    assert list(stage.hub._fenced) == ["b", "c"]


async def test_what_was_commanded_before_closing_still_arrives(stage: Stage) -> None:
    stage.hub.post([(None, [op.UNGROUP, "last"])])
    await stage.hub.close()
    await until(lambda: len(stage.notes) == 2)

    last: list[Any] = [[op.UNGROUP, "last"]]
    assert sorted((name, commands_in(batch)) for name, batch in stage.notes) == [("g1", last), ("g2", last)]


async def test_a_gateway_that_no_register_knows_yet_is_known_from_another(stage: Stage, run_dir: Path) -> None:
    third = Acceptor(Node("gateway", "g3", new_key()), SETTINGS, stage.played[0], f"ipc://{run_dir}/g3.sock")
    record = ["gateway", "g3", third.node.key, third.address, {}]
    stage.hub.told([record, record])

    await until(lambda: stage.hub.gateways[third.node.key].alive)
    assert len(stage.hub.gateways) == 3
    await third.close()
    await until(lambda: len(stage.hub.gateways) == 2)


async def test_a_gateway_that_no_register_confirms_is_forgotten(
    stage: Stage, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARSAY", 0.05)
    stage.hub.told([["gateway", "g3", "nowhere1", f"ipc://{run_dir}/nowhere.sock", {}], ["worker", "w", "x", "", {}]])
    assert len(stage.hub.gateways) == 3
    await until(lambda: len(stage.hub.gateways) == 2)


async def test_what_is_no_gateway_is_refused(stage: Stage) -> None:
    with pytest.raises(LinkError, match="a member without a proper role"):
        stage.hub.told([["gateway", "g3"]])
