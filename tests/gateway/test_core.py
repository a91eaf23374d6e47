"""Clients open, talk and close; workers and callers command and ask."""

from __future__ import annotations

from collections import Counter
from math import inf, nan
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from gatecrew.common import messages as op
from gatecrew.common import reasons, wire
from gatecrew.common.discards import Discard
from gatecrew.common.errors import LinkError
from gatecrew.common.ids import gateway_of
from gatecrew.common.messages import Ask, Message
from gatecrew.gateway import answers as answers_module
from gatecrew.gateway import core as core_module
from gatecrew.gateway.core import LAST, Core
from gatecrew.gateway.devices import Claims, Devices
from gatecrew.gateway.dispatch import Dispatch, Port
from gatecrew.gateway.frames import encode
from gatecrew.gateway.limits import KEPT, Kept
from gatecrew.gateway.placement import router
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from gatecrew.common.reasons import Reason
    from gatecrew.gateway.client import Client

KEY = "abcdefgh"
INTRODUCTION = ["/chat", {"room": "1"}, "127.0.0.1:5000", "ws://127.0.0.1:7272", None]
EPOCH = 1_700_000_000.0  # the world's time when a test begins
HEADERS = [["Host", "localhost"]]


class Socket:
    """A client's socket. As the real one, it tells when it closes, and after that does nothing."""

    unsent = 0

    def __init__(self, house: House, *, plain: bool, room: int) -> None:
        self.house = house
        self.plain = plain
        self.room = room  # messages that it takes before it is too slow
        self.client: Client | None = None
        self.got: list[str | bytes] = []
        self.frames = 0
        self.closed: tuple[int, str] | None = None
        self.closed_for: Reason | None = None
        self.answer: list[object] = []  # what was said at the door

    def admit(self, subprotocol: str | None) -> None:
        self.answer.append(subprotocol)

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied") -> None:
        self.answer.append((status, why, retry_after, cause))

    def write(self, frame: bytes) -> None:
        assert self.plain
        self.frames += 1
        short = frame[0] == 0x81 and frame[1] < 126
        self.take(frame[2:].decode() if short else frame[2:])

    def send(self, data: str | bytes) -> None:
        self.take(data)

    def take(self, data: str | bytes) -> None:
        if self.closed is not None:
            return
        if len(self.got) == self.room:
            self.leave(reasons.SLOW.code, reasons.SLOW.text)
        else:
            self.got.append(data)

    def close(self, code: int, reason: str) -> None:
        self.leave(code, reason)

    def shut(self, reason: Reason) -> None:
        self.closed_for = reason
        self.leave(reason.code, reason.text)

    def abort(self) -> None:
        self.leave(1006, "")

    def leave(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)
            if self.client is not None:
                self.house.core.closed(self.client, code, reason)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Asker:
    """A worker or caller at the other end of a link. What it gets has been on the wire."""

    def __init__(self) -> None:
        self.full = False
        self.limit = wire.MAX_FRAME  # bytes that it may be behind
        self.answers: list[Message] = []
        self.events: list[Message] = []

    def send(self, message: Message, size: int = 0) -> None:
        (copy,) = wire.unpack(wire.pack([message]))
        (self.answers if copy[0] in (op.ANSWER, op.NO_ANSWER) else self.events).append(copy)
        self.limit -= size
        self.full = self.full or self.limit < 0


