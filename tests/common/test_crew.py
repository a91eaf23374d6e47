"""The rules of the supervisor, played through without processes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Self

import pytest
from gatecrew.common.crew import HUNG_AFTER, START_LIMIT, Child, Crew, Phase, Report, Signal, Start, read_numbers
from gatecrew.common.errors import ConfigError, GatecrewError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PATIENCE = 5.0
PLACES = [("register", "register-1"), ("gateway", "gateway-1"), ("worker", "worker-1"), ("worker", "worker-2")]


class Stage:
    """A crew, the processes that it asked for, and a clock."""

    def __init__(self, places: Sequence[tuple[str, str]] = PLACES, most: Mapping[str, int] | None = None) -> None:
        self.crew = Crew(places, patience=PATIENCE, random=lambda: 0.0, most=most)
        self.now = 100.0
        self.reports: list[str] = []
        self.signals: list[tuple[str, int]] = []
        self.alive: list[Child] = []
        self.tick()

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for effect in self.crew.tick(self.now):
            match effect:
                case Start(child):
                    self.alive.append(child)
                case Signal(child, number):
                    self.signals.append((child.place.name, number))
                case Report(text, _):
                    self.reports.append(text)

    def child(self, name: str) -> Child:
        """The latest child with this name."""
        return [child for child in self.alive if child.place.name == name][-1]

    def names(self) -> list[str]:
        return [child.place.name for child in self.alive]

    def tell(self, child: Child, **fields: str) -> None:
        self.crew.told(child, fields, self.now)
        self.tick()

    def end(self, child: Child, code: int = 0) -> None:
        self.alive.remove(child)
        self.crew.exited(child, code, self.now)
        self.tick()

    def up(self) -> Self:
        for child in list(self.alive):
            self.tell(child, READY="1")
        assert self.crew.phase is Phase.UP
        return self

    def take_signals(self) -> list[tuple[str, int]]:
        signals, self.signals = self.signals, []
        return signals


def test_all_places_are_filled_at_once_and_the_crew_is_up_when_all_are_ready() -> None:
    stage = Stage()

    assert stage.names() == [name for _, name in PLACES]
    for child in list(stage.alive):
        assert stage.crew.phase is Phase.STARTING
        stage.tell(child, READY="1", STATUS="ws://127.0.0.1:1")
    assert stage.crew.phase is Phase.UP
    assert stage.child("gateway-1").status == "ws://127.0.0.1:1"


def test_a_crew_without_places_is_up() -> None:
    assert Stage([]).crew.phase is Phase.UP


@pytest.mark.parametrize(
    ("code", "words", "failure"),
    [
        (2, "chat.toml: [worker] app: bad", ("worker-1: chat.toml: [worker] app: bad", 2)),
        (1, "", ("worker-1 ended with exit code 1; its log may tell why", 1)),
        (0, "", ("worker-1 ended with exit code 0; its log may tell why", 1)),
        (-9, "", ("worker-1 was killed by SIGKILL; its log may tell why", 1)),
        (-50, "", ("worker-1 was killed by signal 50; its log may tell why", 1)),
    ],
)
def test_a_child_that_ends_while_the_crew_starts_fails_the_start(
    code: int, words: str, failure: tuple[str, int]
) -> None:
    stage = Stage()
    if words:
        stage.tell(stage.child("worker-1"), STATUS=words)

    stage.end(stage.child("worker-1"), code)
    stage.tick(60)

    assert stage.crew.failure == failure
    assert "worker-1" not in stage.names()


def test_the_first_failure_of_a_start_is_the_one_that_is_told() -> None:
    stage = Stage()
    stage.end(stage.child("worker-2"), 1)
    stage.end(stage.child("worker-1"), 2)

    assert stage.crew.failure == ("worker-2 ended with exit code 1; its log may tell why", 1)


def test_a_child_that_is_never_ready_is_killed_and_fails_the_start() -> None:
    stage = Stage()

    stage.tick(START_LIMIT - 0.1)
    assert stage.take_signals() == []
    stage.tick(0.1)
    assert ("worker-1", signal.SIGKILL) in stage.take_signals()
    stage.end(stage.child("worker-1"), -9)
    assert stage.crew.failure == ("worker-1 was not ready after 60 s and was killed; its log may tell why", 1)


def test_a_child_that_ends_is_started_again_after_a_growing_delay() -> None:
    stage = Stage().up()

    for delay in (0.2, 0.4, 0.8):
        stage.end(stage.child("worker-1"), 1)
        assert stage.reports[-1] == f"worker-1 ended with exit code 1; it starts again in {delay:.1f} s"
        assert stage.crew.wake == pytest.approx(stage.now + delay)
        stage.tick(delay - 0.01)
        assert "worker-1" not in stage.names()
        stage.tick(0.02)
        assert "worker-1" in stage.names()
    assert stage.child("worker-1").restarts == 3
    stage.tell(stage.child("worker-1"), READY="1")
    assert stage.reports[-1] == "worker-1 is back"


def test_last_words_are_told_with_the_end() -> None:
    stage = Stage().up()
    stage.tell(stage.child("gateway-1"), STATUS="port 7272 is in use")

    stage.end(stage.child("gateway-1"), 1)

    assert stage.reports[-1].startswith("gateway-1 ended with exit code 1: port 7272 is in use; ")


def test_what_fails_again_after_a_good_start_ends_nothing_whatever_its_exit_code() -> None:
    stage = Stage().up()

    stage.end(stage.child("worker-1"), 2)

    assert (stage.crew.failure, stage.crew.phase) == (None, Phase.UP)


def test_a_silent_child_is_killed_once_and_started_again() -> None:
    stage = Stage([("worker", "worker-1")]).up()

    stage.tick(HUNG_AFTER - 1)
    stage.tell(stage.child("worker-1"), WATCHDOG="1")
    stage.tick(HUNG_AFTER - 0.1)
    assert stage.take_signals() == []
    stage.tick(0.1)
    stage.tick(1)
    assert stage.take_signals() == [("worker-1", signal.SIGKILL)]
    stage.end(stage.child("worker-1"), -9)
    stage.tick(30)
    assert "hung, without a sign of life for 10 s, and was killed" in stage.reports[-1]
    assert stage.names() == ["worker-1"]


def test_a_stop_goes_from_gateways_over_workers_to_registers() -> None:
    stage = Stage().up()
    stage.crew.stop()
    stage.tick()

    assert stage.take_signals() == [("gateway-1", signal.SIGTERM)]
    stage.end(stage.child("gateway-1"))
    assert stage.take_signals() == [("worker-1", signal.SIGTERM), ("worker-2", signal.SIGTERM)]
    stage.end(stage.child("worker-1"))
    assert stage.take_signals() == []
    stage.end(stage.child("worker-2"))
    assert stage.take_signals() == [("register-1", signal.SIGTERM)]
    stage.end(stage.child("register-1"))
    assert (stage.crew.phase, stage.reports) == (Phase.GONE, [])


def test_a_child_that_does_not_leave_is_killed() -> None:
    stage = Stage([("worker", "worker-1")]).up()
    stage.crew.stop()
    stage.tick()

    stage.tick(PATIENCE)

    assert stage.take_signals() == [("worker-1", signal.SIGTERM), ("worker-1", signal.SIGKILL)]
    stage.end(stage.child("worker-1"), -9)
    assert stage.reports == ["worker-1 did not stop within 5 s and was killed"]
    assert stage.crew.phase is Phase.GONE


def test_a_reload_replaces_the_workers_one_after_the_other() -> None:
    stage = Stage().up()
    old = {name: stage.child(name) for _, name in PLACES}
    operation = stage.crew.reload()
    stage.tick()

    for name in ("worker-1", "worker-2"):
        assert stage.child(name) is not old[name]
        assert stage.names().count("worker-1") + stage.names().count("worker-2") == 3
        assert stage.take_signals() == []
        stage.tell(stage.child(name), READY="1")
        assert stage.take_signals() == [(name, signal.SIGTERM)]
        stage.end(old[name])
    assert (operation.over, operation.error, stage.crew.operation) == (True, "", None)
    assert [stage.child(name) is old[name] for _, name in PLACES] == [True, True, False, False]
    assert stage.crew.phase is Phase.UP
    assert stage.child("worker-1").restarts == 0


def test_a_successor_that_fails_ends_the_reload_and_the_old_ones_go_on() -> None:
    stage = Stage().up()
    old = stage.child("worker-1")
    operation = stage.crew.reload()
    stage.tick()
    successor = stage.child("worker-1")
    stage.tell(successor, STATUS="chat.py:3: SyntaxError")

    stage.end(successor, 1)
    stage.tick(60)

    assert operation.over
    assert operation.error == "worker-1 ended with exit code 1: chat.py:3: SyntaxError; the old ones go on"
    assert stage.child("worker-1") is old
    assert ("worker-1", signal.SIGTERM) not in stage.signals


def test_a_worker_that_dies_while_its_successor_starts_is_not_started_besides() -> None:
    stage = Stage().up()
    old = stage.child("worker-1")
    stage.crew.reload()
    stage.tick()
    successor = stage.child("worker-1")

    stage.end(old, 1)
    stage.tick(5)

    assert stage.names().count("worker-1") == 1
    stage.tell(successor, READY="1")
    assert stage.child("worker-2") is stage.alive[-1]  # it is the turn of the next


def test_a_worker_that_died_while_its_successor_failed_is_started_again() -> None:
    stage = Stage().up()
    stage.crew.reload()
    stage.tick()
    old, successor = [child for child in stage.alive if child.place.name == "worker-1"]

    stage.end(old, 1)
    stage.end(successor, 1)
    stage.tick(5)

    assert stage.names().count("worker-1") == 1


def test_a_rolling_restart_goes_from_registers_over_gateways_to_workers() -> None:
    """The address of a register is its own: the old one has to leave first."""
    stage = Stage(PLACES[::-1], most={"register": 1}).up()
    old = {name: stage.child(name) for _, name in PLACES}
    operation = stage.crew.restart()
    stage.tick()

    assert stage.take_signals() == [("register-1", signal.SIGTERM)]
    stage.tick(1)
    assert stage.names().count("register-1") == 1, "it waits until the old one is gone"
    stage.end(old["register-1"])
    assert stage.child("register-1") is not old["register-1"]
    assert stage.names().count("gateway-1") == 1, "it waits until the new one is ready"
    stage.tell(stage.child("register-1"), READY="1")
    for name in ("gateway-1", "worker-2", "worker-1"):
        assert stage.names().count(name) == 2
        assert stage.take_signals() == []
        stage.tell(stage.child(name), READY="1")
        assert stage.take_signals() == [(name, signal.SIGTERM)]
        assert not operation.over
        stage.end(old[name])
    assert (operation.over, operation.error) == (True, "")
    assert stage.reports == [f"{name} is replaced" for name in ("register-1", "gateway-1", "worker-2", "worker-1")]
    assert not any(stage.child(name) is old[name] for _, name in PLACES)


def test_what_does_not_come_back_in_a_rolling_restart_ends_it_and_is_tried_again() -> None:
    stage = Stage(most={"register": 1}).up()
    operation = stage.crew.restart()
    stage.tick()
    stage.end(stage.child("register-1"))
    stage.tell(stage.child("register-1"), STATUS="the address is in use")
    stage.end(stage.child("register-1"), 1)

    assert operation.error == "register-1 ended with exit code 1: the address is in use; the others go on"
    assert stage.reports == ["register-1 ended with exit code 1: the address is in use; it starts again in 0.2 s"]
    stage.tick(0.2)
    assert stage.names().count("register-1") == 1
    assert stage.take_signals() == [("register-1", signal.SIGTERM)]


def test_what_is_dead_already_is_replaced_at_once() -> None:
    stage = Stage([("register", "register-1")], most={"register": 1}).up()
    stage.end(stage.child("register-1"), 1)
    operation = stage.crew.restart()
    stage.tick()

    assert stage.names() == ["register-1"]
    stage.tell(stage.child("register-1"), READY="1")
    assert (operation.over, operation.error, stage.take_signals()) == (True, "", [])


def test_a_change_of_scale_goes_step_by_step_and_adds_before_it_removes() -> None:
    stage = Stage().up()
    leaving = stage.child("worker-2")
    operation = stage.crew.scale({"worker": 1, "gateway": 3})
    stage.tick()

    for name in ("gateway-2", "gateway-3"):
        assert stage.alive[-1].place.name == name
        assert stage.take_signals() == []
        stage.tell(stage.alive[-1], READY="1")
    assert stage.take_signals() == [("worker-2", signal.SIGTERM)]
    assert not operation.over
    stage.end(leaving)
    assert (operation.over, operation.error) == (True, "")
    assert stage.reports == ["gateway-2 is added", "gateway-3 is added", "worker-2 is removed"]
    assert (stage.crew.count("gateway"), stage.crew.count("worker")) == (3, 1)
    stage.tick(60)
    assert "worker-2" not in stage.names()


def test_those_that_came_last_leave_first() -> None:
    stage = Stage([("worker", "worker-1")]).up()
    stage.crew.scale({"worker": 3})
    stage.tick()
    for name in ("worker-2", "worker-3"):
        stage.tell(stage.child(name), READY="1")

    stage.crew.scale({"worker": 1})
    stage.tick()
    for name in ("worker-3", "worker-2"):
        assert stage.take_signals() == [(name, signal.SIGTERM)]
        stage.end(stage.child(name))
    assert stage.names() == ["worker-1"]
    assert stage.crew.operation is None


def test_a_scale_that_is_reached_already_is_over_at_once() -> None:
    stage = Stage().up()
    operation = stage.crew.scale({"worker": 2})
    stage.tick()

    assert (operation.over, operation.error, len(stage.alive)) == (True, "", len(PLACES))


def test_one_that_fails_to_join_ends_the_change_of_scale_and_is_not_tried_again() -> None:
    stage = Stage().up()
    operation = stage.crew.scale({"worker": 4, "gateway": 2})
    stage.tick()
    stage.tell(stage.child("worker-3"), READY="1")

    stage.end(stage.child("worker-4"), 1)
    stage.tick(60)

    assert operation.error == "worker-4 ended with exit code 1; the others go on"
    assert sorted(stage.names()) == ["gateway-1", "register-1", "worker-1", "worker-2", "worker-3"]


def test_one_that_is_dead_when_it_should_leave_does_not_come_back() -> None:
    stage = Stage().up()
    stage.end(stage.child("worker-2"), 1)
    operation = stage.crew.scale({"worker": 1})
    stage.tick()
    stage.tick(60)

    assert operation.over
    assert "worker-2" not in stage.names()


def test_others_that_die_during_an_operation_come_back_as_ever() -> None:
    stage = Stage().up()
    operation = stage.crew.scale({"worker": 3})
    stage.tick()

    stage.end(stage.child("worker-1"), 1)
    stage.tick(0.2)
    stage.tell(stage.child("worker-1"), READY="1")
    stage.tell(stage.child("worker-3"), READY="1")

    assert (operation.over, operation.error) == (True, "")
    assert sorted(name for name in stage.names() if "worker" in name) == ["worker-1", "worker-2", "worker-3"]


def test_a_successor_that_dies_while_the_old_one_leaves_is_started_again() -> None:
    stage = Stage([("worker", "worker-1")]).up()
    old = stage.child("worker-1")
    operation = stage.crew.reload()
    stage.tick()
    stage.tell(stage.child("worker-1"), READY="1")

    stage.end(stage.child("worker-1"), -9)
    stage.tick(0.2)
    assert stage.child("worker-1") is not old
    assert not operation.over
    stage.end(old)
    assert operation.over
    assert stage.names() == ["worker-1"]


def test_more_than_can_run_at_once_are_refused() -> None:
    stage = Stage(most={"gateway": 2}).up()
    stage.crew.scale({"gateway": 2})
    stage.tick()
    stage.tell(stage.child("gateway-2"), READY="1")

    with pytest.raises(
        GatecrewError, match=r"no more than 2 gateways can run at once: \[gateway\] link has a port for each"
    ):
        stage.crew.scale({"gateway": 3})
    assert stage.crew.operation is None


def test_gateways_are_replaced_after_the_old_one_has_left_if_there_is_no_room_for_one_more() -> None:
    for most, before_it_leaves in ((1, 1), (2, 2)):
        stage = Stage([("gateway", "gateway-1")], most={"gateway": most}).up()
        stage.crew.restart()
        stage.tick()

        assert len(stage.names()) == before_it_leaves


OPERATIONS: dict[str, Callable[[Crew], object]] = {
    "a reload": Crew.reload,
    "a rolling restart": Crew.restart,
    "a change of scale": lambda crew: crew.scale({"worker": 3}),
}


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", OPERATIONS)
def test_there_is_one_operation_at_a_time_and_none_before_the_crew_is_up_or_after_it_stops(
    first: str, second: str
) -> None:
    stage = Stage()
    with pytest.raises(GatecrewError, match="it is starting"):
        OPERATIONS[first](stage.crew)
    OPERATIONS[first](stage.up().crew)
    with pytest.raises(GatecrewError, match=f"^{first} is under way; try again when it is over$"):
        OPERATIONS[second](stage.crew)
    stage.crew.stop()
    with pytest.raises(GatecrewError, match="it is stopping"):
        OPERATIONS[second](stage.crew)


def test_numbers_are_read() -> None:
    assert read_numbers(["gateways=4", "workers=999"]) == {"gateway": 4, "worker": 999}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["workers=0"], "expected gateways=N or workers=N, with N from 1 to 999, and found workers=0"),
        (["workers=1000"], "found workers=1000"),
        (["workers=-1"], "found workers=-1"),
        (["workers=many"], "found workers=many"),
        (["workers="], "found workers="),
        (["worker=2"], "found worker=2"),
        (["4"], "found 4"),
        (["gateways=1", "workers=2", "gateways=3"], "found two numbers of gateways"),
        (["registers=2"], "each register has an address of its own: set .cluster. registers, and restart"),
    ],
)
def test_what_is_no_number_of_processes_is_refused(words: list[str], error: str) -> None:
    with pytest.raises(ConfigError, match=f"{error}$"):
        read_numbers(words)


def test_a_stop_ends_a_reload_and_all_of_its_workers() -> None:
    stage = Stage([("worker", "worker-1")]).up()
    operation = stage.crew.reload()
    stage.tick()

    stage.crew.stop()
    stage.tick()

    assert (operation.over, operation.error) == (True, "it is stopping")
    assert stage.signals == [("worker-1", signal.SIGTERM)] * 2
    for child in list(stage.alive):
        stage.end(child, -15)
    assert stage.crew.phase is Phase.GONE


class AnyHistory(RuleBasedStateMachine):
    """Children become ready, die and fall silent; somebody reloads, restarts and scales, and at last stops."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(most={"register": 1, "gateway": 2})

    def any_child(self, data: st.DataObject) -> Child:
        return data.draw(st.sampled_from(self.stage.alive))

    @precondition(lambda self: self.stage.alive)
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        self.stage.tell(self.any_child(data), READY="1")

    @precondition(lambda self: self.stage.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 1, 2, -9]))
    def dies(self, data: st.DataObject, code: int) -> None:
        self.stage.end(self.any_child(data), code)

    @rule(seconds=st.sampled_from([0.1, 1.0, 12.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.stage.tick(seconds)

    @rule()
    def all_that_live_are_well(self) -> None:
        for child in list(self.stage.alive):
            self.stage.tell(child, READY="1", WATCHDOG="1")

    @precondition(lambda self: self.stage.crew.phase is Phase.UP and self.stage.crew.operation is None)
    @rule(restart=st.booleans())
    def somebody_replaces(self, restart: bool) -> None:
        operation = self.stage.crew.restart() if restart else self.stage.crew.reload()
        self.stage.tick()
        assert not operation.over

    @precondition(lambda self: self.stage.crew.phase is Phase.UP and self.stage.crew.operation is None)
    @rule(gateways=st.integers(1, 2), workers=st.integers(1, 4))
    def somebody_scales(self, gateways: int, workers: int) -> None:
        self.stage.crew.scale({"gateway": gateways, "worker": workers})
        self.stage.tick()

    @invariant()
    def at_most_one_is_more_than_there_should_be(self) -> None:
        names = self.stage.names()
        extra = len(names) - len(set(names) & {place.name for place in self.stage.crew.places})

        assert extra <= (self.stage.crew.operation is not None)

    @invariant()
    def no_more_run_than_can_run_at_once(self) -> None:
        roles = [child.place.role for child in self.stage.alive]

        assert roles.count("register") <= 1
        assert roles.count("gateway") <= 2

    @invariant()
    def the_places_of_a_role_are_numbered_without_gaps(self) -> None:
        for role in ("register", "gateway", "worker"):
            names = [place.name for place in self.stage.crew.places if place.role == role]
            assert names == [f"{role}-{number + 1}" for number in range(len(names))]
            assert names

    @invariant()
    def nothing_is_overdue(self) -> None:
        assert self.stage.crew.wake > self.stage.now

    @invariant()
    def the_crew_knows_who_lives(self) -> None:
        assert set(self.stage.crew.children) == set(self.stage.alive)

    def teardown(self) -> None:
        stage = self.stage
        if stage.crew.failure is None and stage.crew.phase is Phase.UP:
            for _ in range(30):  # left in peace, the crew becomes whole, and an operation ends
                for child in list(stage.alive):
                    if child.leaving or child.killed:
                        stage.end(child, -15)
                    else:
                        stage.tell(child, READY="1", WATCHDOG="1")
                stage.tick(5)
            assert stage.crew.operation is None
            assert sorted(stage.names()) == sorted(place.name for place in stage.crew.places)
        stage.crew.stop()
        stage.tick()
        for _ in PLACES:
            for child in [child for child in stage.alive if child.leaving or child.killed]:
                stage.end(child, -15)
        assert stage.crew.phase is Phase.GONE
        assert stage.alive == []


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
