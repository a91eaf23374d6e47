"""Which processes run on this machine, and what to do when one dies, hangs or is replaced: the rules of the supervisor.

A *place* is a process that should be there (``worker-2``), a *child* is one process that fills it. Pure: the supervisor tells
what it heard (:meth:`Crew.told`) and who ended (:meth:`Crew.exited`), and carries out what :meth:`Crew.tick` returns, at the
latest at :attr:`Crew.wake`. The rules:

* While the crew starts, each child has to become ready; one that ends fails the whole start.
* Later, a child that ends is started again, after a delay that grows from failure to failure. One that says nothing for
  ``HUNG_AFTER`` seconds is killed first; so is one that is not ready after ``START_LIMIT`` seconds.
* An *operation* (a reload, a rolling restart, a change of scale) goes place by place, and there is one at a time. Where a
  child is replaced, its successor starts and becomes ready before the old one is asked to leave; or after, where the two cannot
  run at once. A child that fails to become ready ends the operation, and all others go on.
* A stop goes role by role: gateways close their clients while workers still handle what that causes; registers are last. Who
  takes longer than it may is killed.
"""

from __future__ import annotations

import re
import signal
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from .backoff import Backoff
from .errors import ConfigError, GatecrewError
from .exits import ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HUNG_AFTER: Final = 10.0  #: seconds without a sign of life
START_LIMIT: Final = 60.0  #: seconds until a child must be ready
START_ORDER: Final = ("register", "gateway", "worker")
STOP_ORDER: Final = ("gateway", "worker", "register")
_NUMBER: Final = re.compile(r"(gateway|worker)s=([1-9][0-9]{0,2})")


@dataclass(slots=True, eq=False)
class Place:
    """A process that should be there."""

    role: str
    name: str
    child: Child | None = None  #: who fills it
    due: float = -inf  #: when to fill it, if nobody does
    restarts: int = 0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(slots=True, eq=False)
class Child:
    """One process."""

    place: Place
    number: int  #: no two children of a crew have the same
    restarts: int  #: times that its place was filled again
    started: float
    heard: float  #: when it last gave a sign of life
    ready: bool = False
    status: str = ""  #: what it said when it became ready
    last_words: str = ""  #: what it said since, or before: why it ends
    leave_until: float = inf  #: it was asked to leave, and is killed at this time
    killed: str = ""  #: why we killed it

    @property
    def leaving(self) -> bool:
        """Whether it was asked to leave."""
        return self.leave_until < inf

    @property
    def limit(self) -> float:
        """When to kill it."""
        if self.killed:
            return inf
        if self.leaving:
            return self.leave_until
        return self.heard + HUNG_AFTER if self.ready else self.started + START_LIMIT


class Step(NamedTuple):
    """One part of an operation: a place gets a new child, loses the one that it has, or both."""

    place: Place
    comes: bool
    goes: bool


@dataclass(slots=True, eq=False)
class Operation:
    """A change that somebody asked for. No two go on at once."""

    name: str
    steps: deque[Step]  #: to be begun
    over: bool = False
    error: str = ""  #: why it ended early
    coming: Child | None = None  #: it starts, and is not ready yet
    going: Child | None = None  #: it was asked to leave
    owed: Place | None = None  #: gets a new child when the old one is gone


class Start(NamedTuple):
    """Start a process for this child."""

    child: Child


class Signal(NamedTuple):
    """Send a signal to the process of this child."""

    child: Child
    number: signal.Signals


class Report(NamedTuple):
    """Log this."""

    text: str
    serious: bool


Effect = Start | Signal | Report


class Phase(Enum):
    """Where a crew is in its life."""

    STARTING = auto()
    UP = auto()
    STOPPING = auto()
    GONE = auto()