class House:
    """A gateway with the sockets and askers around it."""

    def __init__(
        self,
        client_pending: int = 256,
        event_buffer: int = 1 << 30,
        *,
        auth_timeout: float = 0,
        devices: Devices | None = None,
        kept: Kept = KEPT,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.dispatch = Dispatch(router("sticky", Random(1)), client_pending, event_buffer)
        self.now = 0.0
        self.core = Core(
            KEY,
            self.dispatch,
            encode,
            self.counters,
            lambda: self.now,
            wall=lambda: EPOCH + self.now,
            auth_timeout=auth_timeout,
            devices=devices,
            kept=kept,
        )
        self.caller = Asker()

    def open(self, *, plain: bool = True, room: int = 1 << 30) -> Client:
        """Do as the listener does when a client opens."""
        socket = Socket(self, plain=plain, room=room)
        client = self.core.opened(socket, INTRODUCTION, HEADERS)
        socket.client = client
        if socket.closed is not None:
            self.core.closed(client, *socket.closed)
        return client

    def join(self, name: str = "worker-1", credit: int = 1000, *, decides: bool = False) -> Staff:
        asker = Asker()
        staff = Staff(self, asker, Port(name, f"key of {name}", 0, asker.send))
        staff.do([op.TAKE, credit, decides])
        return staff

    def arrive(self) -> tuple[Client, Socket]:
        """Do as the listener does with a client whose handshake a worker has to decide on."""
        socket = Socket(self, plain=True, room=1 << 30)
        return self.core.arrived(socket, [*INTRODUCTION], HEADERS), socket

    def do(self, *batch: Message) -> None:
        """Let the caller command something."""
        self.core.apply(list(batch), self.caller, None)

    def ask(self, ask: Ask, argument: object = None) -> Any:
        """Let the caller ask something."""
        self.do([op.QUERY, 77, int(ask), argument])
        opcode, number, found = self.caller.answers.pop()
        assert (opcode, number) == (op.ANSWER, 77)
        return found


class Staff(NamedTuple):
    """A worker."""

    house: House
    asker: Asker
    port: Port

    def do(self, *batch: Message) -> None:
        self.house.core.apply(list(batch), self.asker, self.port)

    @property
    def kinds(self) -> list[tuple[int, int]]:
        """Opcode and number of each event that came, of one client."""
        return [(event[0], event[3]) for event in self.asker.events if event[0] != op.FORGET]

    @property
    def forgot(self) -> list[str]:
        """The clients that it was told to forget."""
        return [event[1] for event in self.asker.events if event[0] == op.FORGET]

    def finish(self) -> None:
        """Acknowledge everything."""
        while self.port.outstanding:
            self.do([op.ACK, *self.port.outstanding])


def socket_of(client: Client) -> Socket:
    assert isinstance(client.connection, Socket)
    return client.connection


def got(client: Client) -> list[str | bytes]:
    return socket_of(client).got


# What clients do


def test_what_a_client_does_reaches_a_worker_in_order() -> None:
    house = House()
    worker = house.join()
    client = house.open()
    house.core.received(client, "hello")
    house.core.received(client, b"\x00\xff")
    house.core.closed(client, 1001, "going away")

    state = [0, None, wire.pack({}), INTRODUCTION, False]
    assert worker.asker.events == [
        [op.CONNECT, 1, client.id, 1, state, HEADERS],
        [op.MESSAGE, 2, client.id, 2, None, "hello"],
        [op.MESSAGE, 3, client.id, 3, None, b"\x00\xff"],
        [op.CLOSE, 4, client.id, 4, None, [1001, "going away"]],
    ]
    assert house.core.events == 4
    worker.finish()
    assert house.dispatch.bytes == 0
    assert house.core._closing == {}


def test_events_are_unhandled_until_they_are_acknowledged_wherever_they_are() -> None:
    house = House()
    house.core.received(house.open(), "still there")
    house.core.closed(house.open(), 1000, "")
    assert house.core.unhandled == 4

    worker = house.join(credit=1)
    worker.do([op.DRAIN])
    assert house.core.unhandled == 4

    worker.do([op.ACK, *worker.port.outstanding])
    assert house.core.unhandled == 3
    house.join().finish()
    assert house.core.unhandled == 0


def test_a_client_id_names_its_gateway() -> None:
    assert gateway_of(House().open().id) == KEY


def test_a_client_that_closed_is_in_no_index() -> None:
    house = House()
    client = house.open()
    house.do([op.BIND, client.id, "ann", "", False], [op.JOIN, client.id, "red"])
    house.core.closed(client, 1000, "")

    assert house.ask(Ask.ONLINE, client.id) is False
    assert house.ask(Ask.UIDS) == []
    assert house.ask(Ask.GROUPS) == []


def test_its_close_event_still_says_who_a_client_was() -> None:
    house = House()
    client = house.open()
    house.do([op.BIND, client.id, "ann", "", False])
    house.core.closed(client, 1000, "")
    worker = house.join()

    assert [event[4] and event[4][1] for event in worker.asker.events] == ["ann", None]


def test_a_client_that_comes_while_too_much_waits_is_told_to_come_again() -> None:
    house = House(event_buffer=1000)
    first = house.open()
    house.core.received(first, "x" * 1000)
    second = house.open()

    assert socket_of(second).closed_for == reasons.OVERLOADED
    assert house.ask(Ask.CLIENTS) == [first.id]
    worker = house.join()
    worker.finish()
    assert {event[2] for event in worker.asker.events} == {first.id}
    house.open()
    assert house.ask(Ask.CLIENT_COUNT) == 2


# Turns


def test_what_a_turn_commanded_is_carried_out_once_whoever_sends_it() -> None:
    house = House()
    first, second = house.join("worker-1"), house.join("worker-2")
    client = house.open()
    first.do([op.TURN, "event", 1, [[op.SEND, client.id, "a"], [op.SEND, client.id, "b"]]])
    second.do([op.TURN, "event", 1, [[op.SEND, client.id, "a"], [op.SEND, client.id, "b"]]])
    second.do([op.TURN, "event", 2, [[op.SEND, client.id, "c"]]], [op.SEND, client.id, "d"])
    first.do([op.TURN, "other event", 1, [[op.SEND, client.id, "e"]]])

    assert got(client) == ["a", "b", "c", "d", "e"]
    assert house.counters == {"commands.repeated": 2}


def test_who_repeats_a_change_of_a_client_is_told_with_the_next_event_what_it_is_like() -> None:
    """Its new worker took it for changed by itself, and what the gateway said of it for old."""
    house = House()
    client = house.open()
    first = house.join("worker-1")
    first.do(
        [op.TURN, "event", 1, [[op.SET_SESSION, client.id, {"n": 1}, True], [op.BIND, client.id, "ann", "", True]]]
    )
    house.dispatch.lost(first.port)
    second = house.join("worker-2")
    second.do(
        [op.TURN, "event", 1, [[op.SET_SESSION, client.id, {"n": 2}, True], [op.BIND, client.id, "bob", "", True]]]
    )
    house.core.received(client, "next")

    assert [event[4] for event in second.asker.events] == [
        [0, "ann", wire.pack({"n": 1}), INTRODUCTION, True],
        [2, "ann", wire.pack({"n": 1}), None, False],
    ]


# Sending


def test_a_message_to_one_client() -> None:
    house = House()
    client, other = house.open(), house.open()
    house.do([op.SEND, client.id, "text"], [op.SEND, client.id, b"binary"])

    assert got(client) == ["text", b"binary"]
    assert got(other) == []


def test_a_message_to_a_list_of_clients_goes_once_to_each() -> None:
    house = House()
    one, two, three = house.open(), house.open(), house.open()
    house.do([op.SEND, [one.id, two.id, "gone", one.id], "hi"])

    assert (got(one), got(two), got(three)) == (["hi"], ["hi"], [])
    assert house.counters == {"discarded.client_gone": 1}


def test_a_message_to_uids() -> None:
    house = House()
    phone, laptop, bob, nobody = (house.open() for _ in range(4))
    house.do(
        [op.BIND, phone.id, "ann", "", False],
        [op.BIND, laptop.id, "ann", "", False],
        [op.BIND, bob.id, "bob", "", False],
        [op.SEND_UID, ["ann"], "a"],
        [op.SEND_UID, ["bob", "ann", "nobody", "bob"], "b"],
    )

    assert [got(client) for client in (phone, laptop, bob, nobody)] == [["a", "b"], ["a", "b"], ["b"], []]
    assert house.counters == {}


def test_a_message_to_groups_goes_once_to_who_is_in_two_and_not_to_the_excluded() -> None:
    house = House()
    both, red, blue, out = (house.open() for _ in range(4))
    for client, group in ((both, "red"), (both, "blue"), (red, "red"), (blue, "blue"), (out, "red")):
        house.do([op.JOIN, client.id, group])
    house.do(
        [op.SEND_GROUP, ["red"], "1", []],
        [op.SEND_GROUP, ["red", "blue", "empty"], "2", [out.id, "gone"]],
        [op.SEND_GROUP, ["empty"], "3", []],
        [op.SEND_GROUP, [], "4", []],
    )

    assert [got(client) for client in (both, red, blue, out)] == [["1", "2"], ["1", "2"], ["2"], ["1"]]


def test_a_message_to_all_but_some() -> None:
    house = House()
    one, two = house.open(), house.open()
    house.do([op.SEND_ALL, "1", []], [op.SEND_ALL, "2", [two.id]])

    assert (got(one), got(two)) == (["1", "2"], ["1"])


def test_a_frame_is_made_once_for_all_who_can_take_it() -> None:
    house = House()
    made: list[str | bytes] = []

    def count(data: str | bytes) -> bytes:
        made.append(data)
        return encode(data)

    house.core._encode = count
    plain = [house.open() for _ in range(3)]
    compressed = house.open(plain=False)
    house.do([op.SEND_ALL, "hi", []], [op.SEND_GROUP, ["empty"], "nobody", []])

    assert made == ["hi"]
    assert [socket_of(client).frames for client in plain] == [1, 1, 1]
    assert [got(client) for client in (*plain, compressed)] == [["hi"]] * 4


@pytest.mark.parametrize("plain", [True, False])
def test_a_slow_client_is_closed_in_the_middle_of_a_message_to_all(*, plain: bool) -> None:
    house = House()
    worker = house.join()
    clients = [house.open(room=1 if number % 2 else 10, plain=plain) for number in range(6)]
    for client in clients:
        house.do([op.JOIN, client.id, "red"], [op.BIND, client.id, "ann", "", False])
    house.do([op.SEND_ALL, "1", []], [op.SEND_ALL, "2", []])

    assert [len(got(client)) for client in clients] == [2, 1, 2, 1, 2, 1]
    house.do([op.SEND_GROUP, ["red"], "3", []], [op.SEND_UID, ["ann"], "4"])
    assert [len(got(client)) for client in clients] == [4, 1, 4, 1, 4, 1]
    closed = [event for event in worker.asker.events if event[0] == op.CLOSE]
    assert [event[5][0] for event in closed] == [reasons.SLOW.code] * 3


def test_slow_clients_may_be_closed_by_a_message_to_their_group_or_uid() -> None:
    house = House()
    for command in ([op.SEND_GROUP, ["red"], "hi", []], [op.SEND_UID, ["ann"], "hi"]):
        clients = [house.open(room=0) for _ in range(5)]
        for client in clients:
            house.do([op.JOIN, client.id, "red"], [op.BIND, client.id, "ann", "", False])
        house.do(command)

        assert all(socket_of(client).closed for client in clients)
        assert house.ask(Ask.GROUPS) == []
        assert house.ask(Ask.UIDS) == []


# Binding, grouping, sessions


def test_a_uid_that_is_bound_again_takes_the_place_of_the_first() -> None:
    house = House()
    client = house.open()
    house.do(
        [op.BIND, client.id, "ann", "", False],
        [op.BIND, client.id, "bob", "", False],
        [op.BIND, client.id, "bob", "", False],
    )

    assert house.ask(Ask.UIDS) == ["bob"]
    house.do([op.UNBIND, client.id, False], [op.UNBIND, client.id, False])
    assert house.ask(Ask.UIDS) == []


def test_groups_are_joined_left_and_dissolved() -> None:
    house = House()
    one, two = house.open(), house.open()
    house.do([op.JOIN, one.id, "red"], [op.JOIN, one.id, "red"], [op.JOIN, two.id, "red"], [op.JOIN, two.id, "blue"])
    assert house.ask(Ask.GROUP_COUNTS) == {"red": 2, "blue": 1}

    house.do([op.LEAVE, one.id, "red"], [op.LEAVE, one.id, "red"], [op.LEAVE, one.id, "green"])
    assert house.ask(Ask.GROUP_COUNTS) == {"red": 1, "blue": 1}
    house.do([op.UNGROUP, "red"], [op.UNGROUP, "green"])
    assert house.ask(Ask.GROUP_CLIENTS) == {"blue": [two.id]}


def test_a_client_is_in_so_many_groups_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    house = House(kept=Kept(groups=2))
    client = house.open()
    house.do(*[[op.JOIN, client.id, group] for group in ("red", "blue", "green", "red", "grey")])

    assert house.ask(Ask.GROUP_COUNTS) == {"red": 1, "blue": 1}
    assert house.counters == {"discarded.too_many_groups": 2}
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"a command is not carried out: client {client.id} is in 2 groups already ([gateway] max_groups)"
    ]


