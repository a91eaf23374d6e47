"""Which processes run on this machine, and what to do when one dies, hangs or is replaced: the rules of the supervisor.

A *place* is a process that should be there (``worker-2``), a *child* is one process that fills it. Pure: the supervisor tells
what it heard (:meth:`Crew.told`) and who ended (:meth:`Crew.exited`), and carries out what :meth:`Crew.tick` returns, at the
latest at :attr:`Crew.wake`. The rules:

* While the crew starts, each child has to become ready; one that ends fails the whole start.
* Later, a child that ends is started again, after a delay that grows from failure to failure. One that says nothing for
  ``HUNG_AFTER`` seconds is killed first; so is one that is not ready after ``START_LIMIT`` seconds.
* A reload replaces the workers one after the other: a successor starts, becomes ready, and then the old one is asked to leave.
  A successor that fails ends the reload, and the old ones go on.
* A stop goes role by role: gateways close their clients while workers still handle what that causes; registers are last. Who
  takes longer than it may is killed.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from .backoff import Backoff
from .errors import GatecrewError
from .exits import ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HUNG_AFTER: Final = 10.0  #: seconds without a sign of life
START_LIMIT: Final = 60.0  #: seconds until a child must be ready
STOP_ORDER: Final = ("gateway", "worker", "register")


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

    """

    def __init__(self, places: Iterable[tuple[str, str]], *, patience: float, random: Callable[[], float]) -> None:
        self.places = [Place(role, name) for role, name in places]
        self.children: list[Child] = []
        self.phase = Phase.STARTING
        #: why the start failed, and with which exit code
        self.failure: tuple[str, int] | None = None
        #: why the last reload failed; "" if it did not
        self.reload_error = ""
        self._patience = patience
        self._random = random
        self._count = 0
        self._effects: list[Effect] = []
        self._to_reload: deque[Place] = deque()
        self._successor: Child | None = None  # it starts
        self._predecessor: Child | None = None  # it leaves

    @property
    def reloading(self) -> bool:
        """Whether a reload is under way."""
        return bool(self._to_reload or self._successor or self._predecessor)

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
        if child is self._predecessor:
            self._predecessor = None
        elif child is self._successor:
            self._successor = None
            self._end_reload(f"{place.name} {why}; the old ones go on")
        elif child is place.child and self.phase is Phase.STARTING:
            place.child = None
            unsaid = f"{place.name} {why}; its log may tell why"
            text = f"{place.name}: {child.last_words}" if child.last_words else unsaid
            self.failure = self.failure or (text, max(code, 1))
        elif child is place.child and self.phase is Phase.UP:
            place.child = None
            delay = place.backoff.failed(now - child.started, self._random())
            place.due = now + delay
            place.restarts += 1
            self._report(f"{place.name} {why}; it starts again in {delay:.1f} s", serious=True)

    def reload(self) -> None:
        """Replace the workers, one after the other, until :attr:`reloading` is false.

        Raises:
            GatecrewError: if this is not the time for it.

        """
        if self.reloading or self.phase is not Phase.UP:
            raise GatecrewError("a reload is under way" if self.reloading else f"it is {self.phase.name.lower()}")
        self.reload_error = ""
        self._to_reload.extend(place for place in self.places if place.role == "worker")

    def stop(self) -> None:
        """Let all leave, until :attr:`phase` is GONE."""
        if self.phase in (Phase.STARTING, Phase.UP):
            self.phase = Phase.STOPPING
            if self.reloading:
                self._successor = self._predecessor = None
                self._end_reload("it is stopping")

    def tick(self, now: float) -> list[Effect]:
        """Return what to do now."""
        for child in self.children:
            if child.limit <= now:
                self._kill(child)
        if self.phase is Phase.STOPPING:
            self._let_next_role_leave(now)
        else:
            self._fill_places(now)
            self._go_on_with_reload(now)
        effects, self._effects = self._effects, []
        return effects

    def _vacant(self, place: Place) -> bool:
        """Whether a place should be filled; one whose successor starts need not, and nobody comes once the start failed."""
        wanted = self.phase in (Phase.STARTING, Phase.UP) and self.failure is None
        coming = self._successor is not None and self._successor.place is place
        return wanted and not coming and place.child is None

    def _fill_places(self, now: float) -> None:
        for place in self.places:
            if self._vacant(place) and place.due <= now:
                place.child = self._start(place, now)
        if self.phase is Phase.STARTING and all(place.child and place.child.ready for place in self.places):
            self.phase = Phase.UP

    def _go_on_with_reload(self, now: float) -> None:
        if self._to_reload and self._successor is None and self._predecessor is None:
            self._successor = self._start(self._to_reload.popleft(), now)

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
        if child is self._successor:
            self._successor = None
            self._predecessor = place.child
            place.child = child
            self._report(f"{place.name} is replaced", serious=False)
            if self._predecessor is not None:
                self._let_leave(self._predecessor, now)
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

    def _end_reload(self, error: str) -> None:
        self.reload_error = error
        self._to_reload.clear()

    def _report(self, text: str, *, serious: bool) -> None:
        self._effects.append(Report(text, serious))


def _why(child: Child, code: int) -> str:
    """Say why a child ended, to follow its name."""
    if child.killed:
        return child.killed
    return ending(code) + (f": {child.last_words}" if child.last_words else "")