class Crew:
    """All places of one machine.

    Args:
        places: role and name of each, in the order in which to start them.
        patience: seconds that a child may take to leave.
        random: returns a number of [0, 1).
        most: how many children of a role can run at once; what is not in it has no limit.

    """

    def __init__(
        self,
        places: Iterable[tuple[str, str]],
        *,
        patience: float,
        random: Callable[[], float],
        most: Mapping[str, int] | None = None,
    ) -> None:
        self.places = [Place(role, name) for role, name in places]
        self.children: list[Child] = []
        self.phase = Phase.STARTING
        #: why the start failed, and with which exit code
        self.failure: tuple[str, int] | None = None
        self.operation: Operation | None = None  #: the one under way
        self._most = most or {}
        self._patience = patience
        self._random = random
        self._count = 0
        self._effects: list[Effect] = []

    @property
    def wake(self) -> float:
        """When to call :meth:`tick` at the latest."""
        limits = [child.limit for child in self.children]
        due = [place.due for place in self.places if self._vacant(place)]
        return min([*limits, *due], default=inf)

    def told(self, child: Child, fields: Mapping[str, str], now: float) -> None:
        """Take what a child told: see :mod:`gatecrew.common.notify`."""
        child.heard = now
        if "READY" not in fields:
            child.last_words = fields.get("STATUS", child.last_words)
        elif not child.ready:
            child.ready = True
            child.status = fields.get("STATUS", "")
            self._became_ready(child, now)

    def exited(self, child: Child, code: int, now: float) -> None:
        """Take note that a child is gone.

        Args:
            child: which one.
            code: its exit code, or minus the number of the signal that killed it.
            now: the time.

        """
        self.children.remove(child)
        why = _why(child, code)
        place = child.place
        if child.killed and child.leaving:
            self._report(f"{place.name} {why}", serious=True)
        operation = self.operation
        if operation is not None and child is operation.going:
            operation.going = None
            if place not in self.places:
                self._report(f"{place.name} is removed", serious=False)
        elif operation is not None and child is operation.coming:
            operation.coming = None
            self._did_not_come(child, why, now)
        elif child is place.child and self.phase is Phase.STARTING:
            place.child = None
            unsaid = f"{place.name} {why}; its log may tell why"
            text = f"{place.name}: {child.last_words}" if child.last_words else unsaid
            self.failure = self.failure or (text, max(code, 1))
        elif child is place.child and self.phase is Phase.UP:
            place.child = None
            self._start_again(place, why, now - child.started, now)

    def reload(self) -> Operation:
        """Replace the workers, one after the other.

        Raises:
            GatecrewError: if this is not the time for it.

        """
        return self._operate("a reload", self._replacements("worker"))

    def restart(self) -> Operation:
        """Replace everybody, one after the other.

        Raises:
            GatecrewError: if this is not the time for it.

        """
        return self._operate("a rolling restart", self._replacements(*START_ORDER))

    def scale(self, numbers: Mapping[str, int]) -> Operation:
        """Add children or let some leave, one after the other, until there are so many of these roles.

        Raises:
            GatecrewError: if this is not the time for it, or so many cannot run at once.

        """
        come: list[Step] = []
        go: list[Step] = []
        for role, number in numbers.items():
            if number > self._most.get(role, number):
                most = f"{self._most[role]} {role}{'s'[: self._most[role] != 1]}"
                raise GatecrewError(f"no more than {most} can run at once: [{role}] link has a port for each")
            present = [place for place in self.places if place.role == role]
            added = range(len(present) + 1, number + 1)
            come += [Step(Place(role, f"{role}-{count}"), comes=True, goes=False) for count in added]
            go += [Step(place, comes=False, goes=True) for place in reversed(present[number:])]
        return self._operate("a change of scale", come + go)

    def count(self, role: str) -> int:
        """Return how many places there are of a role."""
        return sum(place.role == role for place in self.places)

    def stop(self) -> None:
        """Let all leave, until :attr:`phase` is GONE."""
        if self.phase in (Phase.STARTING, Phase.UP):
            self.phase = Phase.STOPPING
            if self.operation is not None:
                self._end_operation("it is stopping")

    def tick(self, now: float) -> list[Effect]:
        """Return what to do now."""
        for child in self.children:
            if child.limit <= now:
                self._kill(child)
        if self.phase is Phase.STOPPING:
            self._let_next_role_leave(now)
        else:
            self._fill_places(now)
            self._go_on_with_operation(now)
        effects, self._effects = self._effects, []
        return effects

    def _vacant(self, place: Place) -> bool:
        """Whether a place should be filled; an operation fills its own, and nobody comes once the start failed."""
        wanted = self.phase in (Phase.STARTING, Phase.UP) and self.failure is None
        operation = self.operation
        cared_for = operation is not None and place in (operation.owed, operation.coming and operation.coming.place)
        return wanted and not cared_for and place.child is None

    def _fill_places(self, now: float) -> None:
        for place in self.places:
            if self._vacant(place) and place.due <= now:
                place.child = self._start(place, now)
        if self.phase is Phase.STARTING and all(place.child and place.child.ready for place in self.places):
            self.phase = Phase.UP

    def _replacements(self, *roles: str) -> list[Step]:
        return [Step(place, comes=True, goes=True) for role in roles for place in self.places if place.role == role]

    def _operate(self, name: str, steps: list[Step]) -> Operation:
        if self.operation is not None:
            raise GatecrewError(f"{self.operation.name} is under way; try again when it is over")
        if self.phase is not Phase.UP:
            raise GatecrewError(f"it is {self.phase.name.lower()}")
        self.operation = Operation(name, deque(steps))
        return self.operation

    def _go_on_with_operation(self, now: float) -> None:
        while (operation := self.operation) is not None and operation.coming is None and operation.going is None:
            if operation.owed is not None:
                operation.coming = self._start(operation.owed, now)
                operation.owed = None
            elif operation.steps:
                self._begin(operation, operation.steps.popleft(), now)
            else:
                self._end_operation("")

    def _begin(self, operation: Operation, step: Step, now: float) -> None:
        place, comes, goes = step
        if not comes:
            self.places.remove(place)
        if comes and (not goes or self.count(place.role) < self._most.get(place.role, inf)):
            operation.coming = self._start(place, now)
        else:
            operation.owed = place if comes else None
            operation.going, place.child = place.child, None
            if operation.going is not None:
                self._let_leave(operation.going, now)

    def _did_not_come(self, child: Child, why: str, now: float) -> None:
        """End the operation; a place that has lost its old child is filled as after a crash."""
        place = child.place
        if place.child is None and place in self.places:
            self._start_again(place, why, now - child.started, now)
        self._end_operation(f"{place.name} {why}; the {'others' if place.child is None else 'old ones'} go on")

    def _start_again(self, place: Place, why: str, uptime: float, now: float) -> None:
        delay = place.backoff.failed(uptime, self._random())
        place.due = now + delay
        place.restarts += 1
        self._report(f"{place.name} {why}; it starts again in {delay:.1f} s", serious=True)

    def _let_next_role_leave(self, now: float) -> None:
        for role in STOP_ORDER:
            present = [child for child in self.children if child.place.role == role]
            for child in present:
                self._let_leave(child, now)
            if present:
                return
        self.phase = Phase.GONE

    def _became_ready(self, child: Child, now: float) -> None:
        place = child.place
        operation = self.operation
        if operation is not None and child is operation.coming:
            operation.coming, operation.going = None, place.child
            place.child = child
            added = place not in self.places
            if added:
                self.places.append(place)
            self._report(f"{place.name} is {'added' if added else 'replaced'}", serious=False)
            if operation.going is not None:
                self._let_leave(operation.going, now)
        elif self.phase is Phase.UP and child is place.child:
            self._report(f"{place.name} is back", serious=False)

    def _start(self, place: Place, now: float) -> Child:
        self._count += 1
        child = Child(place, self._count, place.restarts, started=now, heard=now)
        self.children.append(child)
        self._effects.append(Start(child))
        return child

    def _let_leave(self, child: Child, now: float) -> None:
        if not child.leaving:
            child.leave_until = now + self._patience
            self._effects.append(Signal(child, signal.SIGTERM))

    def _kill(self, child: Child) -> None:
        if child.leaving:
            child.killed = f"did not stop within {self._patience:g} s and was killed"
        elif child.ready:
            child.killed = f"hung, without a sign of life for {HUNG_AFTER:g} s, and was killed"
        else:
            child.killed = f"was not ready after {START_LIMIT:g} s and was killed"
        self._effects.append(Signal(child, signal.SIGKILL))

    def _end_operation(self, error: str) -> None:
        operation, self.operation = self.operation, None
        assert operation is not None, "there is one"
        operation.over, operation.error = True, error

    def _report(self, text: str, *, serious: bool) -> None:
        self._effects.append(Report(text, serious))


def _why(child: Child, code: int) -> str:
    """Say why a child ended, to follow its name."""
    if child.killed:
        return child.killed
    return ending(code) + (f": {child.last_words}" if child.last_words else "")


def read_numbers(words: Iterable[str]) -> dict[str, int]:
    """Return how many of which role ``gateways=4`` and ``workers=8`` mean.

    Raises:
        ConfigError: if it is none of these, or a role is there twice.

    """
    numbers: dict[str, int] = {}
    for word in words:
        if word.startswith("registers="):
            raise ConfigError("each register has an address of its own: set [cluster] registers, and restart")
        match = _NUMBER.fullmatch(word)
        if match is None:
            raise ConfigError(f"expected gateways=N or workers=N, with N from 1 to 999, and found {word}")
        if match[1] in numbers:
            raise ConfigError(f"found two numbers of {match[1]}s")
        numbers[match[1]] = int(match[2])
    return numbers