def test_a_uid_and_the_name_of_a_group_have_so_many_characters_and_no_more() -> None:
    house = House(kept=Kept(name=3))
    worker = house.join()
    client = house.open()
    worker.do([op.JOIN, client.id, "blue"], [op.JOIN, client.id, "red"], [op.BIND, client.id, "ann", "", True])
    worker.do([op.BIND, client.id, "anne", "", True])
    house.core.received(client, "next")

    assert house.ask(Ask.GROUPS) == ["red"]
    assert house.ask(Ask.UIDS) == ["ann"]
    assert worker.asker.events[-1][4] == [2, "ann", wire.pack({}), None, False]
    assert house.counters == {"discarded.name_too_long": 2}


@pytest.mark.parametrize(
    ("uid", "groups", "session", "what"),
    [
        ("anne", [], {}, "name_too_long"),
        (None, ["blue"], {}, "name_too_long"),
        (None, ["a", "b", "c"], {}, ""),
        (None, [], {"a": "x" * 100}, "session_too_big"),
    ],
)
def test_who_is_let_in_with_more_than_is_kept_is_refused(
    uid: str | None, groups: list[str], session: dict[str, str], what: str
) -> None:
    house = House(kept=Kept(groups=2, session=100, name=3))
    worker = house.join(decides=True)
    _, socket = house.arrive()
    worker.do([op.ACCEPT, 1, uid, "", groups, session, None, None])

    why = "its uid, groups or session are more than is kept"
    assert socket.answer == [(500, why, None, "over_limit")]
    assert house.counters == ({f"discarded.{what}": 1} if what else {})


def test_a_session_that_outgrows_its_bound_stays_as_it_was_and_its_worker_is_told() -> None:
    house = House(kept=Kept(session=100))
    worker = house.join()
    client = house.open()
    for key in "ab":
        worker.do([op.UPDATE_SESSION, client.id, {key: "x" * 60}, [], True])
    worker.do([op.SET_SESSION, client.id, {"c": "x" * 120}, True])
    house.core.received(client, "next")

    assert house.ask(Ask.SESSION, client.id) == {"a": "x" * 60}
    assert worker.asker.events[-1][4] == [3, None, wire.pack({"a": "x" * 60}), None, False]
    assert house.counters == {"discarded.session_too_big": 2}


def test_a_session_is_set_and_updated() -> None:
    house = House()
    client = house.open()
    house.do([op.SET_SESSION, client.id, {"a": 1, "b": 2, "c": 3}, False])
    house.do([op.UPDATE_SESSION, client.id, {"a": [9], "d": 4}, ["b", "nothing"], False])

    assert house.ask(Ask.SESSION, client.id) == {"a": [9], "c": 3, "d": 4}


@pytest.mark.parametrize(
    ("command", "uid", "session"),
    [
        ([op.BIND, "ann", ""], "ann", {}),
        ([op.UNBIND], None, {}),
        ([op.SET_SESSION, {"a": 1}], None, {"a": 1}),
        ([op.UPDATE_SESSION, {"a": 1}, []], None, {"a": 1}),
    ],
)
def test_a_worker_is_told_what_changed_and_how_many_of_the_changes_were_its_own(
    command: Message, uid: str | None, session: dict[str, Any]
) -> None:
    house = House()
    worker = house.join()
    client = house.open()
    opcode, *rest = command
    house.do([opcode, client.id, *rest, True])  # of a caller none is counted
    house.core.received(client, "1")
    worker.do([opcode, client.id, *rest, False])
    house.core.received(client, "2")
    worker.do([opcode, client.id, *rest, True])
    house.core.received(client, "3")
    house.core.received(client, "4")

    packed = wire.pack(session)
    told = [event[4] for event in worker.asker.events[1:]]
    assert told == [[count, uid, packed, None, False] for count in (0, 0, 1)] + [None]


