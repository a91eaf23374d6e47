"""What was said and what was heard: lost, reordered and repeated messages, and how long anyone had to wait.

Pure: times are passed in. A *speaker* numbers its messages from 1, once for those that come back to itself and once for those to
its group. A *stream* is what one listener hears of one speaker.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Stream:
    """Numbers that should come once and in order, from ``first`` on."""

    first: int = 1
    next: int = 0
    missing: set[int] = field(default_factory=set)  #: that others overtook

    def __post_init__(self) -> None:
        self.next = self.first

    def heard(self, number: int) -> str:
        """Take a number, and return what it is: ``new``, ``reordered``, ``repeated``, or ``early`` if it is none of the stream."""
        if number >= self.next:
            self.missing.update(range(self.next, number))
            self.next = number + 1
            return "new"
        if number < self.first:
            return "early"
        if number in self.missing:
            self.missing.remove(number)
            return "reordered"
        return "repeated"

    def lost(self, said: int) -> int:
        """Return how many of so many numbers did not come."""
        return len(self.missing) + said + 1 - self.next


@dataclass(slots=True)
class _Client:
    gateway: str
    group: str
    said: int = 0
    told: int = 0  #: to its group
    due: dict[int, float] = field(default_factory=dict)  #: when what has not come back was said
    echoes: Stream = field(default_factory=Stream)
    heard: dict[int, Stream] = field(default_factory=dict)  #: by speaker


class Ledger:
    """Keeps the books of a run."""

    def __init__(self) -> None:
        self.sent = 0
        self.handled = 0  #: as its speaker heard
        self.reordered = 0
        self.repeated = 0  #: for listeners at the gateway of the speaker
        self.repeated_across = 0  #: for listeners at another one
        self.recoveries: list[
            float
        ] = []  #: for each fault, the seconds that the unluckiest message waited from then on
        self._fault_at = 0.0
        self._clients: dict[int, _Client] = {}
        self._groups: dict[str, list[int]] = {}

    # What happens

    def joined(self, client: int, gateway: str, group: str) -> None:
        """A client is there, and hears its group from now on."""
        members = self._groups.setdefault(group, [])
        heard = {speaker: Stream(self._clients[speaker].told + 1) for speaker in members}
        members.append(client)
        self._clients[client] = _Client(gateway, group, heard=heard)

    def left(self, client: int) -> None:
        """A client is gone, with its gateway or by itself: what it said and did not hear is nobody's fault."""
        gone = self._clients.pop(client)
        self._groups[gone.group].remove(client)
        for member in self._groups[gone.group]:
            self._clients[member].heard.pop(client, None)

    def say(self, client: int, now: float) -> int:
        """A client says the number that is returned, which should come back to it."""
        speaker = self._clients[client]
        self.sent += 1
        speaker.said += 1
        speaker.due[speaker.said] = now
        return speaker.said

    def tell(self, client: int) -> int:
        """A client tells its group, itself too, the number that is returned."""
        self.sent += 1
        self._clients[client].told += 1
        return self._clients[client].told

    def echoed(self, client: int, number: int, now: float) -> float | None:
        """A number came back; return how many seconds it took, unless it is a repeated one."""
        speaker = self._clients[client]
        self._count(speaker.echoes.heard(number), own=True, same=True)
        said = speaker.due.pop(number, None)
        if said is None:
            return None
        if self.recoveries:
            self.recoveries[-1] = max(self.recoveries[-1], now - max(said, self._fault_at))
        return now - said

    def heard(self, listener: int, speaker: int, number: int) -> None:
        """A client heard what another one, or itself, told its group."""
        if speaker in self._clients:
            member = self._clients[listener]
            stream = member.heard.setdefault(speaker, Stream())
            same = self._clients[speaker].gateway == member.gateway
            self._count(stream.heard(number), own=listener == speaker, same=same)

    def fault(self, now: float) -> None:
        """Something is broken now."""
        self._fault_at = now
        self.recoveries.append(0.0)

    # What is to be known

    @property
    def lost(self) -> int:
        """How many messages somebody has not heard, so far."""
        echoes = sum(client.echoes.lost(client.said) for client in self._clients.values())
        return echoes + sum(
            self._clients[listener].heard.get(speaker, Stream()).lost(self._clients[speaker].told)
            for members in self._groups.values()
            for listener in members
            for speaker in members
        )

    def waits_since(self) -> float:
        """Return when the oldest message was said that has not come back; infinity if all have."""
        return min(
            (next(iter(client.due.values())) for client in self._clients.values() if client.due), default=float("inf")
        )

    def give_up(self, before: float) -> None:
        """Wait no longer for what was said before this time; it is still lost."""
        for client in self._clients.values():
            client.due = {number: said for number, said in client.due.items() if said >= before}

    def _count(self, what: str, *, own: bool, same: bool) -> None:
        self.handled += own and what in ("new", "reordered")
        self.reordered += what == "reordered"
        self.repeated += same and what == "repeated"
        self.repeated_across += not same and what == "repeated"


def quantile(values: list[float], share: float) -> float:
    """Return the least of the values that is not exceeded by this share of them; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
