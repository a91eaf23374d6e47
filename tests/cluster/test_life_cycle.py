"""What handlers see and when they run."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect as connect_async

from .crew import Failed

if TYPE_CHECKING:
    from .crew import Crew, Guest


def test_the_connect_handler_sees_how_a_client_introduced_itself(crew: Crew) -> None:
    guest = crew.connect(
        path="/caf%C3%A9/1?name=Ann&name=Anna&empty=&sign=%2B",
        subprotocols=["chat.v1", "chat.v2", "other"],
        additional_headers=[("X-Tag", "one"), ("X-Tag", "two")],
        user_agent_header="tests",
    )

    hello = guest.hello
    path, query, headers, remote, listener, subprotocol = hello["request"].values()
    assert path == hello["path"] == "/caf\N{LATIN SMALL LETTER E WITH ACUTE}/1"
    assert query == hello["query"] == {"name": "Anna", "empty": "", "sign": "+"}
    assert [value for name, value in headers if name == "X-Tag"] == ["one", "two"]
    assert hello["agent"] == "tests"
    host, port = guest.connection.local_address
    assert remote == hello["remote"] == f"{host}:{port}"
    assert listener == hello["listener"] == crew.processes["gateway-1"].url
    assert subprotocol == hello["subprotocol"] == guest.connection.subprotocol == "chat.v2"
    assert (hello["event_id"], hello["redelivered"]) == (f"{guest.id}:1", False)
    assert (hello["uid"], hello["session"]) == (None, {})


def test_later_handlers_know_the_introduction_too(crew: Crew, ann: Guest) -> None:
    about = ann.call("about")

    assert (about["path"], about["query"], about["subprotocol"]) == ("/", {}, None)
    assert about["remote"] == ann.hello["remote"]
    assert about["event_id"] == f"{ann.id}:2"


def test_the_start_handler_is_done_before_the_first_event(ann: Guest, bob: Guest) -> None:
    assert ann.hello["started"] is bob.hello["started"] is True


@pytest.mark.parametrize("data", [b"\x00\xff", b"", b"x" * 70_000])
def test_binary_comes_as_bytes(ann: Guest, data: bytes) -> None:
    ann.connection.send(data)

    assert ann.next() == data


def test_all_events_of_a_client_go_to_one_worker(ann: Guest) -> None:
    numbers = [ann.send("about") for _ in range(100)]

    abouts = [ann.result(number) for number in numbers]
    assert {about["pid"] for about in abouts} == {ann.worker}
    assert [about["event_id"] for about in abouts] == [f"{ann.id}:{number}" for number in range(2, 102)]


def test_a_client_that_says_more_than_is_handled_loses_nothing(ann: Guest) -> None:
    """Past ``client_pending`` its socket is not read for a while."""
    held = ann.send("hold", 0.2)
    messages = [str(number).encode() for number in range(2000)]
    for message in messages:
        ann.connection.send(message)

    ann.result(held)
    assert [ann.next() for _ in range(2001)][1:] == messages


def test_a_slow_handler_delays_its_own_client_alone(crew: Crew, ann: Guest) -> None:
    other = crew.connect("gateway-2", "worker-1")
    waits = ann.send("wait")
    numbers = [waits, *(ann.send("about") for _ in range(5))]

    other.call("release")

    for number in numbers:
        ann.result(number)
        assert not ann.results, "each answer came before those to what was asked later"


def test_what_a_failed_handler_commanded_is_dropped_and_the_error_handler_answers(
    crew: Crew, ann: Guest, bob: Guest
) -> None:
    ann.send("change_all_and_fail", flush=False, raises=True)

    assert ann.got() == ["sorry: ValueError: changed my mind"]
    assert bob.got() == []
    assert bob.call("get_all_uid_list") == bob.call("get_all_group_id_list") == []
    about = ann.call("about")
    assert (about["uid"], about["session"]) == (None, {})
    log = crew.processes["worker-1"].log
    assert f"handling a message of <client {ann.id}>: ValueError: changed my mind" in log
    assert 'raise ValueError("changed my mind")' in log


def test_handlers_of_one_kind_run_one_after_the_other_until_one_raises(crew: Crew, ann: Guest) -> None:
    ann.connection.send(b"to both")
    assert (ann.next(), ann.next()) == (b"to both", b"from the second")

    ann.send("nothing of that name", raises=True)
    ann.next()

    log = crew.processes["worker-1"].log
    assert f"the second handler has {ann.id}:2" in log
    assert f"the second handler has {ann.id}:3" not in log


def test_a_handler_that_takes_too_long_is_given_up(crew: Crew, ann: Guest, bob: Guest) -> None:
    ann.send("hang")
    ann.send("client.send", "next")

    assert ann.next() == "sorry: HandlerTimeout: the handler ran past its time limit of 1.5 s"
    assert ann.next() == "next"
    assert bob.got() == []


def test_a_def_handler_runs_in_a_thread_and_may_wait(crew: Crew) -> None:
    guest = crew.connect(path="/thread")

    name, count = str(guest.next()).split()

    assert name.startswith("handler")
    assert count == "1", "a question sees what its handler commanded before"


def test_waiting_is_for_threads(ann: Guest) -> None:
    with pytest.raises(Failed, match=r"app\.wait is for def handlers"):
        ann.call("wait_here")


def test_timers_run_on_each_worker_or_on_one(crew: Crew, ann: Guest) -> None:
    ann.do("client.join", "ticks")
    workers = {str(crew.pid(name)) for name in ("worker-1", "worker-2")}
    seen: set[str | bytes] = set()
    while seen != workers:
        seen.add(ann.next())
    ann.do("client.leave", "ticks")
    ann.got()

    ann.do("client.join", "ticks of one")

    ticks = [ann.next() for _ in range(5)]
    assert len(set(ticks)) == 1
    assert set(ticks) < workers


async def test_many_clients_are_each_answered_in_order(crew: Crew) -> None:
    messages = [f"message {number}".encode() for number in range(20)]

    async def talk(url: str) -> list[str | bytes]:
        async with connect_async(url, compression=None, proxy=None) as client:
            assert "hello" in json.loads(await client.recv())
            for message in messages:
                await client.send(message)
            return [await client.recv() for _ in messages]

    urls = [crew.processes[name].url for name in ("gateway-1", "gateway-2")]
    answers = await asyncio.gather(*(talk(url) for url in urls for _ in range(100)))

    assert answers == [messages] * 200