def test_a_change_by_a_worker_that_does_not_have_the_client_is_not_counted() -> None:
    house = House()
    one, other = house.join("a"), house.join("b")
    client = house.open()
    has, has_not = (one, other) if one.asker.events else (other, one)
    has_not.do([op.BIND, client.id, "ann", "", True])
    house.core.received(client, "1")

    assert has.asker.events[-1][4][:2] == [0, "ann"]


def test_a_client_on_its_way_out_may_still_be_changed_until_its_close_event_is_done() -> None:
    house = House()
    worker = house.join(credit=1)
    client = house.open()
    house.do([op.BIND, client.id, "ann", "", False])
    house.core.closed(client, 1000, "")
    worker.do(
        [op.SET_SESSION, client.id, {"a": 1}, True],
        [op.UPDATE_SESSION, client.id, {"b": 2}, [], True],
        [op.BIND, client.id, "bob", "", True],
    )
    assert house.counters == {}
    assert house.ask(Ask.UIDS) == []
    worker.do([op.ACK, 1])
    assert worker.asker.events[-1][4] == [3, "bob", wire.pack({"a": 1, "b": 2}), None, False]

    worker.do([op.UNBIND, client.id, True])
    assert client.uid is None
    worker.finish()
    worker.do([op.BIND, client.id, "cy", "", True], [op.SET_SESSION, client.id, {}, True])
    assert house.counters == {"discarded.client_gone": 2}


def test_a_client_on_its_way_out_joins_nothing_and_gets_nothing() -> None:
    house = House()
    client = house.open()
    house.core.closed(client, 1000, "")
    house.do(
        [op.JOIN, client.id, "red"],
        [op.LEAVE, client.id, "red"],
        [op.SEND, client.id, "hi"],
        [op.CLOSE_CLIENT, client.id, "bye", 1000, ""],
        [op.DESTROY_CLIENT, client.id],
    )

    assert house.ask(Ask.GROUPS) == []
    assert got(client) == []
    assert house.counters == {"discarded.client_gone": 5}


# Closing


def test_a_client_is_closed_with_a_last_message() -> None:
    house = House()
    worker = house.join()
    one, two = house.open(), house.open()
    house.do([op.CLOSE_CLIENT, one.id, "bye", 4000, "kicked"], [op.CLOSE_CLIENT, two.id, None, 1000, ""])

    assert (got(one), socket_of(one).closed) == (["bye"], (4000, "kicked"))
    assert (got(two), socket_of(two).closed) == ([], (1000, ""))
    assert [event[5] for event in worker.asker.events[2:]] == [[4000, "kicked"], [1000, ""]]


def test_a_last_message_may_be_one_too_many() -> None:
    house = House()
    worker = house.join()
    client = house.open(room=0)
    house.do([op.CLOSE_CLIENT, client.id, "bye", 4000, "kicked"])

    assert worker.kinds == [(op.CONNECT, 1), (op.CLOSE, 2)]
    assert worker.asker.events[-1][5][0] == reasons.SLOW.code


def test_a_client_is_destroyed_at_once() -> None:
    house = House()
    client = house.open()
    house.do([op.DESTROY_CLIENT, client.id], [op.DESTROY_CLIENT, client.id])

    assert socket_of(client).closed == (1006, "")
    assert house.counters == {"discarded.client_gone": 1}


# Workers


def test_a_worker_gets_events_once_it_takes_them_and_no_more_than_it_takes() -> None:
    house = House()
    client = house.open()
    house.core.received(client, "hi")
    asker = Asker()
    worker = Staff(house, asker, Port("worker-1", "k", 0, asker.send))
    worker.do([op.QUERY, 1, int(Ask.SYNC), None])

    assert asker.events == []
    worker.do([op.TAKE, 1, False])
    assert worker.kinds == [(op.CONNECT, 1)]
    worker.do([op.ACK, 1])
    assert worker.kinds == [(op.CONNECT, 1), (op.MESSAGE, 2)]


def test_a_worker_that_drains_gets_nothing_new() -> None:
    house = House()
    worker = house.join()
    client = house.open()
    worker.do([op.DRAIN])
    house.core.received(client, "hi")
    worker.do([op.ACK, 1])

    assert worker.kinds == [(op.CONNECT, 1)]
    successor = house.join("worker-2")
    assert successor.kinds == [(op.MESSAGE, 2)]
    assert worker.forgot == [client.id]


def test_commands_of_a_batch_take_effect_before_the_events_after_its_ack() -> None:
    house = House()
    worker = house.join(credit=1)
    client = house.open()
    house.core.received(client, "hi")
    worker.do([op.BIND, client.id, "ann", "", True], [op.ACK, 1])

    assert worker.asker.events[-1][4] == [1, "ann", wire.pack({}), None, False]


@pytest.mark.parametrize("message", [[op.ACK, 1], [op.ACK], [op.DRAIN], [op.TAKE, 10, False]])
def test_a_caller_is_no_worker(message: Message) -> None:
    with pytest.raises(LinkError, match="is no worker"):
        House().do(message)


@pytest.mark.parametrize("message", [[op.TAKE, 5, False], [op.ACK, 2], [op.ACK, 1, 1], [op.ACK, "1"], [op.ACK, [1]]])
def test_a_worker_cannot_say_what_is_not_so(message: Message) -> None:
    house = House()
    worker = house.join()
    house.open()

    with pytest.raises(LinkError, match=r"takes events|acknowledges"):
        worker.do(message)
    house.dispatch.lost(worker.port)
    successor = house.join("worker-2")
    successor.finish()
    assert house.dispatch.bytes == 0


def test_a_worker_takes_events_once() -> None:
    house = House()
    idle, leaver = house.join("a"), house.join("b")
    leaver.do([op.DRAIN])
    leaver.do([op.TAKE, 5, False])  # it changed its mind, with nothing outstanding

    with pytest.raises(LinkError, match="does so already"):
        idle.do([op.TAKE, 5, False])
    house.dispatch.lost(idle.port)
    house.open()
    leaver.do([op.DRAIN])
    with pytest.raises(LinkError, match="does so already"):
        leaver.do([op.TAKE, 5, False])


@pytest.mark.parametrize("credit", [0, -1, "5", None, 1.5])
def test_a_worker_takes_at_least_one_event(credit: object) -> None:
    with pytest.raises(LinkError, match=r"takes .* events at once"):
        House().join(credit=credit)  # type: ignore[arg-type]  # as it may stand on the wire


# Asking


def test_a_question_sees_what_was_commanded_before_it() -> None:
    house = House()
    client = house.open()
    house.do([op.JOIN, client.id, "red"], [op.QUERY, 5, int(Ask.CLIENT_COUNT), ["red"]], [op.UNGROUP, "red"])

    assert house.caller.answers == [[op.ANSWER, 5, 1]]


