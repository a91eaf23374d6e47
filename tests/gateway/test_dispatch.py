"""Events on their way to workers."""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common.errors import LinkError
from gatecrew.common.messages import CLOSE, CONNECT, FORGET, MESSAGE, Message
from gatecrew.gateway import dispatch as dispatch_module
from gatecrew.gateway.client import Client
from gatecrew.gateway.dispatch import OVERHEAD, Dispatch, Port
from gatecrew.gateway.placement import Router, rendezvous, router
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatecrew.common.reasons import Reason

BIG = 1 << 30
INTRODUCTION: list[object] = ["/", {}, "127.0.0.1:5000", "ws://127.0.0.1:7272", None]


class Socket:
    """A socket that is read or not, and when it is closed no longer listens to that."""

    plain = True
    unsent = 0

    def __init__(self) -> None:
        self.reading = True
        self.open = True

    def write(self, frame: bytes) -> None: ...

    def send(self, data: str | bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def shut(self, reason: Reason) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None:
        assert self.reading
        self.reading = not self.open

    def resume(self) -> None:
        assert self.reading != self.open
        self.reading = True


class Worker:
    """A worker that believes what it is told, and complains if that cannot be true."""

    def __init__(self, name: str, credit: int = 1000) -> None:
        self.credit = credit
        self.port = Port(name, f"key of {name}", credit, self.take)
        self.inbox: list[Message] = []  # events that are not acknowledged
        self.known: dict[str, tuple[str | None, bytes]] = {}
        self.forgot: list[str] = []
        self.gone = False

    def take(self, message: Message) -> None:
        assert not self.gone, "a worker that is gone is told nothing"
        opcode = message[0]
        if opcode == FORGET:
            assert message[1] not in [event[2] for event in self.inbox], "nothing of it may be outstanding"
            del self.known[message[1]]  # nobody is told to forget a stranger
            self.forgot.append(message[1])
            return
        _, number, client_id, _, state, _ = message
        assert number == self.port.counter
        if state is not None:
            _, uid, session, introduction, _ = state
            assert (introduction is None) == (client_id in self.known), "it is introduced once"
            assert introduction in (None, INTRODUCTION)
            self.known[client_id] = (uid, session)
        assert client_id in self.known
        self.inbox.append([*message])  # on the wire it is a copy
        assert len(self.inbox) <= self.credit

    @property
    def numbers(self) -> list[int]:
        """What it has of each client's events, in order of arrival."""
        return [event[3] for event in self.inbox]

    @property
    def marks(self) -> list[bool]:
        """Which of what it has is marked redelivered."""
        return [event[4] is not None and event[4][4] for event in self.inbox]


class House:
    """A dispatch with the clients and workers around it."""

    def __init__(self, route: str | Router = "sticky", client_pending: int = BIG, event_buffer: int = BIG) -> None:
        chosen = router(route, Random(1)) if isinstance(route, str) else route
        self.dispatch = Dispatch(chosen, client_pending, event_buffer)
        self.finished: list[Client] = []
        self.dispatch.finished = self.finished.append
        self.given_up: list[tuple[Client, int]] = []
        self.dispatch.gave_up = lambda client, message: self.given_up.append((client, message[3]))
        self.count = 0

    def client(self) -> Client:
        self.count += 1
        return Client(f"client-{self.count}", Socket(), INTRODUCTION)

    def say(self, client: Client, data: str | bytes = "hi", times: int = 1) -> None:
        for _ in range(times):
            client.number += 1
            self.dispatch.event(client, [MESSAGE, 0, client.id, client.number, None, data])

    def close(self, client: Client) -> None:
        client.open = False
        socket = client.connection
        assert isinstance(socket, Socket)
        socket.open, socket.reading = False, True
        client.number += 1
        self.dispatch.event(client, [CLOSE, 0, client.id, client.number, None, [1000, "bye"]])

    def join(self, name: str, credit: int = 1000) -> Worker:
        worker = Worker(name, credit)
        self.dispatch.joined(worker.port)
        return worker

    def ack(self, worker: Worker, times: int = 1) -> None:
        for _ in range(times):
            self.dispatch.acknowledged(worker.port, worker.inbox.pop(0)[1])

    def lose(self, worker: Worker) -> None:
        worker.gone = True
        self.dispatch.lost(worker.port)
        assert not worker.port.outstanding
        assert not worker.port.waiting
        assert not worker.port.suspects

    def is_empty(self) -> bool:
        dispatch = self.dispatch
        nothing = not (dispatch.bytes or dispatch.queued or dispatch._homeless or dispatch._held)
        return nothing and not any(port.outstanding or port.waiting or port.suspects for port in dispatch.workers)


def reading(client: Client) -> bool:
    """Whether a client's socket is read."""
    assert isinstance(client.connection, Socket)
    return client.connection.reading


def of_two(house: House, one: Worker) -> Client:
    """Return a client that this worker gets when all are there."""
    while True:
        client = house.client()
        if rendezvous(client, house.dispatch.workers) is one.port:
            return client


# Order and credit


def test_the_first_event_brings_all_that_is_to_be_known_and_the_next_nothing() -> None:
    house = House()
    worker = house.join("a")
    client = house.client()
    house.say(client, times=2)

    assert [event[4] for event in worker.inbox] == [[0, None, b"\x80", INTRODUCTION, False], None]
    assert [event[1] for event in worker.inbox] == [1, 2]


def test_what_changed_comes_with_the_next_event() -> None:
    house = House()
    worker = house.join("a")
    client = house.client()
    house.say(client)
    client.uid, client.applied = "ann", 1
    house.dispatch.changed(client)
    house.say(client, times=2)

    assert [event[4] for event in worker.inbox[1:]] == [[1, "ann", b"\x80", None, False], None]


def test_a_change_before_the_first_event_does_not_hide_the_introduction() -> None:
    house = House()
    client = house.client()
    house.say(client)
    client.uid = "ann"
    house.dispatch.changed(client)
    worker = house.join("a")

    assert worker.inbox[0][4] == [0, "ann", b"\x80", INTRODUCTION, False]


def test_past_its_credit_a_worker_gets_nothing() -> None:
    house = House()
    worker = house.join("a", credit=2)
    one, other = house.client(), house.client()
    house.say(one, times=2)
    house.say(other)
    house.say(one)

    assert [(event[2], event[3]) for event in worker.inbox] == [(one.id, 1), (one.id, 2)]
    assert house.dispatch.queued == 2
    house.ack(worker)
    assert [(event[2], event[3]) for event in worker.inbox] == [(one.id, 2), (other.id, 1)]
    house.ack(worker, 3)
    assert house.is_empty()


def test_without_a_worker_events_wait_for_one() -> None:
    house = House()
    first, second = house.client(), house.client()
    house.say(first)
    house.say(second)
    house.say(first)

    assert house.dispatch.queued == 3
    worker = house.join("a")
    assert [(event[2], event[3]) for event in worker.inbox] == [(first.id, 1), (first.id, 2), (second.id, 1)]
    house.ack(worker, 3)
    assert house.is_empty()


# Workers come and go


def test_a_client_moves_to_a_new_worker_when_nothing_of_it_is_outstanding() -> None:
    house = House()
    old = house.join("a")
    clients = [house.client() for _ in range(20)]
    for client in clients:
        house.say(client)
    new = house.join("b")
    for client in clients:
        house.say(client)
    movers = [client for client in clients if rendezvous(client, house.dispatch.workers) is new.port]

    assert 0 < len(movers) < 20
    assert new.inbox == []
    assert len(old.inbox) == 40 - len(movers)
    house.ack(old, 20)
    assert {event[2] for event in new.inbox} == {client.id for client in movers}
    assert sorted(old.forgot) == sorted(client.id for client in movers)
    assert all(event[4][3] == INTRODUCTION for event in new.inbox)


def test_a_new_worker_relieves_one_that_is_behind() -> None:
    house = House()
    old = house.join("a", credit=1)
    clients = [house.client() for _ in range(20)]
    for client in clients:
        house.say(client, times=2)
    new = house.join("b")
    movers = [client for client in clients if rendezvous(client, house.dispatch.workers) is new.port]
    movers.remove(clients[0]) if clients[0] in movers else None

    assert sorted(event[2] for event in new.inbox) == sorted(2 * [client.id for client in movers])
    assert old.forgot == []  # it never heard of them
    while old.inbox or new.inbox:
        house.ack(old if old.inbox else new)
    assert house.is_empty()


def test_a_draining_worker_finishes_what_it_has_and_gets_nothing_new() -> None:
    house = House()
    leaver, stayer = house.join("a", credit=2), house.join("b")
    busy, waiting = of_two(house, leaver), of_two(house, leaver)
    house.say(busy, times=3)
    house.say(waiting)
    house.dispatch.draining(leaver.port)
    house.dispatch.draining(leaver.port)
    house.say(busy)

    assert leaver.numbers == [1, 2]
    assert [event[2] for event in stayer.inbox] == [waiting.id]
    house.ack(leaver)
    assert busy.id not in [event[2] for event in stayer.inbox]
    house.ack(leaver)
    assert stayer.numbers == [1, 3, 4]
    assert leaver.forgot == [busy.id]
    house.ack(stayer, 3)
    assert house.is_empty()


def test_the_last_worker_may_drain() -> None:
    house = House()
    worker = house.join("a", credit=1)
    one, other = house.client(), house.client()
    house.say(one, times=2)
    house.say(other)
    house.dispatch.draining(worker.port)
    house.say(other)

    assert house.dispatch.queued == 2  # the rest of the first client is not for whoever comes first
    house.ack(worker)
    assert worker.inbox == []
    assert house.dispatch.queued == 3
    successor = house.join("b")
    assert len(successor.inbox) == 3
    assert successor.marks == [False] * 3


def test_the_events_of_a_lost_worker_go_to_another_marked() -> None:
    house = House()
    lost, other = house.join("a", credit=2), house.join("b")
    client = of_two(house, lost)
    house.say(client, times=3)
    house.lose(lost)

    assert other.numbers == [1, 2, 3]
    assert other.marks == [True, True, False]
    assert [event[4] and event[4][3] for event in other.inbox] == [INTRODUCTION, None, None]
    assert house.dispatch.redelivered == 2
    house.ack(other, 3)
    assert house.is_empty()


def test_what_was_with_two_lost_workers_in_a_row_is_still_marked() -> None:
    house = House()
    client = house.client()
    first = house.join("a")
    house.say(client, times=5)
    house.lose(first)
    second = house.join("b", credit=2)
    house.say(client)
    house.lose(second)
    third = house.join("c")

    assert (third.numbers, third.marks) == ([1], [True]), "a suspect is tried alone"
    house.ack(third)
    assert third.numbers == [2, 3, 4, 5, 6]
    assert third.marks == [True] * 4 + [False]


def test_what_waits_for_credit_after_a_loss_is_marked_wherever_it_goes() -> None:
    house = House()
    client = house.client()
    first = house.join("a")
    house.say(client, times=3)
    house.lose(first)
    second = house.join("b", credit=1)
    house.dispatch.draining(second.port)
    third = house.join("c")
    house.ack(second)

    assert third.numbers == [2, 3]
    assert third.marks == [True, True]


def test_a_worker_may_be_lost_while_it_drains() -> None:
    house = House()
    leaver, stayer = house.join("a"), house.join("b")
    client = of_two(house, leaver)
    house.say(client)
    house.dispatch.draining(leaver.port)
    house.say(client)
    house.lose(leaver)

    assert stayer.numbers == [1, 2]
    assert stayer.marks == [True, False]


def test_a_lost_worker_is_not_told_to_forget_its_clients() -> None:
    house = House()
    lost = house.join("a")
    client = house.client()
    house.say(client)
    house.ack(lost)
    house.lose(lost)  # from now on it complains
    successor = house.join("b")
    house.say(client)

    assert successor.numbers == [2]
    assert successor.marks == [False]


def test_a_worker_that_comes_back_is_a_stranger_to_its_clients() -> None:
    house = House()
    client = house.client()
    house.lose(house.join("a"))
    first = house.join("a")
    house.say(client)
    house.ack(first)
    house.lose(first)
    again = house.join("a")
    house.say(client)

    assert again.inbox[0][4][3] == INTRODUCTION


def test_what_a_worker_changed_counts_for_that_worker_alone() -> None:
    house = House()
    first = house.join("a")
    client = house.client()
    house.say(client)
    client.applied = 7
    house.lose(first)
    second = house.join("b")

    assert second.inbox[0][4][0] == 0


# Routers


def test_a_choice_that_is_not_sticky_is_made_when_nothing_is_outstanding() -> None:
    house = House("least_loaded")
    one, other = house.join("a"), house.join("b")
    client = house.client()
    house.say(client, times=3)
    house.say(house.client())

    assert one.numbers == [1, 2, 3]  # although the other has less to do
    assert other.numbers == [1]
    house.ack(one, 3)
    house.say(house.client(), times=2)
    house.say(client)
    assert one.numbers == [1, 2]
    assert other.numbers == [1, 4]
    assert one.forgot == [client.id]


def test_a_router_that_fails_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    def route(client: Client, workers: Sequence[Port]) -> Port:
        raise ZeroDivisionError("a bug of the user's")

    house = House(Router(route, sticky=False))
    one, other = house.join("a"), house.join("b")
    clients = [of_two(house, one), of_two(house, other)]
    for client in clients:
        house.say(client)

    assert [event[2] for event in one.inbox + other.inbox] == [client.id for client in clients]
    assert house.dispatch.misrouted == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "[gateway] router" in caplog.text
    assert "a bug of the user's" in caplog.text


@pytest.mark.parametrize("choice", [None, "a", Port("a", "a", 1000, lambda message: None), 5])
def test_a_router_that_chooses_no_worker_does_no_harm(choice: Any) -> None:
    house = House(Router(lambda client, workers: choice, sticky=False))
    worker = house.join("a")
    house.say(house.client())

    assert len(worker.inbox) == 1
    assert house.dispatch.misrouted == 1


def test_a_router_cannot_keep_a_worker_that_is_gone() -> None:
    first: list[Port] = []

    def route(client: Client, workers: Sequence[Port]) -> Port:
        first.extend(workers)
        return first[0]

    house = House(Router(route, sticky=False))
    gone, other = house.join("a"), house.join("b")
    client = house.client()
    house.say(client)
    house.lose(gone)

    assert other.numbers == [1]


# What a worker may not say


@pytest.mark.parametrize("number", [0, -1, 4, 1 << 70])
def test_a_worker_cannot_acknowledge_what_it_does_not_have(number: int) -> None:
    house = House()
    worker = house.join("a")
    house.say(house.client(), times=3)

    with pytest.raises(LinkError, match=f"acknowledges event {number}, which"):
        house.dispatch.acknowledged(worker.port, number)


def test_a_worker_cannot_acknowledge_an_event_twice() -> None:
    house = House()
    worker = house.join("a")
    house.say(house.client())
    house.ack(worker)

    with pytest.raises(LinkError, match="acknowledges event 1, which"):
        house.dispatch.acknowledged(worker.port, 1)
    assert house.is_empty()


def test_a_worker_that_acknowledges_out_of_order_loses_its_events_to_another() -> None:
    house = House()
    liar, other = house.join("a"), house.join("b")
    client = of_two(house, liar)
    house.say(client, times=3)
    with pytest.raises(LinkError, match="acknowledges event 2, which"):
        house.dispatch.acknowledged(liar.port, 2)
    house.lose(liar)

    assert other.numbers == [1, 2, 3]
    assert other.marks == [True] * 3
    house.ack(other, 3)
    assert house.is_empty()


def test_a_lost_worker_has_nothing_to_acknowledge() -> None:
    house = House()
    worker = house.join("a")
    house.say(house.client())
    house.lose(worker)
    house.lose(worker)

    with pytest.raises(LinkError):
        house.dispatch.acknowledged(worker.port, 1)


# Reading and not reading


def test_a_client_with_too_many_events_is_not_read_until_half_of_them_are_done() -> None:
    house = House(client_pending=4)
    worker = house.join("a")
    client, other = house.client(), house.client()
    house.say(client, times=3)
    assert reading(client)
    house.say(client, times=2)  # the last was on its way already

    assert not reading(client)
    house.say(other)
    assert reading(other)
    house.ack(worker, 2)
    assert not reading(client)
    house.ack(worker)
    assert reading(client)


def test_while_everything_is_too_much_nobody_is_read() -> None:
    house = House(event_buffer=4 * (OVERHEAD + 100))
    worker = house.join("a")
    loud, quiet, silent = house.client(), house.client(), house.client()
    house.say(loud, "x" * 100, times=4)
    assert reading(loud)
    assert not house.dispatch.full
    house.say(quiet, b"x" * 100)

    assert house.dispatch.full
    assert not reading(quiet)
    assert reading(loud)  # it said nothing since
    house.say(loud)
    assert not reading(loud)
    assert reading(silent)
    house.ack(worker, 2)
    assert not reading(loud)
    assert not reading(quiet)
    house.ack(worker)
    assert reading(loud)
    assert reading(quiet)
    house.ack(worker, 3)
    assert house.is_empty()


def test_a_client_whose_own_events_are_done_while_all_are_too_many_is_read_again_in_the_end() -> None:
    house = House(client_pending=2, event_buffer=10 * OVERHEAD)
    worker = house.join("a")
    client, other = house.client(), house.client()
    house.say(client, "", times=2)  # paused for its own events
    house.say(other, "x" * 10 * OVERHEAD)  # and then everything is too much
    house.ack(worker, 2)
    assert not reading(client)

    house.ack(worker)
    assert reading(client)
    assert reading(other)
    assert house.is_empty()


def test_a_client_may_close_while_it_is_not_read() -> None:
    house = House(client_pending=1)
    worker = house.join("a")
    client = house.client()
    house.say(client)
    house.close(client)
    house.ack(worker, 2)

    assert house.finished == [client]
    assert house.is_empty()


def test_headers_count() -> None:
    house = House()
    house.dispatch.event(house.client(), [CONNECT, 0, "id", 1, None, [["Cookie", "x" * 1000]]])

    assert house.dispatch.bytes > OVERHEAD + 1000
    worker = house.join("a")
    house.dispatch.acknowledged(worker.port, 1)
    assert house.dispatch.bytes == 0


def test_a_closed_client_is_finished_once_when_its_last_event_is_done() -> None:
    house = House()
    worker = house.join("a")
    client = house.client()
    house.say(client)
    house.ack(worker)
    house.say(client)
    house.close(client)
    house.ack(worker)
    assert house.finished == []

    house.ack(worker)
    assert house.finished == [client]


class TestSuspects:
    """An event may be what kills workers: then it must not kill all of them for ever, nor take others with it."""

    def test_an_event_that_was_with_four_workers_that_were_lost_is_given_up_and_the_next_ones_go_on(self) -> None:
        house = House()
        client = house.client()
        house.say(client, times=3)
        for number in range(4):
            assert house.given_up == []
            house.lose(house.join(f"worker-{number}"))
        worker = house.join("worker")

        assert house.given_up == [(client, 1)]
        assert worker.numbers == [2, 3]
        assert worker.marks == [True, True], "they were with the first of them"
        house.ack(worker, 2)
        assert house.is_empty()

    def test_a_close_that_is_given_up_was_the_last_of_its_client(self) -> None:
        house = House()
        client = house.client()
        house.close(client)
        for number in range(4):
            house.lose(house.join(f"worker-{number}"))

        assert house.given_up == [(client, 1)]
        assert house.finished == [client]
        assert house.is_empty()

    def test_suspects_are_tried_one_at_a_time_so_that_only_the_guilty_one_is_given_up(self) -> None:
        house = House()
        clients = [house.client() for _ in range(3)]
        for client in clients:
            house.say(client, times=2)
        for number in range(2):
            house.lose(house.join(f"worker-{number}"))
        guilty = clients[0]
        for number in range(2, 4):
            worker = house.join(f"worker-{number}")
            assert [event[2] for event in worker.inbox] == [guilty.id], "alone, and without what the client said next"
            assert house.dispatch.queued == 5
            house.lose(worker)
        worker = house.join("worker")

        assert house.given_up == [(guilty, 1)]
        while worker.inbox:
            house.ack(worker)
        assert house.is_empty()
        assert len(house.given_up) == 1

    def test_when_a_suspect_is_done_the_next_one_is_tried_and_its_client_goes_on(self) -> None:
        house = House()
        one, two = house.client(), house.client()
        for client in (one, two):
            house.say(client, times=2)
        for number in range(2):
            house.lose(house.join(f"worker-{number}"))
        worker = house.join("worker")
        assert [(event[2], event[3]) for event in worker.inbox] == [(one.id, 1)]
        house.say(one)
        house.ack(worker)

        assert [(event[2], event[3]) for event in worker.inbox] == [(two.id, 1), (one.id, 2), (one.id, 3)]

    def test_suspects_hold_up_nobody_else(self) -> None:
        house = House()
        suspects = [house.client(), house.client()]
        for client in suspects:
            house.say(client)
        for number in range(2):
            house.lose(house.join(f"worker-{number}"))
        worker = house.join("worker")
        other = house.client()
        house.say(other)

        assert [event[2] for event in worker.inbox] == [suspects[0].id, other.id]

    def test_suspects_that_wait_move_on_when_their_worker_drains(self) -> None:
        house = House()
        suspects = [house.client(), house.client()]
        for client in suspects:
            house.say(client)
        for number in range(2):
            house.lose(house.join(f"worker-{number}"))
        worker = house.join("worker")
        house.dispatch.draining(worker.port)
        other = house.join("other")
        assert [event[2] for event in other.inbox] == [suspects[1].id]
        house.ack(worker)
        house.ack(other)

        assert house.is_empty()

    def test_an_event_that_succeeds_at_last_leaves_no_suspicion_behind(self) -> None:
        house = House()
        client = house.client()
        house.say(client, times=2)
        for number in range(3):
            house.lose(house.join(f"worker-{number}"))
        worker = house.join("worker")
        house.ack(worker)
        assert client.lost_with is None
        house.lose(worker)

        assert house.given_up == []
        assert client.lost_with == [worker.port.key]

    def test_a_worker_that_was_only_cut_off_does_not_count(self) -> None:
        house = House()
        house.say(house.client())
        for number in range(9):
            worker = house.join(f"worker-{number}")
            house.lose(worker)
            house.dispatch.cut(worker.port.key)
        worker = house.join("worker")
        house.ack(worker)

        assert house.given_up == []
        assert house.is_empty()

    def test_a_suspect_whose_workers_were_only_cut_off_holds_up_nobody(self) -> None:
        house = House()
        suspects = [house.client(), house.client()]
        for client in suspects:
            house.say(client)
        lost = [house.join(f"worker-{number}") for number in range(3)]
        for worker in lost:
            house.lose(worker)
        worker = house.join("worker")
        for other in lost:
            house.dispatch.cut(other.port.key)
        house.ack(worker)
        house.ack(worker)

        assert house.is_empty()


class EventsArriveOnceInOrderWhateverWorkersDo(RuleBasedStateMachine):
    """Clients talk and close, workers join, work, drain, lie and die, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.house: House
        self.clients: list[Client] = []
        self.workers: list[Worker] = []
        self.done: dict[str, list[int]] = {}  # the numbers of the events that were acknowledged, by client
        self.tried: set[tuple[str, int]] = set()  # events that were with a worker that is gone
        self.count = 0

    @initialize(
        route=st.sampled_from(["sticky", "least_loaded", "random", "own", "broken"]),
        client_pending=st.sampled_from([1, 2, 3, 8, BIG]),
        event_buffer=st.sampled_from([2 * OVERHEAD, 10 * OVERHEAD, BIG]),
        tries=st.sampled_from([(1, 2), (1, 3), (2, 4), (BIG, BIG)]),
    )
    def begin(self, route: str, client_pending: int, event_buffer: int, tries: tuple[int, int]) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(dispatch_module, "SUSPECT", tries[0])
        self.patch.setattr(dispatch_module, "GIVEN_UP", tries[1])
        own = {
            "own": Router(lambda client, workers: workers[client.number % len(workers)], sticky=False),
            "broken": Router(lambda client, workers: workers[client.number % 2], sticky=True),
        }
        self.client_pending = client_pending
        self.event_buffer = event_buffer
        self.house = House(own.get(route, route), client_pending, event_buffer)

    @rule()
    def open(self) -> None:
        client = self.house.client()
        self.clients.append(client)
        self.done[client.id] = []
        self.house.say(client)

    def open_clients(self) -> list[Client]:
        return [client for client in self.clients if client.open]

    @precondition(lambda self: self.open_clients())
    @rule(random=st.randoms(use_true_random=False), times=st.integers(1, 4), data=st.sampled_from(["", "x" * 300]))
    def say(self, random: Any, times: int, data: str) -> None:
        client = random.choice(self.open_clients())
        for _ in range(times):
            if not reading(client) and random.random() < 0.8:
                return
            self.house.say(client, data)
            if len(client.events) >= self.client_pending or self.house.dispatch.bytes > self.event_buffer:
                assert not reading(client)

    @precondition(lambda self: self.open_clients())
    @rule(random=st.randoms(use_true_random=False))
    def close(self, random: Any) -> None:
        self.house.close(random.choice(self.open_clients()))

    @precondition(lambda self: self.open_clients())
    @rule(random=st.randoms(use_true_random=False), uid=st.sampled_from(["ann", "bob"]))
    def change(self, random: Any, uid: str) -> None:
        client = random.choice(self.open_clients())
        client.uid = uid
        self.house.dispatch.changed(client)

    @rule(credit=st.integers(1, 5))
    def join(self, credit: int) -> None:
        self.count += 1
        # some take over the name of another
        self.workers.append(self.house.join(f"worker-{self.count % 4}", credit))

    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.inbox]

    @precondition(lambda self: self.busy())
    @rule(random=st.randoms(use_true_random=False), times=st.integers(1, 6))
    def work(self, random: Any, times: int) -> None:
        for _ in range(times):
            if self.busy():
                self.acknowledge(random.choice(self.busy()), random)

    def acknowledge(self, worker: Worker, random: Any) -> None:
        """Acknowledge the first event of any of its clients."""
        firsts = {event[2]: event for event in reversed(worker.inbox)}
        event = random.choice(list(firsts.values()))
        _, number, client_id, of_client, _, _ = event
        worker.inbox.remove(event)
        self.done[client_id].append(of_client)
        self.house.dispatch.acknowledged(worker.port, number)

    @precondition(lambda self: self.workers)
    @rule(random=st.randoms(use_true_random=False))
    def drain(self, random: Any) -> None:
        self.house.dispatch.draining(random.choice(self.workers).port)

    @precondition(lambda self: self.workers)
    @rule(random=st.randoms(use_true_random=False))
    def lose(self, random: Any) -> None:
        self.remove(random.choice(self.workers))

    def remove(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.tried.update((event[2], event[3]) for event in worker.inbox)
        self.house.lose(worker)
        while self.house.given_up:
            client, number = self.house.given_up.pop(0)
            assert (client.id, number) in self.tried
            self.done[client.id].append(number)

    @precondition(lambda self: self.workers)
    @rule(random=st.randoms(use_true_random=False), number=st.integers(-3, 40))
    def lie(self, random: Any, number: int) -> None:
        worker = random.choice(self.workers)
        firsts = {event[2]: event[1] for event in reversed(worker.inbox)}.values()
        if number not in firsts:
            with pytest.raises(LinkError):
                self.house.dispatch.acknowledged(worker.port, number)
            self.remove(worker)

    @invariant()
    def each_client_is_with_one_worker_in_order(self) -> None:
        holders: dict[str, Worker] = {}
        for worker in self.workers:
            expected: dict[str, int] = {}
            for _, _, client_id, number, state, _ in worker.inbox:
                assert holders.setdefault(client_id, worker) is worker
                assert number == expected.get(client_id, len(self.done[client_id]) + 1)
                expected[client_id] = number + 1
                redelivered = state is not None and state[4]
                assert redelivered == ((client_id, number) in self.tried)

    @invariant()
    def no_event_is_lost_and_none_is_counted_twice(self) -> None:
        cost = 0
        for client in self.clients:
            done = self.done[client.id]
            assert done == list(range(1, len(done) + 1))
            assert [event[3] for event in client.events] == list(range(len(done) + 1, client.number + 1))
            cost += sum(OVERHEAD + (len(event[5]) if event[0] == MESSAGE else 0) for event in client.events)
            assert 0 <= client.sent <= client.assigned <= len(client.events)
            assert client.paused or reading(client) or not client.open
        assert self.house.dispatch.bytes == cost

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        dispatch = self.house.dispatch
        for client in self.clients:
            if client.events and not client.assigned:
                assert client in dispatch._homeless or (client.port is not None and client in client.port.suspects)
                assert not (client in dispatch._homeless and dispatch.workers)
            if client.open and not reading(client):
                assert len(client.events) > self.client_pending // 2 or dispatch.bytes > self.event_buffer * 3 // 4
        for worker in self.workers:
            assert not (worker.port.waiting and worker.port.room)
            assert [client.assigned for client in worker.port.suspects] == [1, *[0] * len(worker.port.suspects)][
                : len(worker.port.suspects)
            ]
            assert worker.port.room == worker.credit - len(worker.inbox)
            assert worker.port.room + len(worker.port.outstanding) == worker.credit

    @invariant()
    def workers_know_what_their_clients_are_when_they_have_no_news(self) -> None:
        for client in self.clients:
            for worker in self.workers:
                if worker.port is client.port and client.told == 0:
                    assert worker.known[client.id] == (client.uid, client.session)

    def teardown(self) -> None:
        try:
            self.come_to_an_end()
        finally:
            self.patch.undo()

    def come_to_an_end(self) -> None:
        random = Random(0)
        for client in self.open_clients():
            self.house.close(client)
        self.join(3)
        while self.busy():
            self.acknowledge(self.busy()[0], random)
        self.no_event_is_lost_and_none_is_counted_twice()
        assert self.house.is_empty()
        assert {client.id: client.number for client in self.clients} == {
            client_id: len(done) for client_id, done in self.done.items()
        }
        assert sorted(client.id for client in self.house.finished) == sorted(client.id for client in self.clients)


TestDispatch = EventsArriveOnceInOrderWhateverWorkersDo.TestCase


def test_a_worker_is_shown_by_its_name() -> None:
    assert repr(Port("worker-1", "k", 1, lambda message: None)) == "worker worker-1"
