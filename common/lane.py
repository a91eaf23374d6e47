"""A lane: a numbered, acknowledged stream of batches in each direction between two processes.

ZeroMQ loses what is in flight when a connection breaks, and says nothing. So each batch has a number, is kept until the
other end acknowledges it, sent again when that end finds a gap, and dropped there if it comes twice.

Rules:

* Batches are numbered from 1. Only the batch after the last one received is delivered; an earlier one is a duplicate and
  dropped, a later one shows a gap: it is dropped and answered by NACK, at most one every ``interval`` while the gap stays.
* Every frame carries ``ack``: the last batch received in order. On NACK what comes after its ``ack`` is sent again, up to
  :data:`RESEND`; a PROBE behind it lets the other end ask for the rest. A NACK that shows no progress since the last one is
  heeded only after half an ``interval``. So a link is not filled with repetitions.
* PROBE carries the last number sent, so that a lost last batch is found too. It is sent when nothing else was for
  ``interval`` seconds, and earlier (at the next tick) when an ack is owed.
* Any frame of the lane proves that its sender lives. After ``dead_after`` seconds of silence the lane is dead: both ends drop
  it, and a new one (with another id, its epoch) starts empty. A stopped process that wakes up finds its lane superseded.

Pure: time comes in as an argument (seconds, monotonic), frames to send go out as return values.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from . import wire
from .errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Sequence

ACK_EVERY: Final = 32  #: batches; so many are acknowledged without waiting for a tick
RESEND: Final = 1024 * 1024  #: bytes; no further frame is sent again at one go once there are so many


class Lane:
    """One end of a lane.

    Args:
        id: the epoch of this pair, chosen at random by the end that connects.
        now: seconds.
        interval: seconds between probes when there is nothing else to send.
        dead_after: seconds of silence after which the other end is dead.
        limit: bytes that may be waiting for their ack before :meth:`full` is true.
    """

    __slots__ = (
        "acked",
        "again_at",
        "again_from",
        "complained",
        "dead_after",
        "heard",
        "id",
        "interval",
        "limit",
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
        self.complained = -inf  # when the present gap was last complained of
        self.again_from = -1  # `acked` when frames were last sent again
        self.again_at = -inf  # when that was

    def full(self, more: int = 0) -> bool:
        """Return whether more is waiting for its ack, with so many bytes to come, than the limit: the owner must stop making more."""
        return self.unacked_bytes + more > self.limit

    def seal(self, payload: bytes, now: float) -> bytes:
        """Return the frame for the next batch, which the caller must send now."""
        self.sent += 1
        frame = wire.frame(wire.DATA, self.id, self.sent, self.received, payload)
        self.unacked.append(frame)
        self.unacked_bytes += len(frame)
        self.told = self.received
        self.spoke = now
        return frame

    def take(self, kind: int, seq: int, ack: int, now: float) -> tuple[bool, Sequence[bytes]]:
        """Take in the numbers of a DATA, PROBE or NACK frame.

        Returns:
            Whether its batch is to be delivered, and the frames that the caller must send.

        Raises:
            LinkError: if it acknowledges what was not sent.
        """
        self.heard = now
        if ack > self.acked:
            self._acknowledged(ack)
        if kind == wire.DATA and seq == self.received + 1:
            self.received = seq
            self.complained = -inf
            return True, [self.probe(now)] if seq - self.told >= ACK_EVERY else ()
        frames: list[bytes] = []
        if kind == wire.NACK and (self.acked > self.again_from or now - self.again_at >= self.interval / 2):
            frames = self._again(now)
        if seq > self.received and now - self.complained >= self.interval:
            self.complained = now
            frames.append(self._control(wire.NACK, now))
        return False, frames

    def probe(self, now: float) -> bytes:
        """Return a PROBE, which tells the other end what came in and lets it see what it missed."""
        return self._control(wire.PROBE, now)

    def tick(self, now: float) -> bytes | None:
        """Return the PROBE that is due, if one is. To be called every ``interval`` / 5 or so."""
        if self.received > self.told or now - self.spoke >= self.interval:
            return self.probe(now)
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

    def _again(self, now: float) -> list[bytes]:
        """Return the first frames that the other end does not have, and a PROBE if there are more."""
        self.again_from = self.acked
        self.again_at = now
        frames: list[bytes] = []
        size = 0
        for frame in self.unacked:
            if size >= RESEND:
                frames.append(self.probe(now))
                break
            frames.append(frame)
            size += len(frame)
        return frames

    def _acknowledged(self, ack: int) -> None:
        if ack > self.sent:
            raise LinkError(f"acknowledges batch {ack}, but only {self.sent} were sent")
        for _ in range(ack - self.acked):
            self.unacked_bytes -= len(self.unacked.popleft())
        self.acked = ack
