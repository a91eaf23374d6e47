from __future__ import annotations

import pytest
from gatecrew.common.errors import LinkError
from gatecrew.gateway.client import Client, NoConnection
from gatecrew.gateway.index import Index
from gatecrew.gateway.overview import MAX_GROUPS, MAX_ROWS, SORTS, Row, connections


class Socket(NoConnection):
    def __init__(self, unsent: int) -> None:
        self.unsent = unsent


def gateway(count: int) -> Index:
    """Clients c0, c1 and so on, the next always younger, chattier and slower."""
    index = Index()
    for n in range(count):
        client = Client(f"c{n}", Socket(unsent=n), ["/", "", f"[2001:db8::{n}]:{5000 + n}", "", ""])
        client.since, client.number = float(n), n
        client.uid, client.groups = f"u{n % 2}", {f"g{n % 3}"}
        index.add(client)
    return index


def asked(
    index: Index, *, uid: str = "", group: str = "", address: str = "", sort: str = "age", limit: int = 9
) -> list[str]:
    total, rows = connections(index, 100.0, [uid, group, address, sort, limit])
    assert total >= len(rows)
    return [Row(*row).client for row in rows]


def test_they_are_sorted() -> None:
    index = gateway(3)

    assert asked(index) == ["c0", "c1", "c2"]
    assert asked(index, sort="traffic") == asked(index, sort="queue") == ["c2", "c1", "c0"]
    assert SORTS.keys() == {"age", "traffic", "queue"}


def test_they_are_filtered() -> None:
    index = gateway(6)

    assert asked(index, uid="u0") == ["c0", "c2", "c4"]
    assert asked(index, group="g1") == ["c1", "c4"]
    assert asked(index, uid="u0", group="g1") == ["c4"]
    assert asked(index, address="2001:db8::3") == asked(index, address="[2001:db8::3]:5003") == ["c3"]
    assert asked(index, address="2001:db8::30") == asked(index, uid="nobody") == []


def test_so_many_are_told_and_no_more() -> None:
    index = gateway(20)
    client = index.clients["c0"]
    for n in range(50):
        index.join(client, str(n))
    total, rows = connections(index, 100.0, ["", "", "", "age", 2])
    first = Row(*rows[0])

    assert (total, len(rows)) == (20, 2)
    assert (first.age, len(first.groups), first.group_count) == (100.0, MAX_GROUPS, 51)
    with pytest.raises(LinkError):
        connections(index, 100.0, ["", "", "", "age", MAX_ROWS + 1])
