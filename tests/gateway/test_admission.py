"""Who waits at the door, and who decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gatecrew.common import messages as op
from gatecrew.gateway import admission
from gatecrew.gateway.admission import AT_ONCE, Admission
from gatecrew.gateway.client import Client, NoConnection
from gatecrew.gateway.dispatch import Port
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

if TYPE_CHECKING:
    from gatecrew.common.messages import Message


class Door(NoConnection):
    def __init__(self) -> None:
        self.answer: object = None

    def admit(self, subprotocol: str | None) -> None:
        assert self.answer is None
        self.answer = "admitted"

    def refuse(self, status: int, why: str, retry_after: int | None = None, cause: str = "denied") -> None:
        assert self.answer is None
        self.answer = (status, cause)


class Worker:
    def __init__(self, name: str) -> None:
        self.got: list[Message] = []
        self.port = Port(name, name, 0, self.got.append)

    def numbers(self) -> list[int]:
        return [message[1] for message in self.got]


class House:
    def __init__(self) -> None:
        self.admission = Admission(lambda client, workers: min(workers, key=lambda port: port.name))
        self.count = 0

    def come(self) -> tuple[Client, Door]:
        self.count += 1
        door = Door()
        client = Client(f"client {self.count}", door, ["/", {}, "", "", None])
        self.admission.arrived(client, door, [["Host", "a"]])
        return client, door

    def join(self, name: str, *, decides: bool = True) -> Worker:
        worker = Worker(name)
        self.admission.joined(worker.port, decides=decides)
        return worker


@pytest.fixture
def house() -> House:
    return House()


def test_as_long_as_no_worker_said_anything_everybody_waits(house: House) -> None:
    assert house.admission.needed
    client, door = house.come()

    worker = house.join("a")

    assert worker.got == [[op.HANDSHAKE, 1, client.id, client.introduction, [["Host", "a"]]]]
    assert house.admission.decided(worker.port, 1) == (client, door)
    assert house.admission.decided(worker.port, 1) is None
    assert len(house.admission) == 0


def test_if_no_worker_decides_nobody_waits(house: House) -> None:
    _, door = house.come()

    house.join("a", decides=False)

    assert door.answer == "admitted"
    assert not house.admission.needed
    assert len(house.admission) == 0


def test_one_worker_that_decides_is_enough(house: House) -> None:
    """While workers are replaced by such as decide, or by such as do not."""
    plain = house.join("a", decides=False)
    judge = house.join("b")
    house.come()

    assert (plain.got, judge.numbers()) == ([], [1])
    house.admission.left(judge.port)
    assert not house.admission.needed


def test_when_the_last_worker_goes_what_it_did_stands(house: House) -> None:
    judge = house.join("a")
    house.admission.left(judge.port)
    assert house.admission.needed

    plain = house.join("b", decides=False)
    house.admission.lost(plain.port)
    assert not house.admission.needed


def test_a_worker_that_takes_nothing_new_decides_on_what_it_has(house: House) -> None:
    first = house.join("a")
    client, door = house.come()
    house.admission.left(first.port)
    second = house.join("b")
    house.come()

    assert house.admission.decided(first.port, 1) == (client, door)
    assert second.numbers() == [2]


def test_what_a_lost_worker_had_goes_to_another_once(house: House) -> None:
    first, second = house.join("a"), house.join("b")
    _, door = house.come()

    house.admission.lost(first.port)
    assert second.numbers() == [2]
    house.admission.lost(second.port)

    assert door.answer == (503, "undecided")
    assert len(house.admission) == 0


def test_a_worker_has_so_many_at_once_and_the_others_wait_in_order(house: House) -> None:
    worker = house.join("a")
    clients = [house.come()[0] for _ in range(AT_ONCE + 2)]
    assert len(worker.got) == AT_ONCE

    house.admission.decided(worker.port, 1)
    house.admission.gave_up(clients[1])

    assert [message[2] for message in worker.got[AT_ONCE:]] == [clients[-2].id, clients[-1].id]


def test_who_gave_up_is_forgotten(house: House) -> None:
    early, _ = house.come()
    house.admission.gave_up(early)
    worker = house.join("a")
    late, door = house.come()
    house.admission.gave_up(late)
    house.admission.gave_up(late)

    assert worker.numbers() == [1]
    assert house.admission.decided(worker.port, 1) is None
    house.admission.lost(worker.port)
    assert door.answer is None


def test_too_many_that_wait_are_turned_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_WAITING", 1)
    doors = [house.come()[1] for _ in range(2)]

    assert [door.answer for door in doors] == [None, (503, "undecided")]


class Doors(RuleBasedStateMachine):
    """Whatever happens, each that came is decided on once, or gave up, or waits; and waits only if nobody could take it."""

    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.there: list[tuple[Client, Door]] = []
        self.taking: list[Worker] = []

    @rule()
    def come(self) -> None:
        self.there.append(self.house.come())

    @rule(target=workers, decides=st.booleans())
    def join(self, decides: bool) -> object:
        worker = self.house.join(f"worker {self.house.count}", decides=decides)
        self.taking.append(worker)
        return worker if decides else multiple()

    @rule(worker=workers)
    def leave(self, worker: Worker) -> None:
        self.house.admission.left(worker.port)
        self.taking = [other for other in self.taking if other is not worker]

    @rule(worker=consumes(workers))
    def lose(self, worker: Worker) -> None:
        self.house.admission.lost(worker.port)
        self.taking = [other for other in self.taking if other is not worker]

    @rule(worker=workers, data=st.data())
    def decide(self, worker: Worker, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([0, *worker.numbers()]))
        found = self.house.admission.decided(worker.port, number)
        if found is not None:
            found[1].admit(None)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        client, door = self.there.pop(data.draw(st.integers(0, len(self.there) - 1)))
        self.house.admission.gave_up(client)
        if door.answer is None:
            door.answer = "gave up"

    @invariant()
    def each_waits_or_was_answered(self) -> None:
        waiting = [door for _, door in self.there if door.answer is None]
        assert len(self.house.admission) == len(waiting)

    def teardown(self) -> None:
        worker = self.house.join("the last")
        for number in worker.numbers():
            found = self.house.admission.decided(worker.port, number)
            assert found is not None


Doors.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestDoors = Doors.TestCase
