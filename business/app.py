"""The application: handlers that business developers write, gathered, and all that they can command and ask."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from ..common.errors import AppError
from .client import Api, Client, Request
from .turn import Turn, current_turn

if TYPE_CHECKING:
    from ..common.messages import Ask, Message
    from .commands import Data
    from .handshake import Decision
    from .queries import Answers

T = TypeVar("T")
P = ParamSpec("P")
Function = Callable[..., Any]
F = TypeVar("F", bound=Function)
Plain = TypeVar("Plain", bound="Callable[[], object]")
OnHandshake = TypeVar("OnHandshake", bound="Callable[[Request], Decision | Awaitable[Decision]]")
OnConnect = TypeVar("OnConnect", bound="Callable[[Client, Request], object]")
OnMessage = TypeVar("OnMessage", bound="Callable[[Client, Any], object]")  # whoever expects only text may say so
OnClose = TypeVar("OnClose", bound="Callable[[Client, int, str], object]")
OnError = TypeVar("OnError", bound="Callable[[Client | None, Any], object]")

#: Kinds of handlers and what they are called with.
KINDS: Final = {
    "start": (),
    "handshake": ("request",),
    "connect": ("client", "request"),
    "message": ("client", "data"),
    "close": ("client", "code", "reason"),
    "error": ("client", "error"),
    "stop": (),
}


class Runtime(Protocol):
    """What an app needs of the worker that runs it."""

    def post(self, gateway: str | None, message: Message) -> None:
        """Send a command that belongs to no turn."""

    def flush(self, turn: Turn) -> None:
        """Let go what a turn has recorded so far."""

    async def ask(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        """Ask gateways and put their answers together."""

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the thread pool, in the present context."""

    def wait(self, question: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from another thread, and wait for it."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A function that is called again and again."""

    name: str  #: the same on all workers
    seconds: float
    once: bool  #: on one worker of the whole cluster only
    function: Function


class App(Api):
    """Handlers, and what they can command and ask.

    Args:
        handlers: an object whose methods ``on_start``, ``on_handshake``, ``on_connect``, ``on_message``, ``on_close``,
            ``on_error`` and ``on_stop``, as far as it has them, become handlers: for those who like classes better than decorators.

    Handlers may be ``async def``, which run on the loop of the worker, or ``def``, which run in a thread. Several of one kind
    run one after the other, in the order in which they were given, and what they command leaves together.

    Raises:
        AppError: if a handler cannot be called as its kind is.
    """

    def __init__(self, handlers: object | None = None) -> None:
        self._functions: dict[str, list[Function]] = {kind: [] for kind in KINDS}
        self._timers: list[Timer] = []
        self._included: list[App] = []
        self._runtime: Runtime | None = None
        if handlers is not None:
            self._add_methods(handlers)

    # Handlers

    def on_start(self, function: Plain) -> Plain:
        """Let ``function()`` be called on each worker before it takes events. If it fails, the worker does not start."""
        return self._add("start", function)

    def on_handshake(self, function: OnHandshake) -> OnHandshake:
        """Let ``function(request)`` decide whether a client may come, before its connection is open.

        It returns ``Accept(...)`` or ``Refuse(...)``, or None to leave that to the next handler of this kind. If none decides, the
        client may come. If one fails, it may not.
        """
        return self._add("handshake", function)

    def on_connect(self, function: OnConnect) -> OnConnect:
        """Let ``function(client, request)`` be called when a client has connected."""
        return self._add("connect", function)

    def on_message(self, function: OnMessage) -> OnMessage:
        """Let ``function(client, data)`` be called for each message: a str if it came as text, bytes if as binary."""
        return self._add("message", function)

    def on_close(self, function: OnClose) -> OnClose:
        """Let ``function(client, code, reason)`` be called when a client is gone.

        The code is that of the close frame (RFC 6455, section 7.4): 1006 if there was none. The client has left its groups and
        its uid has one client less; ``client.uid`` and ``client.session`` are still there to read.
        """
        return self._add("close", function)

    def on_error(self, function: OnError) -> OnError:
        """Let ``function(client, error)`` be called when a handler failed. ``client`` is None if it was a timer's.

        What the failed handler commanded is not sent; what this one commands is.
        """
        return self._add("error", function)

    def on_stop(self, function: Plain) -> Plain:
        """Let ``function()`` be called on each worker when it has handled its last event."""
        return self._add("stop", function)

    def every(self, seconds: float, *, once: bool = False) -> Callable[[Plain], Plain]:
        """Let ``function()`` be called every so many seconds, the first time after that time.

        A call that takes longer delays the next one; there are never two at once on one worker.

        Args:
            seconds: more than 0.
            once: call it on one worker of the whole cluster, not on each. When that one is gone another takes over.
        """
        try:
            some = seconds > 0
        except TypeError:  # written without parentheses, it gets the function
            some = False
        if not some:
            raise AppError(f"every({seconds!r}): expected more than 0 seconds, as in @app.every(60)")

        def add(function: Plain) -> Plain:
            _check(f"every({seconds:g})", (), function)
            name = f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"
            self._timers.append(Timer(name, seconds, once, function))
            return function

        return add

    def include(self, other: App) -> None:
        """Take in the handlers and timers of another app: they run after the own ones. Both may be used to command and ask."""
        if self in other.family():
            raise AppError("an app cannot include itself")
        self._included.append(other)

    def _add_methods(self, handlers: object) -> None:
        if isinstance(handlers, type):
            raise AppError(f"App({handlers.__name__}): expected an object, as in App({handlers.__name__}())")
        kinds = {f"on_{kind}": kind for kind in KINDS}
        methods = [name for name in dir(handlers) if name.startswith("on_")]
        for name in methods:
            if name not in kinds:
                raise AppError(f"App({handlers!r}): {name} is none of {', '.join(kinds)}")
            self._add(kinds[name], getattr(handlers, name))
        if not methods:
            raise AppError(f"App({handlers!r}): it has none of the methods {', '.join(kinds)}")

    def _add(self, kind: str, function: F) -> F:
        _check(f"on_{kind}", KINDS[kind], function)
        self._functions[kind].append(function)
        return function

    # What the worker needs

    def family(self) -> Iterator[App]:
        """Yield this app and all that it includes."""
        yield self
        for app in self._included:
            yield from app.family()

    def functions(self, kind: str) -> list[Function]:
        """Return the handlers of a kind, the included ones last."""
        return [*self._functions[kind], *(function for app in self._included for function in app.functions(kind))]

    def handler(self, kind: str) -> Callable[..., Coroutine[Any, Any, None]] | None:
        """Return all handlers of a kind as one coroutine function, or None if there are none."""
        functions = [self._as_async(function) for function in self.functions(kind)]
        if len(functions) < 2:
            return functions[0] if functions else None

        async def in_turn(*args: object) -> None:
            for function in functions:
                await function(*args)

        return in_turn

    async def decide(self, request: Request) -> object:
        """Ask the handshake handlers, until one decides."""
        for function in self.functions("handshake"):
            decision = await self._as_async(function)(request)
            if decision is not None:
                return decision
        return None

    def timers(self) -> list[Timer]:
        """Return all timers, their functions as coroutine functions."""
        own = [replace(timer, function=self._as_async(timer.function)) for timer in self._timers]
        return [*own, *(timer for app in self._included for timer in app.timers())]

    def run_by(self, runtime: Runtime | None) -> None:
        """Take note of the worker that runs this app and those that it includes."""
        self._runtime = runtime
        for app in self._included:
            app.run_by(runtime)

    def _as_async(self, function: Function) -> Callable[..., Coroutine[Any, Any, Any]]:
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return function

        async def call(*args: object) -> object:
            result = await self._running.in_thread(function, *args)
            # an async function behind a decorator that is not
            return await result if inspect.isawaitable(result) else result

        return call

    # The current client

    @property
    def current_client(self) -> Client:
        """The client whose event is handled.

        Raises:
            LookupError: if no event of a client is handled.
        """
        turn = current_turn.get()
        if turn is None or turn.client is None:
            raise LookupError("no client's event is handled here, so there is no current client")
        return turn.client

    def send_to_current_client(self, data: Data) -> None:
        """Send a message to the client whose event is handled."""
        self.current_client.send(data)

    def close_current_client(self, last: Data | None = None, code: int = 1000, reason: str = "") -> None:
        """Close the client whose event is handled, as :meth:`close_client` does."""
        self.current_client.close(last, code, reason)

    def destroy_current_client(self) -> None:
        """Cut off the client whose event is handled."""
        self.current_client.destroy()

    # Threads

    def wait(self, question: Coroutine[Any, Any, T]) -> T:
        """Ask from a ``def`` handler: ``count = app.wait(app.group("lobby").count())``."""
        return self._running.wait(question)

    # How commands and questions leave

    @property
    def _running(self) -> Runtime:
        if self._runtime is None:
            raise AppError("no worker runs this app; outside of a worker use Cluster")
        return self._runtime

    def _record(self, gateway: str | None, message: Message) -> None:
        turn = current_turn.get()
        if turn is None or turn.over:
            self._running.post(gateway, message)
        else:
            turn.record(gateway, message)

    def _changes(self, client_id: str, change: Callable[[Client], None]) -> bool:
        turn = current_turn.get()
        if turn is None or turn.over or turn.dropped or turn.client is None or turn.client.id != client_id:
            return False
        turn.save()
        change(turn.client)
        return True

    async def _query(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        turn = current_turn.get()
        if turn is not None and not turn.over:
            self._running.flush(turn)
        return await self._running.ask(gateway, ask, argument, merge)


def _check(kind: str, parameters: tuple[str, ...], function: object) -> None:
    if not callable(function):
        raise AppError(f"{kind}: {function!r} is not a function")
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        code = getattr(inspect.unwrap(function), "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        name = getattr(function, "__name__", repr(function))
        raise AppError(
            f"{kind}: {name}{where} is called with ({', '.join(parameters)}), which it does not take"
        ) from None
    except ValueError:  # built-in functions do not tell what they take
        return
