"""A lane: a numbered, acknowledged stream of batches in each direction between two processes.

ZeroMQ loses what is in flight when a connection breaks, and says nothing. So each batch has a number, is kept until the
other end acknowledges it, sent again when that end finds a gap, and dropped there if it comes twice.

Rules:

* Batches are numbered from 1. Only the batch after the last one received is delivered; an earlier one is a duplicate and
  dropped, a later one shows a gap: it is dropped and answered by NACK, at most one every ``interval`` while the gap stays.
* Every frame carries ``ack``: the last batch received in order. On NACK what comes after its ``ack`` is sent again, up to
  :data:`RESEND`; a PROBE behind it lets the other end ask for the rest. So a slow link is not filled with repetitions.
* PROBE carries the last number sent, so that a lost last batch is found too. It is sent when nothing else was for
  ``interval`` seconds, and earlier (at the next tick) when an ack is owed.
* Any frame of the lane proves that its sender lives. After ``dead_after`` seconds of silence the lane is dead: both ends drop
  it, and a new one (with another id, its epoch) starts empty. A stopped process that wakes up finds its lane superseded.

Pure: time comes in as an argument (seconds, monotonic), frames to send go out as return values.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from . import wire
from .errors import LinkError

ACK_EVERY: Final = 32  #: batches; so many are acknowledged without waiting for a tick
RESEND: Final = 1024 * 1024  #: bytes; no further frame is sent again at one go once there are so many


class Lane:
    """One end of a lane.

    Args:
        id: the epoch of this pair, chosen at random by the end that connects.
        now: seconds.
        interval: seconds between probes when there is nothing else to send.
        dead_after: seconds of silence after which the other end is dead.
        limit: bytes that may be waiting for their ack before :attr:`full` is true.
    """

    __slots__ = (
        "acked",
        "dead_after",
        "heard",
        "id",
        "interval",
        "limit",
        "nacked",
        "received",
        "sent",
        "spoke",
        "told",
        "unacked",
        "unacked_bytes",
    )

    def __init__(self, id: int, now: float, *, interval: float, dead_after: float, limit: int) -> None:  # noqa: A002
        self.id = id
        self.interval = interval
        self.dead_after = dead_after
        self.limit = limit
        self.sent = 0  # the last number given to a batch
        self.acked = 0  # the last number that the other end has
        self.received = 0  # the last number that this end has
        self.told = 0  # the last `received` that the other end was told of
        self.unacked: deque[bytes] = deque()  # the frames acked + 1 .. sent
        self.unacked_bytes = 0
        self.heard = now
        self.spoke = now
        self.nacked = -1.0  # when the present gap was last complained of; < 0: there is none

    @property
    def full(self) -> bool:
        """Whether more is waiting for its ack than the limit: the owner must stop making more."""
        return self.unacked_bytes > self.limit

    @property
    def owes_ack(self) -> bool:
        """Whether so much came in since the last ack that it should not wait for a tick."""
        return self.received - self.told >= ACK_EVERY

    def seal(self, payload: bytes, now: float) -> bytes:
        """Return the frame for the next batch, which the caller must send now."""
        self.sent += 1
        frame = wire.frame(wire.DATA, self.id, self.sent, self.received, payload)
        self.unacked.append(frame)
        self.unacked_bytes += len(frame)
        self.told = self.received
        self.spoke = now
        return frame

    def data(self, seq: int, ack: int, now: float) -> bool:
        """Take in the numbers of a DATA frame; return whether its batch is to be delivered."""
        self.heard = now
        if ack > self.acked:
            self._acknowledge(ack)
        if seq == self.received + 1:
            self.received = seq
            self.nacked = -1.0
            return True
        return False

    def complaint(self, seq: int, now: float) -> bytes | None:
        """Return the NACK to send, if ``seq`` shows that batches are missing here and it is time to say so."""
        if seq <= self.received or 0 <= self.nacked > now - self.interval:
            return None
        self.nacked = now
        return self._control(wire.NACK, now)

    def probe(self, ack: int, now: float) -> None:
        """Take in the numbers of a PROBE or NACK frame. For its ``seq`` the caller asks :meth:`complaint`."""
        self.heard = now
        if ack > self.acked:
            self._acknowledge(ack)

    def resend(self, now: float) -> list[bytes]:
        """Return the answer to a NACK: the first frames that the other end does not have, and a PROBE if there are more."""
        again: list[bytes] = []
        size = 0
        for frame in self.unacked:
            if size >= RESEND:
                again.append(self._control(wire.PROBE, now))
                break
            again.append(frame)
            size += len(frame)
        return again

    def acknowledge(self, now: float) -> bytes:
        """Return a frame that tells the other end what has come in."""
        return self._control(wire.PROBE, now)

    def tick(self, now: float) -> bytes | None:
        """Return the PROBE that is due, if one is. To be called every ``interval`` / 5 or so."""
        if self.received > self.told or now - self.spoke >= self.interval:
            return self._control(wire.PROBE, now)
        return None

    def dead(self, now: float) -> bool:
        """Return whether the other end has been silent for too long."""
        return now - self.heard > self.dead_after

    def forgive(self, seconds: float, now: float) -> None:
        """Do not hold a silence against the other end in which this process itself did not listen."""
        self.heard = min(self.heard + seconds, now)  # what came meanwhile may have been read already

    def _control(self, kind: int, now: float) -> bytes:
        self.told = self.received
        self.spoke = now
        return wire.frame(kind, self.id, self.sent, self.received)

    def _acknowledge(self, ack: int) -> None:
        if ack > self.sent:
            raise LinkError(f"acknowledges batch {ack}, but only {self.sent} were sent")
        for _ in range(ack - self.acked):
            self.unacked_bytes -= len(self.unacked.popleft())
        self.acked = ack
