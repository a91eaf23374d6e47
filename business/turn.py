"""A turn: what one handler commands, gathered until it ends.

The commands of a turn and the ack of its event leave together or not at all. What is commanded for the client's own gateway
travels with the ack, in one batch; what is for others leaves before it, so that a crash in between repeats and never loses.
What leaves before the ack is stamped, and when the event is handled again and the same leaves again, gateways know it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..common.errors import TurnDropped
from .checks import MAX_COMMANDS, size

if TYPE_CHECKING:
    from ..common.messages import Message
    from .client import Client

Stamp = tuple[str, int]  #: origin and number of a TURN (:mod:`..common.messages`)

#: The turn of the running handler, of all tasks that it started and of its thread. None outside of handlers.
current_turn: ContextVar[Turn | None] = ContextVar("current_turn", default=None)


class Turn:
    """The commands of one run of a handler that have not left yet.

    Args:
        client: the client whose event is handled; None for timers and the handlers of a worker's start and stop.
        number: of that event, by which it is acknowledged; 0 if nobody waits for an ack.
        opcode: of that event.
        parts: of what was commanded for that event that have left already.
    """

    __slots__ = ("_saved", "client", "dropped", "gateway", "number", "opcode", "others", "over", "own", "parts", "size")

    def __init__(self, client: Client | None = None, number: int = 0, opcode: int = 0, parts: int = 0) -> None:
        self.client = client
        self.number = number
        self.opcode = opcode
        self.parts = parts
        self.gateway = client.gateway if client is not None else ""  # the key of the client's gateway
        self.size = 0  # bytes of what was recorded
        self.own: list[Message] = []  # for that one
        self.others: list[tuple[str | None, Message]] = []  # for another one, or with None for all others
        self.over = False  # it has ended; what is commanded now belongs to nothing and leaves by itself
        self.dropped = ""  # why it was given up; what is commanded now must not be sent
        self._saved: tuple[int, str | None, bytes] | None = None  # uid and session before the changes recorded here

    def record(self, gateway: str | None, message: Message) -> None:
        """Take a command for one gateway, or with None for all.

        Raises:
            TurnDropped: if the handler was given up.
            ValueError: if too much is recorded already.
        """
        if self.dropped:
            raise TurnDropped(f"{self.dropped}: what is commanded now is not sent")
        if self.size > MAX_COMMANDS:
            self.check()
        self.size += size(message)
        if gateway == self.gateway:
            self.own.append(message)
            return
        if gateway is None and self.gateway:
            self.own.append(message)
        self.others.append((gateway, message))

    def check(self) -> None:
        """See whether there is room for another command.

        Raises:
            ValueError: if there is none.
        """
        if self.size > MAX_COMMANDS:
            raise ValueError(
                f"a handler commanded more than {MAX_COMMANDS} bytes: let them leave in between, with await app.flush()"
            )

    def save(self) -> None:
        """Prepare for a change of the client's uid or session that may have to be undone.

        Raises:
            ValueError: if there is no room for the command that goes with it.
        """
        self.check()
        if self._saved is None and self.client is not None:
            self._saved = self.client.saved()

    def take(self, *, last: bool = False) -> tuple[list[Message], list[tuple[str | None, Message]]]:
        """Return and forget what was recorded: for the own gateway, and for others.

        Args:
            last: whether the handler has ended, and with it its hold on ``client.session``.

        Raises:
            TypeError, ValueError: if the session was changed to what it cannot hold.
        """
        if self.client is not None:
            change = self.client.session_change(copy=last)
            if change is not None:
                self.own.append(change)
        taken = self.own, self.others
        self.own, self.others, self._saved, self.size = [], [], None, 0
        return taken

    def stamp(self) -> Stamp | None:
        """Return what to know the next part by, in whichever run of the handler it leaves; None if there is no event."""
        if self.client is None:
            return None
        self.parts += 1
        return self.client.event_id, self.parts

    def undo(self) -> None:
        """Forget what was recorded and has not left, and the changes of the client that go with it."""
        self.own, self.others, self.size = [], [], 0
        if self.client is not None:
            self.client.restore(self._saved or self.client.saved())
            self._saved = None
