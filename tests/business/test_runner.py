"""Running handlers: order, concurrency, tasks, time limits, failures. Through a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from gatecrew import App, Client, Cluster, HandlerTimeout, PartialAnswer, TurnDropped, Unreachable
from gatecrew.business import runner

from .waiting import until

if TYPE_CHECKING:
    from .conftest import House

Errors = Callable[[], list[str]]


class TestTasks:
    async def test_handlers_that_do_not_suspend_share_one_task(self, house: House) -> None:
        app = App()
        tasks: list[object] = []

        @app.on_message
        async def see(client: Client, data: str) -> None:
            tasks.append(asyncio.current_task())
            client.send(data)

        await house.work(app)
        async with house.client() as client:
            for number in range(3):
                await client.send(str(number))
                await client.recv()

        assert tasks[0] is not None
        assert len(set(tasks)) == 1

    async def test_a_handler_stays_in_one_task_when_it_suspends(self, house: House) -> None:
        """Timeouts and task groups, and libraries built on them, compare the current task at their two ends."""
        app = App()
        tasks: list[object] = []

        @app.on_message
        async def see(client: Client, data: str) -> None:
            tasks.append(asyncio.current_task())
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0.001))
            tasks.append(asyncio.current_task())
            client.send(data)

        await house.work(app)
        async with house.client() as client:
            for number in range(2):
                await client.send(str(number))
                await client.recv()

        assert tasks[0] is tasks[1]
        assert tasks[2] is tasks[3]
        assert tasks[0] is not tasks[2]

    async def test_what_a_handler_sets_in_its_context_is_its_own(self, house: House) -> None:
        app = App()
        mark = contextvars.ContextVar("mark", default="none")

        @app.on_message
        async def see(client: Client, data: str) -> None:
            before = mark.get()
            token = mark.set(data)
            if data == "suspend":
                await asyncio.sleep(0)
            client.send(f"{before} {mark.get()}")
            if data == "reset":
                mark.reset(token)

        await house.work(app)
        async with house.client() as client:
            for data in ("a", "suspend", "b", "reset", "c"):
                await client.send(data)
                assert await client.recv() == f"none {data}"

    async def test_a_timeout_inside_a_handler_is_the_handlers_own(self, house: House, errors: Errors) -> None:
        app = App()

        @app.on_message
        async def wait(client: Client, data: str) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                client.send("timed out")

        await house.work(app)
        async with house.client() as client:
            await client.send("go")
            assert await client.recv() == "timed out"

        assert errors() == []

    async def test_tasks_of_a_handler_record_into_its_turn_and_later_on_their_own(self, house: House) -> None:
        app = App()
        go = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def later(client: Client) -> None:
            await go.wait()
            client.send("later")

        @app.on_message
        async def start(client: Client, data: str) -> None:
            tasks.add(asyncio.create_task(later(client)))
            await asyncio.gather(*(_send(client, n) for n in range(3)))

        async def _send(client: Client, number: int) -> None:
            client.send(str(number))

        await house.work(app)
        async with house.client() as client:
            await client.send("go")
            assert [await client.recv() for _ in range(3)] == ["0", "1", "2"]
            go.set()
            assert await client.recv() == "later"

    async def test_what_tasks_of_a_failed_handler_command_later_is_sent(self, house: House) -> None:
        """It was recorded into the turn that had failed, and nobody let that go any more."""
        app = App()
        go = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def later(client: Client) -> None:
            await go.wait()
            client.send("later")

        @app.on_message
        async def start(client: Client, data: str) -> None:
            if data == "fail":
                tasks.add(asyncio.create_task(later(client)))
                raise ValueError(data)
            client.send(data)

        await house.work(app)
        async with house.client() as client:
            await client.send("fail")
            await client.send("next")
            assert await client.recv() == "next"
            go.set()
            assert await client.recv() == "later"

    async def test_a_handler_that_cancels_its_own_task_stops_nobody_else(self, house: House, errors: Errors) -> None:
        """Its task was the one that takes the events of all clients, and nobody took its place."""
        app = App()

        @app.on_message
        async def cancel(client: Client, data: str) -> None:
            if data == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            client.send(data)

        await house.work(app)
        async with house.client() as one, house.client() as other:
            await one.send("cancel")
            assert await one.recv() == "cancel"
            await other.send("other")
            assert await other.recv() == "other"

        assert errors() == ["the task that takes events ended; another takes over"]


class TestOrder:
    async def test_events_of_one_client_are_handled_one_at_a_time_and_in_order(self, house: House) -> None:
        app = App()
        inside = 0

        @app.on_message
        async def slowly(client: Client, data: str) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1
            if int(data) % 3:
                await asyncio.sleep(0.001 * (int(data) % 2))
            inside -= 1
            client.send(data)

        await house.work(app)
        async with house.client() as client:
            for number in range(50):
                await client.send(str(number))

            assert [await client.recv() for _ in range(50)] == list(map(str, range(50)))

    async def test_a_slow_client_holds_up_nobody_else(self, house: House) -> None:
        app = App()
        go = asyncio.Event()

        @app.on_message
        async def wait(client: Client, data: str) -> None:
            if data == "wait":
                await go.wait()
            client.send(data)

        await house.work(app)
        async with house.client() as slow, house.client() as quick:
            await slow.send("wait")
            await slow.send("after")
            await quick.send("quick")
            assert await quick.recv() == "quick"
            go.set()
            assert [await slow.recv(), await slow.recv()] == ["wait", "after"]

    async def test_no_more_than_so_many_are_suspended_at_once(self, house: House) -> None:
        app = App()
        most = inside = 0
        go = asyncio.Event()

        @app.on_message
        async def wait(client: Client, data: str) -> None:
            nonlocal most, inside
            inside += 1
            most = max(most, inside)
            if inside == 2:
                asyncio.get_running_loop().call_later(0.02, go.set)
            await go.wait()
            inside -= 1
            client.send(data)

        await house.work(app, concurrency=2)
        async with house.client() as one, house.client() as two, house.client() as three:
            for client in (one, two, three):
                await client.send("go")
            for client in (one, two, three):
                assert await client.recv() == "go"

        assert most == 2

    async def test_a_worker_that_stops_finishes_what_it_has(self, house: House) -> None:
        app = App()
        began = asyncio.Event()

        @app.on_message
        async def slowly(client: Client, data: str) -> None:
            began.set()
            await asyncio.sleep(0.05)
            client.send(data)

        worker = await house.work(app)
        async with house.client() as client:
            for number in range(3):
                await client.send(str(number))
            await began.wait()
            await worker.stop()

            assert [await client.recv() for _ in range(3)] == ["0", "1", "2"]

    async def test_what_does_not_finish_in_time_is_handled_by_another_worker(self, house: House) -> None:
        stuck, other = App(), App()
        began = asyncio.Event()

        @stuck.on_message
        async def hang(client: Client, data: str) -> None:
            began.set()
            client.send("never")
            await asyncio.Event().wait()

        @other.on_message
        async def answer(client: Client, data: str) -> None:
            client.send(f"{data} {client.redelivered}")

        worker = await house.work(stuck, drain_timeout=0.05)
        async with house.client() as client:
            await client.send("hello")
            await began.wait()
            await worker.stop()
            await house.work(other, "worker-2")

            assert await client.recv() == "hello True"

    async def test_nothing_overtakes_what_is_held_for_a_gateway_that_did_not_keep_up(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As soon as any client's ack found room again, new events were handled before those that were held."""
        monkeypatch.setattr(runner, "HELD", 3600)  # it is looked at below
        app = App()
        began, go = asyncio.Event(), asyncio.Event()
        seen: list[str] = []

        @app.on_message
        async def note(client: Client, data: str) -> None:
            if data == "wait":
                began.set()
                await go.wait()
            seen.append(data)
            client.send(data)

        worker = await house.work(app)
        link = house.link(worker)
        async with house.client() as client, house.client() as waiter:
            await waiter.send("wait")
            await began.wait()
            await client.send("0")
            await client.recv()
            with house.full(worker):
                await client.send("1")
                await client.recv()
                assert link.full
                await client.send("2")
                await until(lambda: worker._runner._held)
            go.set()
            assert await waiter.recv() == "wait"  # so its ack has left, and found room
            await client.send("3")
            await until(lambda: worker._runner.queued == 2 or "3" in seen)
            worker._runner._look_at(link)

            assert [await client.recv(), await client.recv()] == ["2", "3"]

    async def test_a_worker_stops_at_once_when_the_gateway_of_all_that_is_left_is_lost(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody told it that nothing was left, and it waited until its time was over."""
        monkeypatch.setattr(runner, "HELD", 3600)
        app = App()

        @app.on_message
        async def say(client: Client, data: str) -> None:
            client.send(data)

        worker = await house.work(app, drain_timeout=10)
        async with house.client() as client:
            await client.send("0")
            await client.recv()
            with house.full(worker):
                await client.send("1")
                await client.recv()
                await client.send("2")
                await until(lambda: worker._runner._held)
                stopping = asyncio.create_task(worker.stop())
                await until(lambda: worker._runner._idle)
                await house.cut(worker)

            await asyncio.wait_for(stopping, 5)


class TestFailures:
    async def test_nothing_that_a_failed_handler_commanded_is_sent(self, house: House, errors: Errors) -> None:
        app = App()

        @app.on_message
        async def fail(client: Client, data: str) -> None:
            client.send("no")
            client.bind("nobody")
            client.session["n"] = 1
            if data == "later":
                await asyncio.sleep(0)
            if data != "report":
                raise ValueError(data)
            client.send(f"{client.uid} {client.session}")

        await house.work(app)
        async with house.client() as client:
            for data in ("now", "later", "report"):
                await client.send(data)
            assert await client.recv() == "no"
            assert await client.recv() == "nobody {'n': 1}"
            async with house.client() as second:
                await second.send("now")
                await second.send("report")
                await second.recv()

        assert [error.split(": ", 1)[1] for error in errors()] == [
            "ValueError: now",
            "ValueError: later",
            "ValueError: now",
        ]

    async def test_the_error_handler_answers_in_its_place(self, house: House, errors: Errors) -> None:
        app = App()

        @app.on_message
        async def fail(client: Client, data: str) -> None:
            client.send("no")
            raise ValueError(data)

        @app.on_error
        async def tell(client: Client | None, error: Exception) -> None:
            await asyncio.sleep(0)
            assert client is not None
            client.send(f"{type(error).__name__} {error}")

        await house.work(app)
        async with house.client() as client:
            await client.send("one")
            await client.send("two")

            assert [await client.recv(), await client.recv()] == ["ValueError one", "ValueError two"]
        assert len(errors()) == 2

    async def test_an_error_handler_that_fails_is_logged_and_the_client_goes_on(
        self, house: House, errors: Errors
    ) -> None:
        app = App()

        @app.on_message
        async def fail(client: Client, data: str) -> None:
            if data == "fail":
                raise ValueError(data)
            client.send(data)

        @app.on_error
        async def fail_too(client: Client | None, error: Exception) -> None:
            client.send("no")  # type: ignore[union-attr]
            raise KeyError("too")

        await house.work(app)
        async with house.client() as client:
            await client.send("fail")
            await client.send("ok")

            assert await client.recv() == "ok"
        assert len(errors()) == 2

    async def test_not_even_an_exit_takes_the_worker_down(self, house: House, errors: Errors) -> None:
        app = App()

        @app.on_message
        async def leave(client: Client, data: str) -> None:
            if data == "exit":
                raise SystemExit(3)
            if data == "cancel":
                raise asyncio.CancelledError
            client.send(data)

        await house.work(app)
        async with house.client() as client:
            for data in ("exit", "cancel", "ok"):
                await client.send(data)

            assert await client.recv() == "ok"
        assert len(errors()) == 2

    async def test_an_error_that_is_false_is_a_failure_too(self, house: House, errors: Errors) -> None:
        """An exception with a length of 0 was taken for none, and what its handler had commanded was sent."""

        class Empty(Exception):
            def __len__(self) -> int:
                return 0

        app = App()

        @app.on_message
        async def fail(client: Client, data: str) -> None:
            client.send(data)
            if data == "fail":
                raise Empty

        await house.work(app)
        async with house.client() as client:
            await client.send("fail")
            await client.send("ok")

            assert await client.recv() == "ok"
        assert len(errors()) == 1

    @pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
    async def test_an_error_handler_gives_its_slot_back_whatever_it_raises(
        self, house: House, errors: Errors, error: type[BaseException]
    ) -> None:
        """A cancellation or an exit in it ended the task before the client's next event and the slot were let go."""
        app = App()

        @app.on_message
        async def fail(client: Client, data: str) -> None:
            if data == "fail":
                raise ValueError(data)
            client.send(data)

        @app.on_error
        async def fail_too(client: Client | None, _: Exception) -> None:
            raise error

        await house.work(app, concurrency=1)
        async with house.client() as client:
            await client.send("fail")
            await client.send("ok")

            assert await client.recv() == "ok"
        assert len(errors()) == 2

    async def test_an_error_handler_gives_its_slot_back_when_the_gateway_is_lost_meanwhile(self, house: House) -> None:
        """It was cancelled like a handler, and with it what lets the slot go."""
        app = App()
        inside, go = asyncio.Event(), asyncio.Event()

        @app.on_message
        async def fail(client: Client, data: str) -> None:
            if data == "fail":
                raise ValueError(data)
            client.send(data)

        @app.on_error
        async def wait(client: Client | None, error: Exception) -> None:
            inside.set()
            await go.wait()

        worker = await house.work(app, concurrency=1)
        async with house.client() as client, house.client() as other:
            await client.send("fail")
            await inside.wait()
            await house.cut(worker)
            go.set()
            await other.send("other")

            assert await other.recv() == "other"

    async def test_mistakes_in_arguments_are_raised_and_the_lane_goes_on(self, house: House) -> None:
        """They were found where a whole batch is packed: the lane ended, and the event came again to do it again."""

        class Number:
            id = 5

        app = App()
        deep: list[object] = []
        for _ in range(1022):  # of lists, of which msgpack takes 1023; in a batch they are deeper
            deep = [deep]
        mistakes: dict[str, Callable[[Client], object]] = {
            "a reason in bytes": lambda client: client.close(reason=b"bye"),  # type: ignore[arg-type]
            "a code with a point": lambda client: client.close(code=3000.0),  # type: ignore[arg-type]
            "half a character": lambda client: app.send_to_all("no", exclude=["\ud800"]),
            "an id that is a number": lambda client: app.send_to_all("no", exclude=Number()),  # type: ignore[arg-type]
            "a deep session": lambda client: client.session.update(deep=deep),
        }

        @app.on_message
        async def go_wrong(client: Client, data: str) -> None:
            mistakes[data](client)
            client.send("taken")

        @app.on_error
        async def tell(client: Client | None, error: Exception) -> None:
            assert client is not None
            client.send(type(error).__name__)

        worker = await house.work(app)
        lane = house.link(worker).peer.lane
        async with house.client() as client:
            for mistake in mistakes:
                await client.send(mistake)
            told = [await client.recv() for _ in mistakes]

        assert told == ["TypeError", "TypeError", "ClientIdError", "TypeError", "ValueError"]
        assert house.link(worker).peer.lane is lane is not None

    async def test_a_session_that_cannot_be_kept_is_a_failure(self, house: House, errors: Errors) -> None:
        app = App()

        @app.on_message
        async def spoil(client: Client, data: str) -> None:
            if data == "spoil":
                client.session["x"] = object()
            client.send(f"{data} {client.session}")

        await house.work(app)
        async with house.client() as client:
            await client.send("spoil")
            await client.send("ok")

            assert await client.recv() == "ok {}"
        assert len(errors()) == 1


class TestWhatIsLogged:
    async def test_a_failure_is_told_with_its_event_and_from_the_handlers_own_code_on(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = App()

        @app.on_connect
        async def connect(client: Client, request: object) -> None:
            raise ValueError("async")

        @app.on_message
        def message(client: Client, data: str) -> None:
            raise ValueError("def")

        @app.on_error
        async def tell(client: Client | None, error: Exception) -> None:
            assert client is not None
            client.send(str(error))

        await house.work(app)
        async with house.client() as client:
            assert await client.recv() == "async"
            await client.send("go")
            assert await client.recv() == "def"

        records = [record for record in caplog.records if record.levelname == "ERROR"]
        assert [re.sub("<client .*>", "C", record.getMessage()) for record in records] == [
            "handling the connect of C: ValueError: async",
            "handling a message of C: ValueError: def",
        ]
        for record in records:
            assert record.exc_info is not None
            frames = [frame.name for frame in traceback.extract_tb(record.exc_info[2])]
            assert frames[0] in ("connect", "message")

    @pytest.mark.parametrize("when", ["at once", "later"])
    async def test_a_handler_that_lets_nothing_else_run_is_named(
        self, house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        monkeypatch.setattr("gatecrew.business.runner.BLOCKED", 0.05)
        app = App()

        @app.on_message
        async def block(client: Client, data: str) -> None:
            if when == "later":
                await asyncio.sleep(0)
            time.sleep(0.06)  # noqa: ASYNC251  # that is the mistake
            client.send(data)

        worker = await house.work(app)
        async with house.client() as client:
            await client.send("go")
            await client.recv()

        assert worker._runner.counters["handler.blocked"] == 1
        assert "handling a message of <client" in caplog.text
        assert "blocked this worker for 0.1 s" in caplog.text


class TestTimeLimit:
    async def test_a_handler_that_takes_too_long_is_cancelled_and_told(self, house: House, errors: Errors) -> None:
        app = App()
        ended = asyncio.Event()
        told: list[Exception] = []

        @app.on_message
        async def hang(client: Client, data: str) -> None:
            if data == "hang":
                client.send("no")
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
            client.send(data)

        @app.on_error
        async def tell(client: Client | None, error: Exception) -> None:
            told.append(error)

        await house.work(app, handler_timeout=0.05)
        async with house.client() as client:
            await client.send("hang")
            await client.send("next")
            assert await client.recv() == "next"

        assert ended.is_set()
        assert [type(error) for error in told] == [HandlerTimeout]
        assert len(errors()) == 1

    async def test_one_that_does_not_end_even_then_is_left_behind(
        self, house: House, errors: Errors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gatecrew.business.runner.GRACE", 0.05)
        app = App()
        go, refused = asyncio.Event(), asyncio.Event()

        @app.on_message
        async def stay(client: Client, data: str) -> None:
            if data == "stay":
                while not go.is_set():
                    try:
                        await go.wait()
                    except asyncio.CancelledError:
                        continue
                try:
                    client.send("no")
                except TurnDropped:
                    refused.set()
            client.send(data)

        worker = await house.work(app, handler_timeout=0.05)
        async with house.client() as client:
            await client.send("stay")
            await client.send("next")
            assert await client.recv() == "next"
            go.set()
            await refused.wait()

        assert worker._runner.counters["handler.abandoned"] == 1
        assert len(errors()) == 1

    async def test_one_that_is_left_behind_keeps_its_place_until_it_ends(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such handlers piled up: each was forgotten, and the next one started."""
        monkeypatch.setattr(runner, "GRACE", 0.01)
        app = App()
        go = asyncio.Event()
        handled: list[str] = []

        @app.on_message
        async def stay(client: Client, data: str) -> None:
            handled.append(data)
            while data == "stay" and not go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go.wait()

        worker = await house.work(app, handler_timeout=0.02, concurrency=1)
        async with house.client() as client:
            await client.send("stay")
            await until(lambda: worker._runner.counters["handler.abandoned"])
            await client.send("next")
            await until(lambda: worker._runner.queued)
            assert handled == ["stay"]
            go.set()
            await until(lambda: handled == ["stay", "next"])

    async def test_failures_that_are_told_keep_a_place_until_that_is_done(self, house: House) -> None:
        """A handler that had ended, and could not reach a gateway, left a task behind that told the error handlers."""
        app = App()
        go = asyncio.Event()
        told: list[Exception] = []

        @app.on_message
        async def everywhere(client: Client, data: str) -> None:
            app.send_to_all(data)

        @app.on_error
        async def tell(client: Client | None, error: Exception) -> None:
            told.append(error)
            await go.wait()

        worker = await house.work(app, concurrency=2)
        worker._hub.post = lambda *args, **kwargs: ["gateway-2"]  # type: ignore[method-assign]
        async with house.client() as client:
            for number in range(4):
                await client.send(str(number))
            await until(lambda: worker._runner.queued == 2)
            assert [type(error) for error in told] == [Unreachable] * 2
            go.set()
            assert [await client.recv() for _ in range(4)] == ["0", "1", "2", "3"]
        await until(lambda: len(told) == 4)

    async def test_an_event_is_answered_once_though_its_error_handler_takes_its_time(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error handler of a cancelled handler was taken for that: both ended the event, and its second ack the lane."""
        monkeypatch.setattr(runner, "GRACE", 0.01)
        app = App()
        told: list[Exception] = []

        @app.on_message
        async def hang(client: Client, data: str) -> None:
            if data == "hang":
                await asyncio.Event().wait()
            client.send(data)

        @app.on_error
        async def tell(client: Client | None, error: Exception) -> None:
            told.append(error)
            await asyncio.sleep(runner.GRACE)  # the handler's began before
            assert client is not None
            client.send("sorry")

        worker = await house.work(app, handler_timeout=0.3)
        lane = house.link(worker).peer.lane
        async with house.client() as client:
            await client.send("hang")
            assert await client.recv() == "sorry"
            await client.send("next")
            assert await client.recv() == "next"

        assert len(told) == 1
        assert worker._runner.suspended == 0
        assert house.link(worker).peer.lane is lane is not None

    async def test_a_handler_that_was_given_up_lets_nothing_go(self, house: House) -> None:
        """What it had commanded before its gateway was lost left when it asked something, and again from the next worker."""
        app = App()
        began, refused = asyncio.Event(), asyncio.Event()

        @app.on_message
        async def ask(client: Client, data: str) -> None:
            if data == "ask" and not client.redelivered:
                client.send("no")
                began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    with pytest.raises(TurnDropped):
                        await app.get_all_client_id_count()
                    refused.set()
            client.send(data)

        worker = await house.work(app)
        async with house.client() as client:
            await client.send("ask")
            await began.wait()
            await house.cut(worker)
            await client.send("next")

            assert [await client.recv(), await client.recv()] == ["ask", "next"]
        assert refused.is_set()

    async def test_a_thread_that_takes_too_long_cannot_be_stopped_but_sends_nothing(self, house: House) -> None:
        app = App()
        go, refused = threading.Event(), threading.Event()

        @app.on_message
        def stay(client: Client, data: str) -> None:
            if data == "stay":
                go.wait(5)
                try:
                    client.send("no")
                except TurnDropped:
                    refused.set()
                    raise
            client.send(data)

        await house.work(app, handler_timeout=0.05)
        async with house.client() as client:
            await client.send("stay")
            await client.send("next")
            assert await client.recv() == "next"
            go.set()
            assert await asyncio.to_thread(refused.wait, 5)

    async def test_while_all_threads_are_taken_others_wait_for_one_and_leave_nothing_behind(self, house: House) -> None:
        """What was given up before it got a thread stayed in the queue of the threads."""
        app = App()
        go = threading.Event()
        handled: list[str] = []

        @app.on_message
        def stay(client: Client, data: str) -> None:
            handled.append(data)
            if data == "stay":
                go.wait(5)
            client.send(data)

        worker = await house.work(app, handler_timeout=0.1, threads=1)
        async with house.client() as one, house.client() as two:
            await one.send("stay")
            await until(lambda: handled)
            await two.send("given up")
            await until(lambda: worker._runner.counters["handler.timeouts"] == 2)
            assert worker._threads._work_queue.qsize() == 0
            go.set()
            await until(lambda: not worker._free.locked())
            await two.send("next")
            assert await two.recv() == "next"

        assert handled == ["stay", "next"]

    async def test_a_thread_that_takes_too_long_does_not_change_how_its_client_is_seen(self, house: House) -> None:
        """The uid that it could not bind stayed with the client here, and no other one was learned ever after."""
        app = App()
        go, refused = threading.Event(), threading.Event()

        @app.on_message
        def bind(client: Client, data: str) -> None:
            if data == "hang":
                go.wait(5)
                try:
                    client.bind("no")
                except TurnDropped:
                    refused.set()
                    raise
            client.send(f"{client.id} {client.uid}")

        await house.work(app, handler_timeout=0.05)
        async with house.client() as client:
            await client.send("hang")
            await client.send("see")
            client_id = str(await client.recv()).split()[0]
            go.set()
            assert await asyncio.to_thread(refused.wait, 5)
            async with Cluster(house.config) as cluster:
                cluster.bind_uid(client_id, "ann")
            await client.send("see")

            assert await client.recv() == f"{client_id} ann"


class TestFlush:
    async def test_uid_and_session_stay_the_gateways_though_it_does_not_keep_up(self, house: House) -> None:
        """They were changed here and not there, as their commands were discarded, and nothing was learned ever after."""
        app = App()

        @app.on_message
        async def change(client: Client, data: str) -> None:
            if data == "change":
                client.bind("ann")
                client.session["n"] = 1
                with house.full(worker), contextlib.suppress(PartialAnswer, Unreachable):
                    await app.flush()
            client.send(f"{client.id} {client.uid} {client.session}")

        worker = await house.work(app)
        async with house.client() as client, Cluster(house.config) as cluster:
            await client.send("change")
            client_id = str(await client.recv()).split()[0]
            assert await cluster.get_uid_by_client_id(client_id) == "ann"
            assert await cluster.get_session(client_id) == {"n": 1}
            cluster.bind_uid(client_id, "bob")
            cluster.set_session(client_id, {"n": 2})
            await cluster.flush()
            await client.send("see")

            assert await client.recv() == f"{client_id} bob {{'n': 2}}"


async def test_only_so_many_closes_are_remembered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_CLOSES", 2)
    app = App()
    closed: list[str] = []

    @app.on_close
    async def close(client: Client, code: int, reason: str) -> None:
        closed.append(client.id)

    worker = await house.work(app)
    for number in range(3):
        async with house.client():
            pass
        await until(lambda: len(closed) > number)  # noqa: B023

    await until(lambda: list(worker._runner._closes) == closed[1:])


class TestThreads:
    async def test_a_def_handler_runs_in_a_thread_and_commands_and_asks_there(self, house: House) -> None:
        app = App()

        @app.on_message
        def count(client: Client, data: str) -> None:
            client.join("room")
            found = app.wait(app.group("room").count())
            client.send(f"{found} {threading.current_thread().name.split('_')[0]}")

        await house.work(app)
        async with house.client() as client:
            await client.send("go")

            assert await client.recv() == "1 handler"

    async def test_waiting_on_the_loop_itself_is_refused(self, house: House, errors: Errors) -> None:
        app = App()

        @app.on_message
        async def wrong(client: Client, data: str) -> None:
            app.wait(app.group("room").count())

        @app.on_error
        def tell(client: Client | None, error: Exception) -> None:
            client.send(str(error))  # type: ignore[union-attr]

        await house.work(app)
        async with house.client() as client:
            await client.send("go")
            assert "write await" in str(await client.recv())
        assert len(errors()) == 1
