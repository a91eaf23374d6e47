"""How many clients a uid may have."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from gatecrew.common import messages as op
from gatecrew.common import wire
from gatecrew.common.errors import LinkError
from gatecrew.gateway.client import Client, NoConnection
from gatecrew.gateway.devices import Claims, Devices
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from gatecrew.common.messages import Message


class Gateway:
    def __init__(self, key: str, limit: int, *, keep_oldest: bool) -> None:
        self.key = key
        self.claims = Claims(limit, keep_oldest=keep_oldest, wall=lambda: 1000.0)
        self.devices = Devices(key, self.claims)
        self.there: dict[str, str] = {}  # the clients that may stay, and their uids
        self.waiting: dict[str, Client] = {}
        self.count = 0

    def come(self, uid: str, device: str = "") -> Client:
        """Let a client in that claims a place."""
        self.count += 1
        client = Client(f"{self.key}-{self.count}", NoConnection(), [])
        self.waiting[client.id] = client

        def decided(allowed: bool) -> None:
            assert client.id in self.waiting or client.id in self.there
            self.waiting.pop(client.id, None)
            self.there.pop(client.id, None)
            if allowed:
                self.there[client.id] = uid
            else:
                self.devices.release(client)  # as whoever closes does

        self.devices.claim(client, uid, device, decided)
        return client

    def go(self, client: Client) -> None:
        self.waiting.pop(client.id, None)
        self.there.pop(client.id, None)
        self.devices.release(client)


class End:
    """One end of a link: what it is sent arrives when the network lets it."""

    def __init__(self) -> None:
        self.sent: deque[Message] = deque()

    def send(self, message: Message) -> None:
        self.sent.append(wire.unpack(wire.pack(message)))


class Network:
    """Gateways that all know each other, and links between each two, both ways."""

    def __init__(self, limit: int, *, keep_oldest: bool = False) -> None:
        self.limit = limit
        self.keep_oldest = keep_oldest
        self.gateways: dict[str, Gateway] = {}
        self.links: dict[tuple[str, str], tuple[End, End]] = {}  # from holder to owner

    def join(self, key: str) -> Gateway:
        new = Gateway(key, self.limit, keep_oldest=self.keep_oldest)
        for other in self.gateways.values():
            other.devices.members_changed([key], [])
        new.devices.members_changed(self.gateways, [])
        self.gateways[key] = new
        for name in self.gateways.keys() - {key}:
            self.connect(key, name)
            self.connect(name, key)
        return new

    def connect(self, holder: str, owner: str) -> None:
        self.links[holder, owner] = there, _ = End(), End()
        self.gateways[holder].devices.joined(owner, there)

    def cut(self, holder: str, owner: str) -> None:
        """Lose a link with all that is under way."""
        if (holder, owner) in self.links:
            _, back = self.links.pop((holder, owner))
            if holder in self.gateways:
                self.gateways[holder].devices.lost(owner)
            if owner in self.gateways:
                self.gateways[owner].claims.lost(back)

    def kill(self, key: str) -> None:
        del self.gateways[key]
        for other in self.gateways:
            self.cut(key, other)
            self.cut(other, key)
        for gateway in self.gateways.values():
            gateway.devices.members_changed([], [key])

    def move(self, holder: str, owner: str) -> bool:
        """Let one message arrive each way; return whether there was one."""
        there, back = self.links[holder, owner]
        moved = bool(there.sent or back.sent)
        if there.sent:
            self.gateways[owner].claims.received(back, [there.sent.popleft()])
        if back.sent:
            self.gateways[holder].devices.received(owner, [back.sent.popleft()])
        return moved

    def settle(self) -> None:
        for holder in self.gateways:
            for owner in self.gateways:
                if holder != owner and (holder, owner) not in self.links:
                    self.connect(holder, owner)
        while [ends for ends in self.links if self.move(*ends)]:
            pass

    def do(self, step: str, key: str, what: Any) -> None:
        """Let something happen at a gateway, if it can."""
        gateway = self.gateways.get(key)
        match step:
            case "join" if gateway is None:
                self.join(key)
            case "kill" if gateway is not None:
                self.kill(key)
            case "come" if gateway is not None:
                gateway.come(what)
            case "go" if gateway is not None and gateway.there:
                client_id = list(gateway.there)[what % len(gateway.there)]
                gateway.go(Client(client_id, NoConnection(), []))
            case "move" if (key, what) in self.links:
                self.move(key, what)
            case "cut":
                self.cut(key, what)

    def there(self, uid: str) -> list[str]:
        return [client for gateway in self.gateways.values() for client, its in gateway.there.items() if its == uid]


@pytest.mark.parametrize("keep_oldest", [False, True])
def test_one_too_many_takes_the_place_of_the_oldest_or_gets_none(keep_oldest: bool) -> None:
    network = Network(2, keep_oldest=keep_oldest)
    gateways = [network.join(key) for key in "abc"]
    for gateway in gateways:
        gateway.come("ann")
        network.settle()

    assert network.there("ann") == (["a-1", "b-1"] if keep_oldest else ["b-1", "c-1"])


@pytest.mark.parametrize("keep_oldest", [False, True])
def test_of_two_that_come_at_once_one_stays(keep_oldest: bool) -> None:
    network = Network(1, keep_oldest=keep_oldest)
    for gateway in [network.join(key) for key in "ab"]:
        gateway.come("ann")
    network.settle()

    assert len(network.there("ann")) == 1


def test_kinds_of_devices_are_counted_apart() -> None:
    network = Network(1)
    gateway = network.join("a")
    for device in ("phone", "laptop", "phone"):
        gateway.come("ann", device)

    assert network.there("ann") == ["a-2", "a-3"]


def test_who_goes_makes_room() -> None:
    network = Network(1, keep_oldest=True)
    one, other = network.join("a"), network.join("b")
    client = one.come("ann")
    network.settle()
    one.go(client)
    network.settle()
    other.come("ann")
    network.settle()

    assert network.there("ann") == ["b-1"]


def test_the_same_claim_again_changes_nothing() -> None:
    network = Network(1)
    gateway = network.join("a")
    client = gateway.come("ann")
    answers: list[bool] = []

    gateway.devices.claim(client, "ann", "", answers.append)
    assert answers == []
    gateway.come("ann")
    assert answers == [False]


def test_another_uid_gives_the_first_one_back() -> None:
    network = Network(1, keep_oldest=True)
    gateway = network.join("a")
    gateway.devices.claim(gateway.come("ann"), "bob", "", lambda allowed: None)
    gateway.come("ann")

    assert "a-2" in network.there("ann")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from("abcd"), st.sampled_from(["ann", "bob"])),
        st.tuples(st.just("go"), st.sampled_from("abcd"), st.integers(0, 5)),
        st.tuples(st.just("move"), st.sampled_from("abcd"), st.sampled_from("abcd")),
        st.tuples(st.just("cut"), st.sampled_from("abcd"), st.sampled_from("abcd")),
        st.tuples(st.just("kill"), st.sampled_from("bcd"), st.none()),
        st.tuples(st.just("join"), st.sampled_from("bcd"), st.none()),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 2), st.booleans())
def test_when_all_has_arrived_each_uid_has_as_many_as_it_may(
    steps: list[tuple[str, str, Any]], limit: int, keep_oldest: bool
) -> None:
    network = Network(limit, keep_oldest=keep_oldest)
    for key in "abc":
        network.join(key)
    for step in steps:
        network.do(*step)
    network.settle()

    for uid in ("ann", "bob"):
        assert len(network.there(uid)) <= limit
    for gateway in network.gateways.values():
        assert gateway.waiting == {}
        assert len(gateway.devices._places) == len(gateway.there)
    claimed = sum(len(claims) for gateway in network.gateways.values() for claims in gateway.claims._claims.values())
    assert claimed == sum(len(gateway.there) for gateway in network.gateways.values())


@pytest.mark.parametrize(
    "message", [[op.CLAIM, "ann", "", "a-1"], [op.CLAIM, "ann", "", 5, None], [op.UNCLAIM, "ann"], [op.GRANTED]]
)
def test_what_is_no_claim_is_refused(message: Message) -> None:
    with pytest.raises(LinkError, match="claims nothing"):
        Claims(1, keep_oldest=False, wall=lambda: 0.0).received(End(), [message])


@pytest.mark.parametrize("message", [[op.GRANTED, "ann", "", "a-1"], [op.TOO_MANY, "ann", "", 5], [op.CLAIM]])
def test_what_is_no_answer_to_a_claim_is_refused(message: Message) -> None:
    with pytest.raises(LinkError, match="grants nothing"):
        Network(1).join("a").devices.received("b", [message])
