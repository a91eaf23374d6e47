"""Gateways know each other's clients, and tell their close when one is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gatecrew.common import messages as op
from gatecrew.common.errors import LinkError
from gatecrew.gateway import buddies as module
from gatecrew.gateway.buddies import RETRY, Buddy, Wards
from gatecrew.gateway.client import EMPTY_SESSION, Client, NoConnection
from gatecrew.gateway.placement import weight
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gatecrew.common.messages import Message

INTRODUCTION = ["/chat", "", "127.0.0.1:5000", "ws://127.0.0.1:7272", None]
KEYS = sorted(("gateway1", "gateway2", "gateway3"), key=lambda key: weight("gateway0", key))
ALSO, SECOND, FIRST = KEYS  # in the order in which gateway0 wants them


class Wire:
    """A link, as seen from its beginning."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[Message] = []
        self.flushed: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        self.flushed = list(self.sent)


class Ward:
    """A gateway that tells others of its clients."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.wires: dict[str, Wire | None] = {}
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.buddy = Buddy(
            "gateway0",
            self.clients.values,
            lambda key: self.wires.update({key: None}),
            self.wires.__delitem__,
            lambda seconds, what: self.later.append((seconds, what)),
        )

    def join(self, key: str) -> Wire:
        wire = self.wires[key] = Wire()
        self.buddy.joined(key, wire)
        return wire

    def open(self, name: str) -> Client:
        client = self.clients[name] = Client(name, NoConnection(), INTRODUCTION)
        self.buddy.opened(client)
        return client

    def finish(self, client: Client) -> None:
        del self.clients[client.id]
        self.buddy.finished(client)

    def turn(self) -> list[float]:
        """Let pass what was to be done later; return in how many seconds it was."""
        later, self.later = self.later, []
        for _, what in later:
            what()
        return [seconds for seconds, _ in later]


def keep(name: str, uid: str | None = None) -> Message:
    return [op.KEEP, name, uid, EMPTY_SESSION, INTRODUCTION]


# What a gateway tells


def test_a_gateway_alone_tells_nobody() -> None:
    ward = Ward()
    ward.buddy.members_changed([])
    ward.finish(ward.open("ann"))
    assert (ward.buddy.chosen, ward.wires, ward.later) == (None, {}, [])


def test_the_buddy_is_the_one_that_is_wanted_most() -> None:
    ward = Ward()
    ward.buddy.members_changed([ALSO, SECOND])
    assert list(ward.wires) == [ward.buddy.chosen] == [SECOND]
    ward.buddy.members_changed(KEYS)
    assert ward.buddy.chosen == FIRST


def test_a_new_buddy_is_told_all_and_then_each_change() -> None:
    ward = Ward()
    ann = ward.open("ann")
    ward.buddy.members_changed([FIRST])
    wire = ward.join(FIRST)
    assert wire.sent == [keep("ann"), [op.WHOLE]]

    wire.sent.clear()
    ward.open("bob")
    assert wire.flushed == [keep("bob")], "before a worker hears of it"
    ann.uid = "u1"
    ward.buddy.changed(ann)
    ward.buddy.changed(ann)
    assert wire.sent == [keep("bob")]
    assert ward.turn() == [0]
    assert wire.sent[1:] == [keep("ann", "u1")], "once, as it is now"
    ward.finish(ann)
    ward.turn()
    assert wire.sent[2:] == [[op.RELEASE, "ann"]]


def test_a_buddy_that_does_not_keep_up_is_told_later() -> None:
    ward = Ward()
    ward.buddy.members_changed([FIRST])
    wire = ward.join(FIRST)
    wire.sent.clear()
    wire.full = True
    ward.finish(ward.open("ann"))
    ward.open("bob")
    assert ward.turn() == [0]
    assert wire.sent == []
    wire.full = False
    assert ward.turn() == [RETRY]
    assert wire.sent == [[op.RELEASE, "ann"], keep("bob")]


def test_an_old_buddy_is_released_when_the_new_one_knows_all() -> None:
    ward = Ward()
    ward.buddy.members_changed([SECOND])
    old = ward.join(SECOND)
    ward.buddy.known(SECOND)
    ward.buddy.members_changed([SECOND, FIRST])
    new = ward.join(FIRST)
    ward.open("ann")
    assert old.sent[-1] == new.sent[-1] == keep("ann"), "both are told until then"

    ward.buddy.known(FIRST)
    assert old.sent[-1] == [op.RELEASE_ALL]
    assert list(ward.wires) == [FIRST]


def test_a_choice_that_falls_back_needs_no_second_buddy() -> None:
    ward = Ward()
    ward.buddy.members_changed([SECOND])
    ward.join(SECOND)
    ward.buddy.known(SECOND)
    ward.buddy.members_changed([SECOND, FIRST])
    ward.buddy.members_changed([SECOND])
    assert list(ward.wires) == [SECOND]


def test_a_buddy_whose_link_is_down_is_kept_until_the_registers_say_that_it_left() -> None:
    ward = Ward()
    ward.buddy.members_changed([FIRST])
    ward.join(FIRST)
    ward.buddy.lost(FIRST)
    ward.open("ann")
    assert ward.join(FIRST).sent == [keep("ann"), [op.WHOLE]]
    ward.buddy.lost(FIRST)
    ward.buddy.members_changed([])
    assert ward.wires == {}


def test_a_buddy_that_works_is_kept_whatever_the_registers_say() -> None:
    ward = Ward()
    ward.buddy.members_changed([FIRST])
    ward.join(FIRST)
    ward.buddy.members_changed([])
    assert list(ward.wires) == [FIRST]
    ward.buddy.lost(FIRST)
    assert ward.wires == {}


def test_a_gateway_that_was_taken_for_lost_leaves_nobody_to_its_buddies() -> None:
    ward = Ward()
    ward.buddy.members_changed([FIRST])
    wire = ward.join(FIRST)
    ward.buddy.stop()
    assert wire.sent[-1] == [op.RELEASE_ALL]
    assert ward.wires == {}


# What a gateway is told


class Guard:
    """A gateway to which others tell of their clients."""

    def __init__(self) -> None:
        self.adopted: list[tuple[str, str, list[str]]] = []
        self.answers: list[Message] = []
        self.wards = Wards(self._adopt)

    def _adopt(self, name: str, key: str, kept: Collection[Message]) -> None:
        self.adopted.append((name, key, sorted(message[1] for message in kept)))

    def begin(self, *clients: str) -> None:
        self.wards.joined("gateway0", "gateway-1")
        self.tell(*map(keep, clients))

    def tell(self, *batch: Message) -> None:
        self.wards.received("gateway0", list(batch), self.answers.append)


def test_the_close_of_a_lost_gateways_clients_is_told_once() -> None:
    guard = Guard()
    guard.begin("ann", "bob", "cyd")
    guard.tell([op.WHOLE], [op.RELEASE, "bob"])
    assert guard.answers == [[op.KNOWN]]
    guard.wards.lost("gateway0", goodbye=False)
    assert guard.adopted == [], "its link may only be cut"

    guard.wards.member_left("gateway0")
    guard.wards.member_left("gateway0")
    assert guard.adopted == [("gateway-1", "gateway0", ["ann", "cyd"])]


def test_a_gateway_with_a_link_is_not_lost_whatever_the_registers_say() -> None:
    guard = Guard()
    guard.begin("ann")
    guard.wards.member_left("gateway0")
    guard.wards.member_joined("gateway0")
    guard.wards.lost("gateway0", goodbye=False)
    assert guard.adopted == []
    guard.wards.member_left("gateway0")
    assert len(guard.adopted) == 1


def test_the_registers_may_know_first() -> None:
    guard = Guard()
    guard.begin("ann")
    guard.wards.member_left("gateway0")
    guard.wards.lost("gateway0", goodbye=False)
    assert guard.adopted == [("gateway-1", "gateway0", ["ann"])]


def test_what_a_gateway_leaves_over_when_it_says_goodbye_is_told() -> None:
    guard = Guard()
    guard.begin("ann")
    guard.wards.lost("gateway0", goodbye=True)
    assert guard.adopted == [("gateway-1", "gateway0", ["ann"])]


def test_a_gateway_that_chose_another_buddy_leaves_nothing() -> None:
    guard = Guard()
    guard.begin("ann")
    guard.tell([op.RELEASE_ALL])
    guard.wards.lost("gateway0", goodbye=True)
    guard.wards.member_left("gateway0")
    assert guard.adopted == []


def test_what_was_known_counts_until_a_new_link_brought_all() -> None:
    guard = Guard()
    guard.begin("ann", "bob")
    guard.wards.lost("gateway0", goodbye=False)
    guard.begin("bob", "cyd")
    guard.tell([op.RELEASE, "bob"])
    assert guard.wards.clients == 2
    guard.wards.lost("gateway0", goodbye=False)
    guard.wards.member_left("gateway0")
    assert guard.adopted[0][2] == ["ann", "cyd"]


def test_a_new_link_that_brought_all_tells_who_closed_meanwhile() -> None:
    guard = Guard()
    guard.begin("ann", "bob")
    guard.wards.lost("gateway0", goodbye=False)
    guard.begin("bob")
    guard.tell([op.WHOLE])
    assert guard.wards.clients == 1


def test_only_so_many_lost_gateways_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TAKEN", 2)
    guard = Guard()
    for number in range(3):
        guard.wards.joined(f"gateway{number}", f"gateway-{number}")
        guard.wards.received(f"gateway{number}", [keep("ann")], guard.answers.append)
        guard.wards.lost(f"gateway{number}", goodbye=True)

    assert len(guard.adopted) == 3
    assert list(guard.wards._taken) == ["gateway1", "gateway2"]


def test_a_gateway_that_wakes_up_too_late_is_not_heard() -> None:
    guard = Guard()
    guard.begin("ann")
    guard.wards.lost("gateway0", goodbye=False)
    guard.wards.member_left("gateway0")
    guard.begin("ann")
    guard.wards.lost("gateway0", goodbye=True)
    assert len(guard.adopted) == 1
    assert guard.wards.clients == 0


@pytest.mark.parametrize(
    "message", [[op.KEEP, "ann"], [op.KEEP, "ann", 7, b"", INTRODUCTION], [op.RELEASE, 7], [op.SEND, "ann", "hello"]]
)
def test_a_gateway_that_talks_nonsense_is_dropped(message: Message) -> None:
    guard = Guard()
    guard.begin()
    with pytest.raises(LinkError, match="is not for a buddy"):
        guard.tell(message)


# Both together


class GatewayAndItsBuddies(RuleBasedStateMachine):
    """Whatever comes and goes: each open client is known to everybody there is a link to, and no close is told."""

    def __init__(self) -> None:
        super().__init__()
        self.ward = Ward()
        self.ward.buddy = Buddy(
            "gateway0",
            self.ward.clients.values,
            self.connect,
            self.let_go,
            lambda seconds, what: self.later.append(what),
        )
        self.later: list[Callable[[], None]] = []
        self.guards = {key: Guard() for key in KEYS}
        self.away: set[str] = set()
        self.wires: dict[str, Wire] = {}
        self.names = iter(range(1000))

    def connect(self, key: str) -> None:
        assert key not in self.away | self.wires.keys()
        self.away.add(key)

    def let_go(self, key: str) -> None:
        if key in self.wires:
            self.deliver(key)
            del self.wires[key]
            self.guards[key].wards.lost("gateway0", goodbye=True)
        else:
            self.away.remove(key)

    def deliver(self, key: str) -> None:
        sent, self.wires[key].sent = self.wires[key].sent, []
        self.guards[key].tell(*sent)

    @rule()
    def open(self) -> None:
        self.ward.open(str(next(self.names)))

    @rule()
    def finish(self) -> None:
        if self.ward.clients:
            self.ward.finish(next(iter(self.ward.clients.values())))

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def members(self, keys: set[str]) -> None:
        self.ward.buddy.members_changed(sorted(keys))

    @rule(key=st.sampled_from(KEYS))
    def link_up(self, key: str) -> None:
        if key in self.away:
            self.away.remove(key)
            wire = self.wires[key] = Wire()
            self.guards[key].wards.joined("gateway0", "gateway-1")
            self.ward.buddy.joined(key, wire)

    @rule(key=st.sampled_from(KEYS))
    def link_down(self, key: str) -> None:
        if key in self.wires:
            del self.wires[key]
            self.away.add(key)
            self.guards[key].wards.lost("gateway0", goodbye=False)
            self.ward.buddy.lost(key)

    @rule(key=st.sampled_from(KEYS))
    def answer(self, key: str) -> None:
        if key in self.wires:
            self.deliver(key)
            if self.guards[key].answers:
                self.ward.buddy.known(key)

    @rule()
    def turn(self) -> None:
        later, self.later = self.later, []
        for what in later:
            what()

    @invariant()
    def all_are_known_where_there_is_a_link(self) -> None:
        for key in self.wires:
            self.deliver(key)
            assert self.guards[key].wards.clients >= len(self.ward.clients)

    @invariant()
    def no_close_is_told(self) -> None:
        assert not any(guard.adopted for guard in self.guards.values())

    @invariant()
    def the_buddy_is_connected(self) -> None:
        chosen = self.ward.buddy.chosen
        assert chosen is None or chosen in self.away | self.wires.keys()

    def teardown(self) -> None:
        self.turn()
        for key in self.wires:
            self.deliver(key)
            assert self.guards[key].wards.clients == len(self.ward.clients)


TestGatewayAndItsBuddies = GatewayAndItsBuddies.TestCase