def test_whoever_does_not_read_gets_no_answers() -> None:
    house = House()
    house.caller.full = True
    house.do([op.QUERY, 1, int(Ask.SYNC), None])

    assert house.caller.answers == []
    assert house.counters == {"discarded.asker_full": 1}


def test_who_asks_for_much_gets_it_until_it_is_behind() -> None:
    house = House()
    for _ in range(10):
        house.open()
    house.caller.limit = 1000
    house.do(*[[op.QUERY, number, int(Ask.CLIENTS), None] for number in range(50)])

    assert 1 < len(house.caller.answers) < 10
    assert house.counters["discarded.asker_full"] == 50 - len(house.caller.answers)


@pytest.mark.parametrize("ask", [Ask.CLIENTS, Ask.GROUP_CLIENTS, Ask.GROUP_UIDS, Ask.SESSIONS])
def test_an_answer_that_is_too_big_is_told_and_costs_nobody_else_his(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    for number in range(10):
        client = house.open()
        house.do([op.BIND, client.id, f"uid {number}", "", False], [op.JOIN, client.id, "red"])
        house.do([op.SET_SESSION, client.id, dict.fromkeys("abcd"), False])
    for module in (core_module, answers_module):
        monkeypatch.setattr(module, "MAX_ANSWER", 64)
    house.do([op.QUERY, 1, int(ask), None], [op.QUERY, 2, int(Ask.CLIENT_COUNT), None])

    why = "the answer has more than 64 bytes: ask about fewer at once"
    assert house.caller.answers == [[op.NO_ANSWER, 1, why], [op.ANSWER, 2, 10]]
    assert house.counters["answers.too_big"] == 1


# Who may come, and stay


def with_each(message: Message, place: int, *values: object) -> list[Message]:
    """Return the message once with each of these values at one place."""
    return [[*message[:place], value, *message[place + 1 :]] for value in values]


ACCEPTED: Message = [op.ACCEPT, 1, "ann", "", [], {}, None, None]
#: Decisions on handshakes that are none.
DECISIONS = [
    *with_each(ACCEPTED, 2, 5, ["ann"]),
    *with_each(ACCEPTED, 4, None, "red", [5]),
    *with_each(ACCEPTED, 5, None, []),
    *with_each(ACCEPTED, 6, 5, ["v1"]),
    *with_each(ACCEPTED, 7, 5, []),
    *with_each([op.REFUSE, 1, 401, "", None], 2, None, "401", 200, 101, 600),
    *with_each([op.REFUSE, 1, 401, "", None], 3, None, 5),
    *with_each([op.REFUSE, 1, 401, "", None], 4, "soon", 0.5),
]


def test_a_client_that_a_worker_accepts_is_what_the_worker_says_before_it_is_open() -> None:
    house = House()
    worker = house.join(decides=True)
    client, socket = house.arrive()
    assert worker.asker.events == [[op.HANDSHAKE, 1, client.id, INTRODUCTION, HEADERS]]
    assert house.core.index.clients == {}

    worker.do([op.ACCEPT, 1, "ann", "", ["red"], {"a": 1}, "v2", None])
    assert socket.answer == ["v2"]
    house.core.opened(socket, client.introduction, HEADERS, client)

    assert house.core.index.of_uids(["ann"]) == [client]
    assert house.core.index.of_groups(["red"]) == {client}
    event = worker.asker.events[1]
    assert event[0] == op.CONNECT
    assert event[4] == [0, "ann", wire.pack({"a": 1}), [*INTRODUCTION[:4], "v2"], False]
    verify(house)


def test_a_client_that_a_worker_refuses_is_told_so() -> None:
    house = House()
    worker = house.join(decides=True)
    _, socket = house.arrive()

    worker.do([op.REFUSE, 1, 429, "not so fast", 7])

    assert socket.answer == [(429, "not so fast", 7, "denied")]


def test_what_is_decided_on_who_gave_up_is_nothing() -> None:
    house = House()
    worker = house.join(decides=True)
    client, socket = house.arrive()
    house.core.gave_up(client)

    worker.do([op.ACCEPT, 1, "ann", "", [], {}, None, None], [op.REFUSE, 1, 401, "", None])

    assert socket.answer == []


@pytest.mark.parametrize("message", DECISIONS, ids=repr)
def test_a_decision_that_is_not_made_as_it_should_be_is_an_error_of_the_worker(message: Message) -> None:
    house = House()
    worker = house.join(decides=True)
    _, socket = house.arrive()

    with pytest.raises(LinkError):
        worker.do(message)
    assert socket.answer == []


def test_who_comes_by_a_token_that_is_revoked_meanwhile_is_refused() -> None:
    house = House()
    worker = house.join(decides=True)
    sockets = [house.arrive()[1] for _ in range(3)]

    house.do([op.REVOKE, "uid", "ann", None, 60])
    worker.do([op.ACCEPT, 1, "ann", "", [], {}, None, [EPOCH + 60, "t1", EPOCH - 1]])
    worker.do([op.ACCEPT, 2, "ann", "", [], {}, None, [EPOCH - 1, "t1", EPOCH - 9]])
    worker.do([op.ACCEPT, 3, "ann", "", [], {}, None, [inf, "t1", EPOCH + 1]])

    refused = [(401, why, None, why) for why in ("token_revoked", "token_expired")]
    assert [socket.answer for socket in sockets] == [[refused[0]], [refused[1]], [None]]


def test_who_stays_by_a_token_goes_when_that_ends_or_is_revoked() -> None:
    house = House()
    worker = house.join()
    ended, renewed, revoked, other = (house.open() for _ in range(4))
    for client in (ended, renewed, revoked, other):
        house.do([op.BIND, client.id, "ann", "", False], [op.TOKEN, client.id, [EPOCH + 10, client.id, EPOCH]])

    house.do([op.TOKEN, renewed.id, [inf, None, EPOCH]], [op.REVOKE, "id", revoked.id, None, 60])
    house.now = 11
    house.core.look_after()
    assert [socket_of(client).closed_for for client in (ended, renewed, revoked)] == [
        reasons.TOKEN_EXPIRED,
        None,
        reasons.TOKEN_REVOKED,
    ]

    house.do([op.TOKEN, renewed.id, [EPOCH + 5, None, EPOCH]])
    assert socket_of(renewed).closed_for is reasons.TOKEN_EXPIRED
    revocations = [[op.REVOKED, "id", revoked.id, EPOCH, EPOCH + 60]]
    assert [event for event in worker.asker.events if event[0] == op.REVOKED] == revocations
    late = house.join("worker-2")
    assert late.asker.events[:1] == revocations


def test_who_has_no_uid_in_time_is_closed() -> None:
    house = House(auth_timeout=5)
    silent, named, unbound, gone = (house.open() for _ in range(4))
    house.do([op.BIND, named.id, "ann", "", False], [op.BIND, unbound.id, "bob", "", False])
    house.core.closed(gone, 1000, "")
    house.now = 4
    house.do([op.UNBIND, unbound.id, False])

    house.now = 6
    house.core.look_after()
    assert [socket_of(client).closed_for for client in (silent, named, unbound, gone)] == [
        reasons.AUTH_TIMEOUT,
        None,
        None,
        None,
    ]
    house.now = 10
    house.core.look_after()
    assert socket_of(unbound).closed_for is reasons.AUTH_TIMEOUT


def test_one_client_too_many_takes_the_place_of_the_oldest() -> None:
    house = House(devices=Devices(KEY, Claims(1, keep_oldest=False, wall=lambda: EPOCH)))
    first, second, third = (house.open() for _ in range(3))
    house.do([op.BIND, first.id, "ann", "", False], [op.BIND, second.id, "ann", "tv", False])

    house.do([op.BIND, third.id, "ann", "", False])
    assert socket_of(first).closed_for is reasons.TOO_MANY_DEVICES
    assert house.core.index.uids == {"ann": {second, third}}

    house.core.closed(third, 1000, "")
    house.do([op.UNBIND, second.id, False], [op.BIND, second.id, "ann", "", False])
    assert socket_of(second).closed_for is None
    verify(house)


def test_one_client_too_many_is_refused_at_the_door_and_who_gave_up_there_has_no_place() -> None:
    house = House(devices=Devices(KEY, Claims(1, keep_oldest=True, wall=lambda: EPOCH)))
    worker = house.join(decides=True)
    (first, socket), (_, other) = house.arrive(), house.arrive()
    for number in (1, 2):
        worker.do([op.ACCEPT, number, "ann", "", [], {}, None, None])
    assert socket.answer == [None]
    assert other.answer == [(403, "too_many_devices", None, "too_many_devices")]

    house.core.gave_up(first)
    _, third = house.arrive()
    worker.do([op.ACCEPT, 3, "ann", "", [], {}, None, None])
    assert third.answer == [None]


# Messages that are not made as they should be

CLIENT, GROUP = "the id of a client", "red"
GOOD: list[Message] = [
    [op.SEND, CLIENT, "hi"],
    [op.SEND, [CLIENT], "hi"],
    [op.SEND_UID, ["ann"], "hi"],
    [op.SEND_GROUP, [GROUP], "hi", []],
    [op.SEND_ALL, "hi", []],
    [op.BIND, CLIENT, "bob", "", False],
    [op.UNBIND, CLIENT, False],
    [op.JOIN, CLIENT, GROUP],
    [op.LEAVE, CLIENT, GROUP],
    [op.UNGROUP, GROUP],
    [op.SET_SESSION, CLIENT, {}, False],
    [op.UPDATE_SESSION, CLIENT, {}, [], False],
    [op.CLOSE_CLIENT, CLIENT, "bye", 1000, ""],
    [op.DESTROY_CLIENT, CLIENT],
    [op.QUERY, 1, int(Ask.ONLINE), CLIENT],
    [op.TURN, "event", 1, [[op.JOIN, CLIENT, GROUP], [op.SET_SESSION, CLIENT, {}, True]]],
    [op.DRAIN],
    [op.TOKEN, CLIENT, [2e9, "t1", 0]],
    [op.REVOKE, "uid", "bob", None, 60.0],
    [op.ACCEPT, 1, None, "", [], {}, None, None],
    [op.REFUSE, 1, 401, "", None],
    [op.DISCARDED, 1.5, "worker-1", "handler.errors", CLIENT, "ann", [GROUP], ""],
]


#: What the fields must not be. The number of a query and the last field of a bind and the like may be anything.
BAD: list[Message] = [
    *with_each([op.SEND, CLIENT, "hi"], 1, None, 5, {}, [5], [[]], [CLIENT, None]),
    *with_each([op.SEND, CLIENT, "hi"], 2, None, 5, ["hi"], {}),
    *with_each([op.SEND_UID, ["ann"], "hi"], 1, None, "ann", [5], {"ann": 1}, [["ann"]]),
    *with_each([op.SEND_UID, ["ann"], "hi"], 2, None, 5),
    *with_each([op.SEND_GROUP, [GROUP], "hi", []], 1, None, GROUP, [5], {GROUP: 1}, [None], [[GROUP]]),
    *with_each([op.SEND_GROUP, [GROUP], "hi", []], 2, None, 5),
    *with_each([op.SEND_GROUP, [GROUP], "hi", []], 3, 5, CLIENT, [5], {CLIENT: 1}),
    *with_each([op.SEND_ALL, "hi", []], 1, None, 5),
    *with_each([op.SEND_ALL, "hi", []], 2, 5, [None]),
    *with_each([op.BIND, CLIENT, "bob", "", False], 1, None, 5, [CLIENT], {}),
    *with_each([op.BIND, CLIENT, "bob", "", False], 2, None, 5, b"bob", ["bob"], {}),
    *with_each([op.UNBIND, CLIENT, False], 1, None, 5, [CLIENT], {}),
    *with_each([op.JOIN, CLIENT, GROUP], 1, None, 5, [CLIENT], {}),
    *with_each([op.JOIN, CLIENT, GROUP], 2, None, 5, b"red", [GROUP], {}),
    *with_each([op.LEAVE, CLIENT, GROUP], 1, None, 5, [CLIENT], {}),
    *with_each([op.LEAVE, CLIENT, GROUP], 2, None, 5, b"red", [GROUP], {}),
    *with_each([op.UNGROUP, GROUP], 1, None, 5, [GROUP], {}),
    *with_each([op.SET_SESSION, CLIENT, {}, False], 1, None, 5, [CLIENT], {}),
    *with_each([op.SET_SESSION, CLIENT, {}, False], 2, None, 5, "a", [["a", 1]]),
    *with_each([op.UPDATE_SESSION, CLIENT, {}, [], False], 1, None, 5, [CLIENT], {}),
    *with_each([op.UPDATE_SESSION, CLIENT, {}, [], False], 2, None, 5, "a", [["a", 1]]),
    *with_each([op.UPDATE_SESSION, CLIENT, {}, [], False], 3, None, 5, "a", [5], [[]]),
    *with_each([op.CLOSE_CLIENT, CLIENT, "bye", 1000, ""], 1, None, 5, [CLIENT], {}),
    *with_each([op.CLOSE_CLIENT, CLIENT, "bye", 1000, ""], 2, 5, [], {}),
    *with_each([op.CLOSE_CLIENT, CLIENT, "bye", 1000, ""], 3, None, "1000", 1000.0, True),
    *with_each([op.CLOSE_CLIENT, CLIENT, "bye", 1000, ""], 4, None, 5, b""),
    *with_each([op.DESTROY_CLIENT, CLIENT], 1, None, 5, [CLIENT], {}),
    *with_each([op.QUERY, 1, int(Ask.ONLINE), CLIENT], 2, 99, -1, None, "1", [1]),
    *with_each([op.QUERY, 1, int(Ask.ONLINE), CLIENT], 3, 5, [CLIENT], {}),
    *with_each([op.TURN, "event", 1, []], 1, None, 5, b"event", ["event"]),
    *with_each([op.TURN, "event", 1, []], 2, None, "1", 1.0, True),
    *with_each([op.TURN, "event", 1, []], 3, None, 5, {}, [5], [[]], [[[]]], [[op.UNGROUP]], [[op.UNGROUP, 5]]),
    *with_each([op.TURN, "event", 1, []], 3, [[None]], [[{}]], [[op.ACK, 1]], [[op.TAKE, 5, False]], [[op.DRAIN]]),
    *with_each([op.TURN, "event", 1, []], 3, [[op.TURN, "e", 1, []]], [[op.QUERY, 1, int(Ask.ONLINE), CLIENT]]),
    *with_each([op.DISCARDED, 1, "worker-1", "handler.errors", CLIENT, "ann", [GROUP], ""], 1, None, "1", [1]),
    *with_each([op.DISCARDED, 1, "worker-1", "handler.errors", CLIENT, "ann", [GROUP], ""], 6, None, GROUP, [5]),
    *with_each(
        [op.QUERY, 1, int(Ask.CONNECTIONS), []], 3, None, [], ["", "", "", "size", 5], ["", "", "", "age", 5000]
    ),
    *with_each([op.QUERY, 1, int(Ask.DISCARDS), []], 3, None, [], ["60", "", "", ""], [60, None, "", ""]),
    *with_each([op.TOKEN, CLIENT, None], 1, None, 5, [CLIENT], {}),
    *with_each(
        [op.TOKEN, CLIENT, None], 2, 5, [], [5, None], ["5", None, 0], [5, 5, 0], [5, None, "0"], [nan, None, 0]
    ),
    *with_each([op.REVOKE, "uid", "bob", None, 60.0], 1, None, "name", ["uid"]),
    *with_each([op.REVOKE, "uid", "bob", None, 60.0], 2, None, 5, ["bob"]),
    *with_each([op.REVOKE, "uid", "bob", None, 60.0], 3, "now", [], True),
    *with_each([op.REVOKE, "uid", "bob", None, 60.0], 4, None, "60"),
    *with_each([op.ACCEPT, 1, None, "", [], {}, None, None], 1, None, "1", [1]),
    *with_each([op.REFUSE, 1, 401, "", None], 1, None, "1", [1]),
    [op.ANSWER, 1, 2],
    [op.MESSAGE, 1, CLIENT, 1, None, "hi"],
    [op.ANNOUNCE],
    *with_each([0], 0, 0, -1, 1 << 60),
]


def filled(message: Any, client: Client) -> Any:
    """Return a message with a real client id in it."""
    if isinstance(message, list):
        return [filled(item, client) for item in message]
    if isinstance(message, dict):
        return {filled(key, client): value for key, value in message.items()}
    return client.id if message == CLIENT else message


def furnished() -> tuple[House, Staff, Client]:
    house = House()
    worker = house.join()
    client = house.open()
    house.do(
        [op.BIND, client.id, "ann", "", False],
        [op.JOIN, client.id, GROUP],
        [op.SET_SESSION, client.id, {"a": 1}, False],
    )
    return house, worker, client


def verify(house: House) -> None:
    """Check that the index says the same in both directions, and that every event is accounted for."""
    index = house.core.index
    for client in index.clients.values():
        assert client.open
        assert client.uid is None or client in index.uids[client.uid]
        assert all(client in index.groups[group] for group in client.groups)
    for uid, clients in index.uids.items():
        assert clients
        assert all(client.uid == uid and index.clients[client.id] is client for client in clients)
    for group, clients in index.groups.items():
        assert clients
        assert all(group in client.groups and index.clients[client.id] is client for client in clients)
    wire.pack([list(index.uids), list(index.groups), [client.uid for client in index.clients.values()]])
    assert all(type(name) is str for name in (*index.uids, *index.groups))


@pytest.mark.parametrize("message", GOOD, ids=repr)
def test_a_good_message_is_carried_out_and_one_of_another_length_is_not(message: Message) -> None:
    house, worker, client = furnished()
    for wrong in (message[:-1], [*message, False]):
        if wrong:
            with pytest.raises(LinkError, match=rf"message {message[0]} with {len(wrong)} fields, not {len(message)}"):
                worker.do(filled(wrong, client))
    verify(house)
    worker.do(filled(message, client))
    verify(house)


@pytest.mark.parametrize("message", BAD, ids=repr)
def test_a_bad_message_is_an_error_of_the_peer_and_changes_nothing(message: Message) -> None:
    house, worker, client = furnished()
    before = (client.uid, set(client.groups), client.session)

    with pytest.raises(LinkError):
        worker.do(filled(message, client))
    assert before == (client.uid, client.groups, client.session)
    assert got(client) == []
    assert socket_of(client).closed is None
    verify(house)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([CLIENT, GROUP, "ann", 1, 1000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.binary(), inner, max_size=4),
    max_leaves=8,
)
garbage = st.builds(
    lambda opcode, rest: [opcode, *rest], st.integers(0, 60) | st.integers(), st.lists(anything, max_size=6)
)


@st.composite
def spoiled(draw: st.DrawFn) -> Message:
    """A good message with one field that may be anything."""
    message = list(draw(st.sampled_from(GOOD)))
    if len(message) > 1:
        message[draw(st.integers(1, len(message) - 1))] = draw(anything)
    return message


@given(st.lists(garbage | spoiled() | st.sampled_from(GOOD), max_size=6), st.booleans())
def test_whatever_a_peer_sends_it_is_the_only_one_to_suffer(batch: list[Message], is_worker: bool) -> None:
    house, worker, client = furnished()
    house.core.received(client, "hi")
    try:
        house.core.apply(filled(batch, client), worker.asker, worker.port if is_worker else None)
    except LinkError:
        if is_worker:
            house.dispatch.lost(worker.port)
    verify(house)
    wire.pack(client.session)
    arguments: dict[int, object] = {
        Ask.CLIENTS_OF_UIDS: [],
        Ask.ROUND_TRIP: "nobody",
        Ask.CONNECTIONS: ["", "", "", "age", 10],
        Ask.DISCARDS: [60, "", "", ""],
    }
    for ask in Ask:
        house.ask(ask, arguments.get(ask))
    if client.open:
        house.core.closed(client, 1000, "")
    successor = house.join("worker-2")
    worker.finish()
    successor.finish()
    assert house.dispatch.bytes == 0
    assert house.core._closing == {}


# Pings


def test_a_ping_is_timed_until_its_worker_acknowledges_it() -> None:
    house = House()
    worker = house.join()
    house.do([op.QUERY, 5, int(Ask.ROUND_TRIP), worker.port.key])

    assert worker.asker.events == [[op.PING, 1]]
    assert house.caller.answers == []
    house.now = 0.25
    worker.do([op.ACK, 1])
    assert house.caller.answers == [[op.ANSWER, 5, 250.0]]
    with pytest.raises(LinkError, match="acknowledges event 1, which it does not have"):
        worker.do([op.ACK, 1])


def test_a_ping_takes_no_credit_and_lets_events_keep_their_order() -> None:
    house = House()
    worker = house.join(credit=1)
    client = house.open()
    house.core.received(client, "waits for credit")
    house.do([op.QUERY, 5, int(Ask.ROUND_TRIP), worker.port.key])
    worker.do([op.ACK, 2])

    assert house.caller.answers == [[op.ANSWER, 5, 0.0]]
    assert [event[:2] for event in worker.asker.events] == [[op.CONNECT, 1], [op.PING, 2]]
    worker.do([op.ACK, 1])
    assert [event[:2] for event in worker.asker.events] == [[op.CONNECT, 1], [op.PING, 2], [op.MESSAGE, 3]]
    worker.finish()
    assert worker.port.room == 1


def test_a_worker_that_is_lost_or_takes_no_events_has_no_round_trip() -> None:
    house = House()
    worker = house.join()
    house.do([op.QUERY, 5, int(Ask.ROUND_TRIP), worker.port.key])
    house.dispatch.lost(worker.port)

    assert house.caller.answers == [[op.ANSWER, 5, None]]
    assert house.ask(Ask.ROUND_TRIP, worker.port.key) is None


def test_a_worker_that_hangs_is_not_pinged_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "MAX_PINGS", 2)
    house = House()
    worker = house.join()
    for query in range(3):
        house.do([op.QUERY, query, int(Ask.ROUND_TRIP), worker.port.key])

    assert worker.asker.events == [[op.PING, 1], [op.PING, 2]]
    assert house.caller.answers == [[op.ANSWER, 2, None]]


