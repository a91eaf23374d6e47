"""Runs handlers: the events of one client one at a time and in order, those of many clients at once.

A handler that never suspends costs no task. One task, the *leader*, takes the events and runs their handlers. When one
suspends, the leader stays with it to its end, and a new task leads. So a handler always runs in one and the same task, as
libraries that ask for the current task expect.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import logging
import os
import types
from collections import Counter, deque
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..common import messages as op
from ..common.errors import HandlerTimeout, LinkError, TurnDropped
from ..common.histogram import Histogram
from ..common.ids import new_client_id
from .client import Client, introduced
from .handshake import FAILED, answer
from .hub import MUCH, Gateway, Hub, unreachable
from .turn import Turn, current_turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from ..common.messages import Message
    from .app import App
    from .client import Request

_log = logging.getLogger(__name__)

AT_ONCE: Final = 64  #: events that are handled before what they command leaves and other work gets its turn
GRACE: Final = 1.0  #: seconds that a handler has to end once it was cancelled
BLOCKED: Final = 1.0  #: seconds without letting anything else run after which a handler is named in the log
MAX_CLOSES: Final = 10_000  #: that are remembered, for gateways that are lost within a moment of telling them
HELD: Final = 0.05  #: seconds after which a gateway that did not keep up is looked at again

_EVENTS: Final = {op.CONNECT: "the connect", op.MESSAGE: "a message", op.CLOSE: "the close"}
_HANDLERS: Final = {op.CONNECT: "connect", op.MESSAGE: "message", op.CLOSE: "close"}
#: Where our part of a traceback comes from: this folder, and what runs a function in a thread.
_OURS: Final = (f"{Path(__file__).parent}{os.sep}", concurrent.futures.thread.__file__)


class Runner:
    """The handlers of an app, at work.

    Args:
        app: whose handlers are run.
        hub: where their commands go.
        concurrency: handlers that are suspended, or do not even end when they are cancelled, from which on no more are started.
        time_limit: seconds that a handler may take; 0 for no limit.
        timed: whether it is kept how long the handlers of events take.
    """

    def __init__(self, app: App, hub: Hub, *, concurrency: int, time_limit: float, timed: bool = False) -> None:
        self.counters: Counter[str] = Counter()
        self.events = 0
        self._took = {opcode: Histogram() for opcode in _HANDLERS} if timed else {}
        self._app = app
        self._hub = hub
        self._concurrency = concurrency
        self._time_limit = time_limit
        self._loop = asyncio.get_running_loop()
        self._ready: deque[tuple[Client, Message]] = deque()
        self._held: dict[Gateway, deque[tuple[Client, Message]]] = {}  # of gateways that do not keep up
        self._connect = app.handler("connect")
        self._message = app.handler("message")
        self._close = app.handler("close")
        self._error = app.handler("error")
        self._wake: asyncio.Future[None] | None = None  # the leader waits for it
        self._idle: asyncio.Future[None] | None = None
        self._closes: dict[str, str] = {}  # clients whose close was handled, and the key of the gateway that told it
        self._running: dict[Turn, asyncio.Task[Any] | None] = {}  # the suspended ones
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshakes: dict[asyncio.Task[None], Gateway] = {}
        self._closed = False
        self._leader: asyncio.Task[None]
        self._new_leader()

    @property
    def took(self) -> dict[str, Histogram]:
        """How long the handlers of events took, from their start to their end, by name."""
        return {_HANDLERS[opcode]: histogram for opcode, histogram in self._took.items()}

    @property
    def suspended(self) -> int:
        """How many handlers have begun and not ended."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """How many events wait to be handled here."""
        held = sum(map(len, self._held.values()))
        mailboxes = (turn.client.mailbox for turn in self._running if turn.client is not None)
        return len(self._ready) + held + sum(map(len, filter(None, mailboxes)))

    # Events

    def received(self, gateway: Gateway, batch: list[Message]) -> None:
        """Take a batch from a gateway.

        Raises:
            LinkError: if it is not made as :mod:`..common.messages` says.
        """
        clients = gateway.clients
        ready = self._ready
        try:
            for message in batch:
                opcode = message[0]
                if opcode <= op.CLOSE:
                    _, _, client_id, _, state, _ = message
                    client = clients.get(client_id)
                    if client is None:
                        if state is None or state[3] is None:
                            raise LinkError(f"an event of client {client_id!r}, which was not introduced")
                        client = clients[client_id] = Client(self._app, client_id, gateway)
                    ready.append((client, message))
                else:
                    self._receive(gateway, message)
        except (TypeError, ValueError, LookupError) as error:
            raise LinkError(f"a message is malformed: {error}") from error
        if ready:
            self._go_on()

    def _receive(self, gateway: Gateway, message: Message) -> None:
        """Take what is no event of a client."""
        match message[0]:
            case op.ANSWER | op.NO_ANSWER:
                self._hub.answered(gateway, message)
            case op.FORGET:
                gateway.clients.pop(message[1], None)
            case op.HANDSHAKE:
                _, number, _, introduction, headers = message
                self._decide(gateway, number, introduced(introduction, headers))
            case op.REVOKED:
                match message[1:]:
                    case ["uid" | "id" as what, str(value), int() | float() as since, int() | float() as until]:
                        self._hub.revoked(what, value, since, until)
                    case _:
                        raise LinkError("revokes something else than tokens")
            case op.GATEWAYS:
                self._hub.told(message[1])
            case op.FENCE:
                self._hub.fence(message[1])
            case op.PING:
                _, _ = message
                nobody = Client(self._app, new_client_id(gateway.key), gateway)  # whose event it could be
                self._ready.append((nobody, message))
            case opcode:
                raise LinkError(f"message {opcode} is not for a worker")

    def lost(self, gateway: Gateway) -> None:
        """Give up all that came from a gateway: others get it again, and the order must not depend on what is left here."""
        self._held.pop(gateway, None)
        for task, source in self._handshakes.items():
            if source is gateway:
                task.cancel()
        kept = [(client, message) for client, message in self._ready if client.source is not gateway]
        self._ready.clear()
        self._ready.extend(kept)
        self._drop(
            [turn for turn in self._running if turn.client and turn.client.source is gateway], "its gateway is gone"
        )
        self._see_whether_idle()

    async def idle(self) -> None:
        """Return when no event is left."""
        while self._ready or self._running or self._held or self._handshakes:
            self._idle = self._loop.create_future()
            await self._idle

    async def close(self) -> None:
        """Cancel what still runs; its events are not acknowledged, and others get them."""
        self._closed = True
        self._drop(list(self._running), "the worker stops")
        self._ready.clear()
        tasks = {*self._tasks, *self._handshakes}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)

    def _drop(self, turns: list[Turn], why: str) -> None:
        for turn in turns:
            turn.dropped = why
            turn.number = 0
            task = self._running[turn]
            if turn.client is not None:
                turn.client.mailbox = None
            if task is not None:
                task.cancel()

    # Leading

    async def _lead(self) -> None:
        ready, tasks = self._ready, self._tasks
        left = AT_ONCE
        while True:
            # one task for each handler that is suspended or was left behind, one for each failure that is told, and this
            while ready and len(tasks) <= self._concurrency:
                client, message = ready.popleft()
                if client.busy or client.source.full or client.source in self._held:
                    self._set_aside(client, message)
                    continue
                turn = Turn(client, message[1], message[0])
                rest: Awaitable[None] | None
                try:
                    rest = self._first_step(turn, client, message)
                except BaseException as error:  # noqa: BLE001  # a handler must not take the worker down
                    rest = _fail(error)
                if rest is None:
                    failure = self._commit(turn)
                    if failure is not None:
                        rest = _fail(failure)
                if rest is not None:
                    self._new_leader()
                    await self._stay(turn, rest)
                    return
                left -= 1
                if not left:
                    left = AT_ONCE
                    await asyncio.sleep(0)
            self._hub.flush()
            self._see_whether_idle()
            self._wake = self._loop.create_future()
            await self._wake
            left = AT_ONCE

    def _first_step(self, turn: Turn, client: Client, message: Message) -> Awaitable[None] | None:
        """Run a handler until it suspends; return what is left of it, or None if it has ended."""
        coroutine = self._begin(client, message)
        if coroutine is None:
            return None
        current_turn.set(turn)
        context = copy_context()
        took = self._took.get(turn.opcode)
        began = monotonic()
        ended = True
        try:
            waits_for = context.run(coroutine.send, None)
            ended = False
        except StopIteration:
            return None
        finally:
            seconds = monotonic() - began
            if ended and took is not None:
                took.observe(seconds)
            if seconds >= BLOCKED:
                self._blocked(turn, seconds)
        return self._drive(turn, context, coroutine, waits_for, began)

    @types.coroutine
    def _drive(
        self, turn: Turn, context: Context, coroutine: Coroutine[Any, Any, None], waits_for: object, started: float
    ) -> Generator[object, object, None]:
        """Go on with a handler that has suspended, in its own context."""
        try:
            while True:
                try:
                    value = yield waits_for
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001  # of the future, or a cancellation: for the handler
                    step: Callable[[], object] = partial(coroutine.throw, error)
                else:
                    step = partial(coroutine.send, value)
                began = monotonic()
                try:
                    waits_for = context.run(step)
                except StopIteration:
                    return
                finally:
                    seconds = monotonic() - began
                    if seconds >= BLOCKED:
                        self._blocked(turn, seconds)
        finally:
            took = self._took.get(turn.opcode)
            if took is not None:
                took.observe(monotonic() - started)

    def _blocked(self, turn: Turn, seconds: float) -> None:
        """Tell that a handler let nothing else run for too long."""
        self.counters["handler.blocked"] += 1
        _log.warning(
            "%s blocked this worker for %.1f s, in which all other clients waited: write what blocks with def, not async def",
            _event(turn),
            seconds,
            extra=_ids(turn.client),
        )

    def _begin(self, client: Client, message: Message) -> Coroutine[Any, Any, None] | None:
        """Return what handles an event, if anything does."""
        if message[0] == op.PING:
            return None
        opcode, _, _, client.number, state, data = message
        self.events += 1
        if state is not None:
            client.learn(state)
        elif client.redelivered:
            client.redelivered = False
        if opcode == op.MESSAGE:
            return self._message(client, data) if self._message is not None else None
        if opcode == op.CONNECT:
            return self._connect(client, client.request(data)) if self._connect is not None else None
        client.source.clients.pop(client.id, None)
        if self._closes.get(client.id, client.source.key) != client.source.key:
            return None  # its gateway had told it, and was lost before its buddy knew
        return self._close(client, *data) if self._close is not None else None

    def _set_aside(self, client: Client, message: Message) -> None:
        """Keep an event until its client's handler has ended, or until its gateway takes commands again."""
        if client.busy:
            if client.mailbox is None:
                client.mailbox = deque()
            client.mailbox.append(message)
            return
        gateway = client.source
        if gateway not in self._held:
            self._held[gateway] = deque()
            self.counters["gateway.full"] += 1
            self._loop.call_later(HELD, self._look_at, gateway)
        self._held[gateway].append((client, message))

    def _look_at(self, gateway: Gateway) -> None:
        if gateway not in self._held:
            return
        if gateway.peer.full:
            self._loop.call_later(HELD, self._look_at, gateway)
            return
        gateway.full = False
        self._ready.extendleft(reversed(self._held.pop(gateway)))
        self._go_on()

    def _go_on(self) -> None:
        """Wake the leader."""
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    def _see_whether_idle(self) -> None:
        if self._idle is not None and not (self._ready or self._running or self._held or self._handshakes):
            idle, self._idle = self._idle, None
            if not idle.done():
                idle.set_result(None)

    # Staying

    async def _stay(self, turn: Turn, rest: Awaitable[None]) -> None:
        """Be the task of a handler until it ends."""
        client = turn.client
        assert client is not None, "only events of clients are led"
        client.busy = True
        self._running[turn] = task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        limit = self._loop.call_later(self._time_limit, self._overdue, turn) if self._time_limit else None
        error: BaseException | None = None
        try:
            await rest
        except BaseException as raised:  # noqa: BLE001  # a handler must not take the worker down
            error = raised
            while task.uncancel():  # the handler was meant, not the error handlers
                pass
        if limit is not None:
            limit.cancel()
        if self._running.get(turn) is not None:  # else it was abandoned
            await self._end(turn, error)

    def _overdue(self, turn: Turn) -> None:
        """Cancel a handler that takes too long."""
        task = self._running.get(turn)
        if not turn.dropped and task is not None:
            turn.dropped = f"the handler ran past its time limit of {self._time_limit:g} s"
            task.cancel()
            self._loop.call_later(GRACE, self._abandon, turn)

    def _abandon(self, turn: Turn) -> None:
        """Go on without a handler that does not even end when it is cancelled."""
        if self._running.get(turn) is not None:
            self._running[turn] = None
            self.counters["handler.abandoned"] += 1
            self._spawn(self._end(turn, None))

    async def _end(self, turn: Turn, error: BaseException | None) -> None:
        """Let a turn's commands go with its ack, or if it failed those of the error handlers, and let the client's next event come."""
        self._running[turn] = None  # from now on there is no handler to cancel
        if turn.dropped and turn.number:
            error = HandlerTimeout(turn.dropped)
            self.counters["handler.timeouts"] += 1
        if error is None:
            error = self._commit(turn)
        if error is not None and turn.number:
            turn = await self._failed(turn, error)
        del self._running[turn]
        client = turn.client
        assert client is not None, "only events of clients are led"
        client.busy = False
        if client.mailbox:
            self._ready.extendleft((client, message) for message in reversed(client.mailbox))
        client.mailbox = None
        self._go_on()
        self._see_whether_idle()

    async def _failed(self, turn: Turn, error: BaseException) -> Turn:
        """Tell the error handlers; what they command leaves with the ack, in place of what the failed one commanded.

        Returns:
            Their turn, which runs in the place of the failed one.
        """
        client = turn.client
        self._log_failure(error, _event(turn), client)
        turn.undo()
        turn.over = not turn.dropped
        answer = Turn(client, turn.number, turn.opcode, turn.parts)
        del self._running[turn]
        self._running[answer] = None
        if self._error is not None:
            try:
                await self._in_turn(answer, self._error(client, error), self._time_limit)
            except Exception as second:  # noqa: BLE001  # a handler must not take the worker down
                self._log_failure(second, "handling that error", client)
                answer.undo()
        answer.over = not answer.dropped
        if self._commit(answer) is not None:
            answer.undo()
            self._commit(answer)
        return answer

    def _commit(self, turn: Turn) -> Exception | None:
        """Let the commands of a turn leave with its ack. Return why they cannot."""
        client = turn.client
        if not turn.number or client is None:
            return None
        size = turn.size
        try:
            own, others = turn.take(last=True)
        except (TypeError, ValueError) as error:
            return error
        turn.over = True
        if turn.opcode == op.CLOSE:
            self._closes[client.id] = client.source.key
            if len(self._closes) > MAX_CLOSES:
                del self._closes[next(iter(self._closes))]
        much = size > MUCH
        if others or much:
            missed = self._hub.post(others, own if much else None, client.source, turn.stamp())
            if missed:
                self._spawn(self.failed(unreachable(missed), "sending what a handler commanded"))
        self._hub.commit(client.source, turn.number, [] if much else own, size)
        if much:
            self._hub.flush()  # it shows whether the gateway keeps up, before the next handler makes more
        return None

    # Handshakes

    def _decide(self, gateway: Gateway, number: int, request: Request) -> None:
        """Let the handlers decide on a handshake. Gateways see to it that there are not too many at once."""
        task = self._loop.create_task(self._handshake(gateway, number, request))
        self._handshakes[task] = gateway
        task.add_done_callback(self._decided)

    def _decided(self, task: asyncio.Task[None]) -> None:
        del self._handshakes[task]
        self._see_whether_idle()

    async def _handshake(self, gateway: Gateway, number: int, request: Request) -> None:
        decision: object = None

        async def decide() -> None:
            nonlocal decision
            decision = await self._app.decide(request)

        try:
            await self.run(decide)
            said = answer(number, decision, request)
        except Exception as error:  # noqa: BLE001  # a handler must not take the worker down
            said = answer(number, FAILED, request)
            self._spawn(self.failed(error, f"deciding on the handshake of {request.remote}"))
        gateway.peer.send(said)

    # Turns without an event

    async def run(self, handler: Callable[[], Coroutine[Any, Any, None]], time_limit: float | None = None) -> None:
        """Run a handler that belongs to no event, such as a timer's, in a turn of its own.

        Args:
            handler: the coroutine function.
            time_limit: seconds that it may take, 0 for no limit; None for the limit of all handlers.

        Raises:
            Exception: what it raises; then nothing that it commanded is sent.
            HandlerTimeout: if it takes too long.
            Unreachable: if some of what it commanded could not be handed over.
        """
        turn = Turn()
        try:
            await self._in_turn(turn, handler(), self._time_limit if time_limit is None else time_limit)
        finally:
            turn.over = not turn.dropped
        self.flush(turn)

    async def failed(self, error: Exception, doing: str) -> None:
        """Log and count the failure of a handler that belongs to no event, and tell the error handlers."""
        self._log_failure(error, doing)
        tell = self._error
        if tell is not None:
            try:
                await self.run(lambda: tell(None, error))
            except Exception as second:  # noqa: BLE001  # a handler must not take the worker down
                self._log_failure(second, "handling that error")

    def flush(self, turn: Turn) -> None:
        """Let go what a turn has recorded so far.

        Raises:
            Unreachable: if some of it could not be handed over.
        """
        if turn.dropped:
            raise TurnDropped(f"{turn.dropped}: what was commanded is not sent")
        own, others = turn.take()
        if not own and not others:
            return
        gateway = turn.client.source if turn.client is not None else None
        missed = self._hub.post(others, own, gateway, turn.stamp())
        if missed:
            raise unreachable(missed)

    @staticmethod
    async def _in_turn(turn: Turn, handler: Coroutine[Any, Any, None], time_limit: float) -> None:
        token = current_turn.set(turn)
        try:
            async with asyncio.timeout(time_limit or None) as limit:
                await handler
        except TimeoutError:
            if not limit.expired():
                raise
            turn.dropped = f"the handler ran past its time limit of {time_limit:g} s"
            raise HandlerTimeout(turn.dropped) from None
        except (asyncio.CancelledError, SystemExit) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # it is this task that is to end
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error
        finally:
            current_turn.reset(token)

    def _log_failure(self, error: BaseException, doing: str, client: Client | None = None) -> None:
        self.counters["handler.errors"] += 1
        if client is not None:
            note = f"{type(error).__name__}, event {client.event_id}"
            self._hub.note("handler.errors", client=client.id, uid=client.uid, note=note, home=client.source)
        name = type(error).__name__
        _log.error("%s: %s: %s", doing, name, error, exc_info=_from_the_handler_on(error), extra=_ids(client))

    def _new_leader(self) -> None:
        self._leader = self._spawn(self._lead())
        self._leader.add_done_callback(self._led)

    def _led(self, task: asyncio.Task[None]) -> None:
        if task is self._leader and not self._closed:  # a handler cancelled the task that it ran in, or this is a bug
            error = None if task.cancelled() else task.exception()
            _log.error("the task that takes events ended; another takes over", exc_info=error)
            self._new_leader()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._ready:
            self._go_on()


def _ids(client: Client | None) -> dict[str, str]:
    """Name the client whose event is handled, and the event, for logs."""
    return {"client": client.id, "event": client.event_id} if client is not None else {}


def _event(turn: Turn) -> str:
    """Name an event, for logs."""
    return f"handling {_EVENTS[turn.opcode]} of {turn.client!r}"


def _from_the_handler_on(error: BaseException) -> BaseException:
    """Return the error without the beginning of its traceback that says only how the handler was called."""
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code.co_filename.startswith(_OURS):
        part = part.tb_next
    return error.with_traceback(part) if part is not None else error


async def _fail(error: BaseException) -> None:
    raise error
