"""Which worker gets a client."""

from __future__ import annotations

import sys
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, cast

import pytest
from gatecrew.common.errors import ConfigError
from gatecrew.gateway.client import Client, Connection
from gatecrew.gateway.dispatch import Port
from gatecrew.gateway.placement import least_loaded, rendezvous, router
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = [Client(f"client-{number}", cast("Connection", None), []) for number in range(2000)]
names = st.lists(st.text("abc123-", min_size=1, max_size=8), min_size=1, max_size=8, unique=True)


def worker(name: str, key: str = "") -> Port:
    return Port(name, key or f"key of {name}", 1000, lambda message: None)


@given(names, st.randoms(use_true_random=False))
def test_when_a_worker_leaves_only_its_own_clients_move(found: list[str], random: Random) -> None:
    workers = [worker(name) for name in found]
    gone = random.choice(workers)
    others = [one for one in workers if one is not gone]
    for client in CLIENTS[:50] if others else ():
        before = rendezvous(client, workers)
        after = rendezvous(client, others)
        assert after is not gone
        assert before in (after, gone)


@given(names, st.randoms(use_true_random=False))
def test_the_order_of_the_workers_does_not_matter(found: list[str], random: Random) -> None:
    workers = [worker(name) for name in found]
    shuffled = random.sample(workers, len(workers))
    for client in CLIENTS[:20]:
        assert rendezvous(client, workers) is rendezvous(client, shuffled)


def test_every_worker_gets_its_share() -> None:
    workers = [worker(f"worker-{number}") for number in range(4)]
    shares = Counter(rendezvous(client, workers).name for client in CLIENTS)

    assert len(shares) == 4
    assert min(shares.values()) > 400


def test_the_successor_of_a_worker_gets_its_clients() -> None:
    others = [worker("worker-1"), worker("worker-2")]
    before = [rendezvous(client, [*others, worker("worker-3", "old")]).name for client in CLIENTS]
    after = [rendezvous(client, [*others, worker("worker-3", "new")]).name for client in CLIENTS]

    assert before == after


def test_workers_of_the_same_name_share_its_clients() -> None:
    alone = [worker("worker-1", "here"), worker("worker-2")]
    doubled = [*alone, worker("worker-1", "there")]
    shares = Counter(rendezvous(client, doubled).key for client in CLIENTS)

    assert shares["here"] > 400
    assert shares["there"] > 400
    for client in CLIENTS:
        assert rendezvous(client, doubled).name == rendezvous(client, alone).name


def test_least_loaded_counts_what_is_there_and_what_waits() -> None:
    busy, behind, idle = worker("a"), worker("b"), worker("c")
    busy.outstanding = {1: CLIENTS[0], 2: CLIENTS[0]}
    behind.waiting.extend(CLIENTS[:3])
    idle.outstanding = {1: CLIENTS[0]}

    assert least_loaded(CLIENTS[0], [busy, behind, idle]) is idle


def test_the_routers_that_come_along() -> None:
    workers = [worker("a"), worker("b"), worker("c")]

    assert router("sticky", Random(0)) == (rendezvous, True)
    assert router("least_loaded", Random(0)) == (least_loaded, False)
    route, sticky = router("random", Random(0))
    assert not sticky
    assert {route(CLIENTS[0], workers) for _ in range(50)} == set(workers)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user, with routers."""
    lines = [
        "def first(client, workers): return workers[0]",
        "async def later(client, workers): return workers[0]",
        "class Mine:",
        "    route = staticmethod(first)",
        "number = 5",
    ]
    (tmp_path / "my_router.py").write_text("\n".join(lines))
    (tmp_path / "my_broken_router.py").write_text("def first(:")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_router", "my_broken_router"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_router"


@pytest.mark.parametrize("attribute", ["first", "Mine.route"])
def test_a_router_of_ones_own(module: str, attribute: str) -> None:
    workers = [worker("a"), worker("b")]
    route, sticky = router(f"{module}:{attribute}", Random(0))

    assert route(CLIENTS[0], workers) is workers[0]
    assert not sticky


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("loudest", r"'loudest' is not one of sticky, random, least_loaded or module:function"),
        ("no_such_module:route", r"cannot import no_such_module:route: ModuleNotFoundError: No module named"),
        ("my_router:nothing", r"cannot import my_router:nothing: AttributeError: .*no attribute 'nothing'"),
        ("my_broken_router:first", r"cannot import my_broken_router:first: SyntaxError: .*my_broken_router.py, line 1"),
        ("my_router:number", r"my_router:number is not a plain function"),
        ("my_router:later", r"my_router:later is not a plain function"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_router_that_cannot_be_is_named(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[gateway\] router: .*" + problem):
        router(name, Random(0))