def test_who_does_not_read_hears_of_no_round_trip() -> None:
    house = House()
    worker = house.join()
    house.do([op.QUERY, 5, int(Ask.ROUND_TRIP), worker.port.key])
    house.caller.full = True
    worker.do([op.ACK, 1])

    assert house.caller.answers == []
    assert house.counters == {"discarded.asker_full": 1}


# Other gateways


def test_the_clients_of_a_lost_gateway_get_their_close_from_here() -> None:
    house = House()
    worker = house.join()
    house.core.adopt("zyxwvuts", [[op.KEEP, "zyxwvuts-ann", "u1", wire.pack({"room": "red"}), INTRODUCTION]])

    state = [0, "u1", wire.pack({"room": "red"}), INTRODUCTION, False]
    assert worker.asker.events == [
        [op.FENCE, "zyxwvuts"],
        [op.CLOSE, 1, "zyxwvuts-ann", LAST + 1, state, [1006, "gateway_lost"]],
    ]
    assert house.core.unhandled == 1
    assert house.ask(Ask.CLIENT_COUNT) == 0
    worker.do([op.SEND, "zyxwvuts-ann", "too late"], [op.SET_SESSION, "zyxwvuts-ann", {}, True], [op.ACK, 1])
    assert house.counters == {"clients.adopted": 1, "discarded.client_gone": 1}
    assert house.core.unhandled == 0


