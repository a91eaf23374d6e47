"""The cluster from outside: async programs, programs with threads, the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from gatecrew import BlockingCluster, ClientIdError, Cluster, PartialAnswer, Unreachable

if TYPE_CHECKING:
    from pathlib import Path

    from .crew import Crew, Guest


async def test_what_was_commanded_is_there_when_the_block_ends(crew: Crew, ann: Guest, bob: Guest) -> None:
    async with Cluster(crew.config()) as cluster:
        for guest in (ann, bob):
            cluster.join_group(guest.id, "g1")
            cluster.bind_uid(guest.id, "u1")
        cluster.send_to_all("all")
        cluster.send_to_group("g1", b"group", exclude=ann.id)
        cluster.send_to_uid("u1", "uid")
        cluster.client(ann.id).send("client")

    assert ann.got() == ["all", "uid", "client"]
    assert bob.got() == ["all", b"group", "uid"]


async def test_a_flush_returns_when_it_is_there(crew: Crew, ann: Guest) -> None:
    async with Cluster(crew.config()) as cluster:
        cluster.send_to_all("all")
        await cluster.flush()

        assert ann.got() == ["all"]


async def test_questions_and_handles_are_those_of_handlers(crew: Crew, ann: Guest, bob: Guest, gone: str) -> None:
    async with Cluster(crew.config()) as cluster:
        cluster.group("g1").join(ann.id)
        cluster.client(bob.id).join("g1")
        cluster.client(bob.id).bind("u1")
        cluster.update_session(ann.id, {"a": 1})

        assert await cluster.group("g1").count() == await cluster.get_all_client_id_count() == 2
        assert await cluster.group("g1").uids() == ["u1"]
        assert await cluster.uid("u1").clients() == [bob.id]
        assert await cluster.get_session(ann.id) == {"a": 1}
        assert await cluster.client(gone).is_online() is False
        with pytest.raises(ClientIdError):
            cluster.send_to_client("nobody", "x")
    assert ann.call("about")["session"] == {"a": 1}


async def test_a_client_is_closed_from_outside(crew: Crew, ann: Guest, bob: Guest) -> None:
    async with Cluster(crew.config()) as cluster:
        cluster.close_client(ann.id, "last", 4000, "from outside")
        cluster.destroy_client(bob.id)

    assert ann.next() == "last"
    assert ann.closed() == (4000, "from outside")
    assert bob.closed() == (1006, "")


async def test_it_is_connected_within_the_block_only(crew: Crew) -> None:
    cluster = Cluster(crew.config())
    for _ in range(2):
        with pytest.raises(Exception, match="not connected: use it in an async with block"):
            cluster.send_to_all("x")
        async with cluster:
            assert await cluster.get_all_client_id_count() == 0


async def test_a_gateway_that_does_not_answer_is_named(crew: Crew, ann: Guest, bob: Guest) -> None:
    async with Cluster(crew.config(worker_query_timeout="0.3")) as cluster:
        assert await cluster.get_all_client_id_count() == 2
        crew.processes["gateway-2"].signal(signal.SIGSTOP)
        try:
            with pytest.raises(PartialAnswer) as caught:
                await cluster.get_all_client_id_list()
            with pytest.raises(PartialAnswer, match="no answer from gateway-2 before the deadline"):
                await cluster.flush()
            assert await cluster.is_online(ann.id) is True
        finally:
            crew.processes["gateway-2"].signal(signal.SIGCONT)

    assert caught.value.answer == [ann.id]
    assert caught.value.missing == ["gateway-2"]


async def test_an_error_in_the_block_is_the_one_that_is_told(crew: Crew, bob: Guest) -> None:
    async def fail() -> None:
        async with Cluster(crew.config()) as cluster:
            cluster.send_to_all("before")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert bob.got() == ["before"]


def test_blocking_calls_return_when_it_is_done(crew: Crew, ann: Guest, bob: Guest, gone: str) -> None:
    with BlockingCluster(crew.config()) as cluster:
        for guest in (ann, bob):
            cluster.join_group(guest.id, "g1")
            cluster.bind_uid(guest.id, "u1")
        cluster.send_to_group("g1", "group")
        cluster.send_to_client([ann.id, bob.id], b"clients")
        cluster.set_session(ann.id, {"a": 1})

        assert (ann.got(), bob.got()) == (["group", b"clients"], ["group", b"clients"])
        everybody = sorted([ann.id, bob.id])
        assert sorted(cluster.get_all_client_id_list()) == sorted(cluster.get_client_id_by_uid("u1")) == everybody
        assert cluster.get_all_client_id_count() == cluster.get_client_id_count_by_group("g1") == 2
        assert sorted(cluster.get_client_id_list_by_group("g1")) == everybody
        assert sorted(cluster.get_all_group_client_id_list()["g1"]) == everybody
        assert cluster.get_all_group_client_id_count() == {"g1": 2}
        assert cluster.get_all_group_id_list() == ["g1"]
        assert cluster.get_all_uid_list() == cluster.get_uid_list_by_group("g1") == ["u1"]
        assert cluster.get_all_uid_count() == cluster.get_uid_count_by_group("g1") == 1
        assert cluster.get_all_group_uid_list() == {"g1": ["u1"]}
        assert cluster.get_all_group_uid_count() == {"g1": 1}
        assert cluster.get_uid_by_client_id(ann.id) == "u1"
        assert cluster.get_session(ann.id) == {"a": 1}
        assert cluster.get_all_client_sessions() == cluster.get_client_sessions_by_group("g1")
        assert [cluster.is_online(one) for one in (ann.id, gone)] == [True, False]
        assert [cluster.is_uid_online(uid) for uid in ("u1", "u2")] == [True, False]
        with pytest.raises(ClientIdError):
            cluster.send_to_client("nobody", "x")


def test_threads_may_share_a_blocking_one(crew: Crew, ann: Guest) -> None:
    cluster = BlockingCluster(crew.config())
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda number: cluster.send_to_client(ann.id, str(number)), range(50)):
            pass

    assert sorted(map(int, ann.got())) == list(range(50))
    cluster.close()
    cluster.send_to_client(ann.id, "connects again")
    assert ann.got() == ["connects again"]
    cluster.close()


FORKED = """
import os, sys
from gatecrew import BlockingCluster
cluster = BlockingCluster()
cluster.send_to_all("before")
child = os.fork()
if not child:
    cluster.send_to_all("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
cluster.send_to_all("parent")
"""


def test_after_a_fork_both_go_on(crew: Crew, ann: Guest) -> None:
    """As under a web server that imports the application and then forks; the program ends without a close."""
    subprocess.run([sys.executable, "-W", "error", "-c", FORKED], env=crew.environment(), check=True, timeout=20)

    assert ann.got() == ["before", "child", "parent"]


def test_the_command_line_sends(crew: Crew, ann: Guest, bob: Guest) -> None:
    subprocess.run([sys.executable, "-m", "gatecrew", "send", "--all", "hello"], env=crew.environment(), check=True)

    assert (ann.got(), bob.got()) == (["hello"], ["hello"])


def test_without_a_cluster_it_is_unreachable(crew: Crew, run_dir: Path) -> None:
    config = crew.config(cluster_run_dir=str(run_dir), worker_query_timeout="0.1")

    with pytest.raises(Unreachable, match=r"no register answers at .*register-1.sock: is the cluster running\?"):
        BlockingCluster(config).send_to_all("x")
