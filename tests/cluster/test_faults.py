"""Processes that come, go, die and hang while clients are talking."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from .crew import PATIENCE, Crew, Failed, a_crew, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .crew import Guest

NAMES = ("register-1", "gateway-1", "gateway-2", "worker-1", "worker-2")
QUICK = {"cluster_dead_after": "1", "cluster_probe_interval": "0.2", "worker_query_timeout": "1"}


@pytest.fixture(scope="module")
def faulty_crew() -> Iterator[Crew]:
    with a_crew(*NAMES, **QUICK) as crew:
        yield crew


@pytest.fixture
def crew(faulty_crew: Crew) -> Iterator[Crew]:
    """A cluster whose processes a test may kill; the next one finds them all alive."""
    yield faulty_crew
    faulty_crew.leave()
    for name in faulty_crew.processes.keys() - set(NAMES):
        faulty_crew.kill(name)
    faulty_crew.start(*(name for name in NAMES if name not in faulty_crew.processes))
    faulty_crew.meet()


class Traffic:
    """Four clients that talk, one for each gateway and worker, and for each a listener at the other gateway."""

    def __init__(self, crew: Crew) -> None:
        self.talkers = [crew.connect(gateway, worker) for gateway in NAMES[1:3] for worker in NAMES[3:]]
        self.listeners = [crew.connect(gateway, "worker-2") for gateway in ("gateway-2", "gateway-1") for _ in range(2)]
        for number, listener in enumerate(self.listeners):
            listener.do("client.join", f"listens {number}")
        self._said = self._heard = 0

    def say(self, count: int) -> None:
        """Let each client say so many numbers, and hear the first of them."""
        for number in range(self._said, self._said + count):
            for client, guest in enumerate(self.talkers):
                guest.send("late_echo", str(number), f"listens {client}")
        self._said += count
        self._hear(1)

    def hear(self) -> None:
        """Let each client hear all that it said: once, and in order."""
        self._hear(self._said - self._heard)

    def _hear(self, count: int) -> None:
        numbers = [str(number) for number in range(self._heard, self._heard + count)]
        for guest in self.talkers:
            assert [guest.next() for _ in numbers] == numbers
        self._heard += count

    def end(self) -> None:
        """See that no client heard more, that each number was counted once, and each listener heard it once and in order."""
        for guest, listener in zip(self.talkers, self.listeners, strict=True):
            assert guest.got() == []
            assert guest.call("about")["session"] == {"said": self._said}
            guest.do("flush")
            assert listener.got() == [str(number) for number in range(self._said)]


def test_workers_are_killed_under_traffic_and_nothing_is_lost_or_doubled(crew: Crew) -> None:
    traffic = Traffic(crew)
    for name in ("worker-1", "worker-2", "worker-1"):
        traffic.say(30)

        crew.kill(name)

        traffic.hear()
        crew.start(name)
    traffic.say(5)
    traffic.hear()
    traffic.end()


def test_what_a_killed_worker_told_another_gateway_is_told_once(crew: Crew) -> None:
    ann, bob = crew.connect("gateway-1", "worker-1"), crew.connect("gateway-2", "worker-2")
    bob.do("client.join", "red")
    told = ann.send("tell_and_hold", "red", 20)
    assert bob.next() == "told"

    crew.kill("worker-1")

    assert ann.result(told) == crew.pid("worker-2")
    ann.do("send_to_group", "red", "after")
    assert bob.got() == ["after"]
    until(lambda: crew.stats("gateway-2").get("commands.repeated") == 1)


def test_what_a_killed_worker_had_is_handled_again_and_marked(crew: Crew) -> None:
    guest = crew.connect("gateway-1", "worker-1")
    held = guest.send("hold", 20)
    after = guest.send("about")
    event_id = guest.next()

    crew.kill("worker-1")

    survivor = crew.pid("worker-2")
    assert guest.result(held) == {"redelivered": True, "event_id": event_id, "pid": survivor}
    about = guest.result(after)
    assert about["pid"] == survivor
    assert about["path"] == "/"
    assert guest.call("about")["redelivered"] is False


def test_an_event_that_kills_each_worker_that_gets_it_is_given_up(crew: Crew) -> None:
    guest, other = crew.connect("gateway-1", "worker-1"), crew.connect("gateway-1", "worker-1")
    guest.send("die")
    after = guest.send("about")
    for _ in range(4):
        until(lambda: not all(crew.processes[name].alive for name in crew.names("worker")))
        dead = next(name for name in crew.names("worker") if not crew.processes[name].alive)
        assert crew.ended(dead) == 3
        crew.start(dead)

    assert guest.result(after)["redelivered"] is True
    assert guest.call("about")["redelivered"] is False
    assert other.call("about")
    log = crew.processes["gateway-1"].log
    event_id = re.search(r"event (\S+) is given up: 4 workers that had it were lost", log)
    assert event_id
    assert event_id[1].startswith(guest.id)


def test_the_close_event_that_a_dead_worker_had_is_handled_by_another(crew: Crew) -> None:
    watcher, guest = crew.connect("gateway-2", "worker-2"), crew.connect("gateway-1", "worker-1")
    watcher.do("client.join", f"watch {guest.id}")
    guest.do("client.bind", "u1")
    guest.do("push", "note", 1)
    crew.processes["worker-1"].signal(signal.SIGSTOP)

    guest.connection.close(4000, "bye")
    crew.kill("worker-1")

    closed = json.loads(watcher.next())
    assert (closed["id"], closed["code"], closed["reason"]) == (guest.id, 4000, "bye")
    assert (closed["uid"], closed["session"], closed["redelivered"]) == ("u1", {"notes": ["note"]}, True)


def test_a_worker_is_stopped_under_traffic_and_nothing_is_handled_twice(crew: Crew) -> None:
    traffic = Traffic(crew)
    traffic.say(50)
    log = crew.processes["worker-1"]

    assert crew.stop("worker-1") == 0

    assert "the stop handler ran" in log.log
    traffic.hear()
    crew.start("worker-1")
    traffic.say(50)
    traffic.hear()
    traffic.end()


def test_a_worker_that_hangs_is_replaced_and_does_no_harm_when_it_wakes_up(crew: Crew) -> None:
    traffic = Traffic(crew)
    traffic.say(20)
    crew.processes["worker-1"].signal(signal.SIGSTOP)

    traffic.hear()

    crew.processes["worker-1"].signal(signal.SIGCONT)
    traffic.say(20)
    traffic.hear()
    crew.connect("gateway-1", "worker-1")
    crew.connect("gateway-2", "worker-1")
    traffic.end()


def test_without_a_worker_events_wait(crew: Crew) -> None:
    guest = crew.connect("gateway-1")
    for name in ("worker-1", "worker-2"):
        crew.stop(name)
    guest.connection.send(b"one")
    newcomer = crew.connect("gateway-2")
    newcomer.connection.send(b"two")

    crew.start("worker-1")

    assert guest.next() == b"one"
    assert newcomer.hello["pid"] == crew.pid("worker-1")
    assert newcomer.next() == b"two"


def test_a_register_dies_and_comes_back_and_nobody_notices(crew: Crew) -> None:
    traffic = Traffic(crew)
    guest = traffic.talkers[0]
    traffic.say(20)

    crew.kill("register-1")

    traffic.hear()
    assert guest.call("get_all_client_id_count") == 8
    crew.start("register-1")
    crew.start("worker-3")
    crew.connect("gateway-1", "worker-3")
    crew.connect("gateway-2", "worker-3")
    assert guest.call("get_all_client_id_count") == 10
    crew.stop("worker-3")
    traffic.end()


def test_a_gateway_dies_and_the_others_go_on(crew: Crew) -> None:
    ann, bob = crew.connect("gateway-1", "worker-1"), crew.connect("gateway-2", "worker-2")
    bob.do("client.bind", "u1")
    ann.do("client.join", f"watch {bob.id}")

    crew.kill("gateway-2")

    assert bob.closed() == (1006, "")
    assert ann.call("about")["pid"] == crew.pid("worker-1")
    with pytest.raises(Failed, match="PartialAnswer: no answer from gateway-2 before the deadline"):
        ann.call("is_uid_online", "u1")

    def forgotten() -> bool:
        try:
            return ann.call("is_uid_online", "u1") is False
        except Failed:
            return False

    until(forgotten)
    assert ann.call("is_online", bob.id) is False
    assert ann.call("get_all_client_id_list") == [ann.id]
    ann.do("send_to_client", bob.id, "hello")
    assert json.loads(ann.next())["reason"] == "gateway_lost"
    assert ann.got() == []


def told(watcher: Guest, count: int) -> dict[str, dict[str, Any]]:
    """Return by client what close handlers told a watcher, and see that they told each once."""
    closed = [json.loads(watcher.next()) for _ in range(count)]
    watcher.do("flush")
    assert watcher.got() == []
    found = {close["id"]: close for close in closed}
    assert len(found) == count
    return found


def test_the_survivors_tell_the_close_of_a_dead_gateways_clients_once(crew: Crew) -> None:
    watcher = crew.connect("gateway-1", "worker-2")
    guests = [crew.connect("gateway-2", f"worker-{1 + number % 2}") for number in range(6)]
    for number, guest in enumerate(guests):
        watcher.do("client.join", f"watch {guest.id}")
        guest.do("client.bind", f"u{number}")
        guest.do("push", "note", number + 1)
    left = guests.pop()
    left.leave()
    assert told(watcher, 1)[left.id]["reason"] == ""

    crew.kill("gateway-2")

    closed = told(watcher, 5)
    for number, guest in enumerate(guests):
        close = closed[guest.id]
        assert (close["code"], close["reason"], close["uid"]) == (1006, "gateway_lost", f"u{number}")
        assert close["session"] == {"notes": ["note"] * (number + 1)}
    until(lambda: crew.stats("gateway-1").get("clients.adopted", 0) >= 5)


def test_a_gateway_that_was_taken_for_lost_ends_and_tells_no_close_again(crew: Crew) -> None:
    watcher, bob = crew.connect("gateway-1", "worker-2"), crew.connect("gateway-2", "worker-2")
    watcher.do("client.join", f"watch {bob.id}")
    gateway = crew.processes["gateway-2"]
    gateway.signal(signal.SIGSTOP)
    assert told(watcher, 1)[bob.id]["reason"] == "gateway_lost"

    bob.send("send_to_all", "after its close")
    gateway.signal(signal.SIGCONT)

    assert bob.closed()[0] == 1012
    assert crew.ended("gateway-2") == 1
    assert "it was taken for lost" in gateway.log
    watcher.do("flush")
    assert watcher.got() == []


def test_a_gateway_that_stops_says_goodbye_and_close_handlers_run(crew: Crew) -> None:
    ann, bob = crew.connect("gateway-1", "worker-1"), crew.connect("gateway-2", "worker-2")
    ann.do("client.join", f"watch {bob.id}")
    bob.do("push", "note", 1)

    crew.processes["gateway-2"].signal(signal.SIGTERM)

    code, reason = bob.closed()
    assert (code, reason.partition("=")[0]) == (1012, "gateway_stopping retry")
    closed = json.loads(ann.next())
    assert (closed["id"], closed["code"], closed["session"]) == (bob.id, 1012, {"notes": ["note"]})
    while crew.processes["gateway-2"].alive:  # it leaves before a question, while it is under way, or after it
        assert ann.call("get_all_client_id_list") == [ann.id]
    assert crew.ended("gateway-2") == 0
    assert ann.call("get_all_client_id_list") == [ann.id]


def test_the_timer_of_one_moves_when_its_worker_dies(crew: Crew) -> None:
    ann = crew.connect("gateway-1")
    ann.do("client.join", "ticks of one")
    holder = ann.next()
    name = next(name for name in ("worker-1", "worker-2") if str(crew.pid(name)) == holder)
    other = "worker-2" if name == "worker-1" else "worker-1"

    crew.kill(name)

    ticks = [tick for tick in iter(ann.next, str(crew.pid(other))) if tick != holder]
    assert ticks == []


def test_a_worker_with_broken_handlers_says_so_and_the_others_go_on(crew: Crew) -> None:
    guest = crew.connect("gateway-1", "worker-1")
    (crew.folder / "broken.py").write_text("from gatecrew import App\napp = App(\n")

    broken = crew.begin("worker", "worker-broken", worker_app="broken:app")

    assert crew.ended("worker-broken") == 1
    assert len(broken.log.splitlines()) == 1
    assert f"broken:app cannot be imported: {crew.folder}/broken.py:2: SyntaxError: '(' was never closed" in broken.log
    assert guest.call("about")["pid"] == crew.pid("worker-1")


def test_a_worker_whose_start_handler_fails_takes_no_events(crew: Crew) -> None:
    (crew.folder / "failing.py").write_text(
        "from gatecrew import App\napp = App()\n@app.on_start\ndef start():\n    raise OSError('no database')\n"
    )

    failing = crew.begin("worker", "worker-failing", worker_app="failing:app")

    assert crew.ended("worker-failing") == 1
    said = f"a start handler failed: {crew.folder}/failing.py:5: OSError: no database"
    assert said in failing.log.splitlines()[-1]


def test_the_register_may_come_last() -> None:
    with Crew(gateway_handshake_timeout=str(PATIENCE)) as crew, ThreadPoolExecutor() as pool:
        crew.start("worker-1")
        crew.start("gateway-1")
        early = pool.submit(crew.connect, "gateway-1")  # it waits for a worker

        crew.start("register-1")

        guest = early.result(PATIENCE)
        assert guest.worker == crew.pid("worker-1")
