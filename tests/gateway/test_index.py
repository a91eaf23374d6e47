"""Clients by id, uid and group."""

from __future__ import annotations

from typing import Any, cast

from gatecrew.gateway.client import Client, Connection
from gatecrew.gateway.index import Index
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

NOBODY = cast("Connection", None)  # the index never touches a socket

uids = st.sampled_from(["ann", "bob", "cy"])
groups = st.sampled_from(["red", "green", "blue"])
picks = st.randoms(use_true_random=False)


class Member:
    """What a client is in the naive model: everything about it in one place."""

    def __init__(self) -> None:
        self.uid: str | None = None
        self.groups: set[str] = set()


class AnIndexIsWhatItsClientsAre(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.model: dict[Client, Member] = {}
        self.count = 0

    def pick(self, random: Any) -> tuple[Client, Member]:
        client = random.choice(list(self.model))
        return client, self.model[client]

    @rule()
    def add(self) -> None:
        self.count += 1
        client = Client(f"client-{self.count}", NOBODY, [])
        self.index.add(client)
        self.model[client] = Member()

    @precondition(lambda self: self.model)
    @rule(random=picks)
    def remove(self, random: Any) -> None:
        client, member = self.pick(random)
        self.index.remove(client)
        assert client.uid == member.uid
        assert client.groups == set()
        del self.model[client]

    @precondition(lambda self: self.model)
    @rule(random=picks, uid=uids)
    def bind(self, random: Any, uid: str) -> None:
        client, member = self.pick(random)
        self.index.bind(client, uid)
        member.uid = uid

    @precondition(lambda self: self.model)
    @rule(random=picks)
    def unbind(self, random: Any) -> None:
        client, member = self.pick(random)
        self.index.unbind(client)
        member.uid = None

    @precondition(lambda self: self.model)
    @rule(random=picks, group=groups)
    def join(self, random: Any, group: str) -> None:
        client, member = self.pick(random)
        self.index.join(client, group)
        member.groups.add(group)

    @precondition(lambda self: self.model)
    @rule(random=picks, group=groups)
    def leave(self, random: Any, group: str) -> None:
        client, member = self.pick(random)
        self.index.leave(client, group)
        member.groups.discard(group)

    @rule(group=groups)
    def dissolve(self, group: str) -> None:
        self.index.dissolve(group)
        for member in self.model.values():
            member.groups.discard(group)

    @rule(asked=st.lists(uids))
    def look_up_uids(self, asked: list[str]) -> None:
        found = self.index.of_uids(asked)
        assert len(found) == len(set(found))
        assert set(found) == {client for client, member in self.model.items() if member.uid in asked}

    @rule(asked=st.lists(groups))
    def look_up_groups(self, asked: list[str]) -> None:
        found = self.index.of_groups(asked)
        assert len(found) == len(set(found))
        assert set(found) == {client for client, member in self.model.items() if member.groups & set(asked)}

    @rule(group=groups)
    def look_up_a_group(self, group: str) -> None:
        found = self.index.of_groups([group])
        assert set(found) == {client for client, member in self.model.items() if group in member.groups}

    @invariant()
    def both_directions_say_what_the_model_says(self) -> None:
        by_uid: dict[str, set[Client]] = {}
        by_group: dict[str, set[Client]] = {}
        for client, member in self.model.items():
            assert client.uid == member.uid
            assert client.groups == member.groups
            if member.uid is not None:
                by_uid.setdefault(member.uid, set()).add(client)
            for group in member.groups:
                by_group.setdefault(group, set()).add(client)
        assert self.index.uids == by_uid
        assert self.index.groups == by_group
        assert list(self.index.of_groups(None)) == list(self.model)
        assert self.index.clients == {client.id: client for client in self.model}


TestIndex = AnIndexIsWhatItsClientsAre.TestCase


def test_nobody_is_in_a_group_that_nobody_joined() -> None:
    index = Index()

    assert list(index.of_groups(["red"])) == []
    assert list(index.of_groups([])) == []
    assert list(index.of_groups(["red", "green"])) == []
    assert index.of_uids(["ann"]) == []