def test_without_a_worker_the_close_of_a_lost_gateways_clients_waits() -> None:
    house = House()
    house.core.adopt("zyxwvuts", [[op.KEEP, "zyxwvuts-ann", None, wire.pack({}), INTRODUCTION]])
    worker = house.join()
    assert [event[0] for event in worker.asker.events] == [op.FENCE, op.CLOSE]


def test_who_mirrors_the_clients_hears_of_each_before_any_worker_and_until_its_close_is_done() -> None:
    house = House()
    worker = house.join()
    heard: list[tuple[str, str, int]] = []

    class Mirror:
        def opened(self, client: Client) -> None:
            heard.append(("opened", client.id, len(worker.asker.events)))

        def changed(self, client: Client) -> None:
            heard.append(("changed", client.id, len(worker.asker.events)))

        def finished(self, client: Client) -> None:
            heard.append(("finished", client.id, len(worker.asker.events)))

    house.core.mirror = Mirror()
    ann = house.open()
    worker.do([op.BIND, ann.id, "u1", "", True], [op.UPDATE_SESSION, ann.id, {"a": 1}, [], True])
    house.core.closed(ann, 1000, "")
    assert [client.id for client in house.core.known_clients()] == [ann.id]
    worker.finish()
    house.core.adopt("zyxwvuts", [[op.KEEP, "zyxwvuts-bob", None, wire.pack({}), INTRODUCTION]])
    assert heard == [
        ("opened", ann.id, 0),
        ("changed", ann.id, 1),
        ("changed", ann.id, 1),
        ("finished", ann.id, 2),
        ("opened", "zyxwvuts-bob", 3),
    ]
    assert [client.id for client in house.core.known_clients()] == ["zyxwvuts-bob"]


def test_a_gateway_hears_from_a_worker_that_it_was_taken_for_lost() -> None:
    house = House()
    fenced: list[bool] = []
    house.core.fenced = lambda: fenced.append(True)
    worker = house.join()
    house.do([op.FENCE, KEY])
    worker.do([op.FENCE, "another"])
    assert fenced == []
    worker.do([op.FENCE, KEY])
    assert fenced == [True]


def test_workers_are_told_of_so_many_lost_gateways_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "MAX_LOST", 2)
    house = House()
    for key in ("lostgat1", "lostgat2", "lostgat3"):
        house.core.adopt(key, [])

    assert house.join().asker.events == [[op.FENCE, "lostgat2"], [op.FENCE, "lostgat3"]]


# Why


def test_what_does_not_reach_a_client_is_remembered() -> None:
    house = House(kept=KEPT._replace(groups=1))
    house.join()
    slow, left, kicked, cut = (house.open(room=0 if n == 0 else 9) for n in range(4))
    for client in (slow, left, kicked, cut):
        house.do([op.BIND, client.id, "ann", "", False], [op.JOIN, client.id, "red"], [op.JOIN, client.id, "blue"])
    house.do([op.SEND, slow.id, "hi"])
    house.core.closed(left, 1001, "")
    house.do([op.CLOSE_CLIENT, kicked.id, None, 4000, "no"], [op.DESTROY_CLIENT, cut.id], [op.SEND, cut.id, "hi"])
    found = [Discard(*one) for one in house.ask(Ask.DISCARDS, [60, "", "", "red"])]

    closed = {one.client: one.reason for one in found if one.reason.startswith("closed.")}
    assert closed == {
        slow.id: "closed.slow",
        left.id: "closed.by_itself",
        kicked.id: "closed.command",
        cut.id: "closed.destroy",
    }
    assert {(one.uid, one.reason) for one in found} >= {("ann", "discarded.too_many_groups")}
    gone = [Discard(*one).reason for one in house.ask(Ask.DISCARDS, [60, cut.id, "", ""])]
    assert "discarded.client_gone" in gone
