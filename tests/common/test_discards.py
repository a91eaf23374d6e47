from __future__ import annotations

import re
from pathlib import Path

import pytest
from gatecrew.common import reasons
from gatecrew.common.discards import EACH, GROUPS, LONGEST, REASONS, Discard, Discards, read, sentence

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_asked_for_is_found_in_order() -> None:
    discards = Discards()
    discards.add(3, "gateway-1", "closed.slow", client="a", uid="42", groups={"red"})
    discards.add(1, "gateway-1", "discarded.client_gone", client="a")
    discards.add(2, "worker-1", "handler.errors", client="b", uid="42")

    assert [one.time for one in discards.find(0)] == [1, 2, 3]
    assert [one.time for one in discards.find(2)] == [2, 3]
    assert [one.time for one in discards.find(0, client="a")] == [1, 3]
    assert [one.time for one in discards.find(0, uid="42")] == [2, 3]
    assert [one.time for one in discards.find(0, group="red")] == [3]
    assert [one.time for one in discards.find(0, client="a", limit=1)] == [3]


def test_of_each_reason_the_latest_are_remembered() -> None:
    discards = Discards()
    discards.add(0, "gateway-1", "closed.slow", client="kept")
    for time in range(2 * EACH):
        discards.add(time, "gateway-1", "discarded.client_gone", client="c" * 10 * LONGEST, groups=map(str, range(100)))

    found = discards.find(0, limit=10_000)
    assert len(found) == EACH + 1
    assert found[0].client == "kept"
    assert (found[1].time, len(found[1].client), len(found[1].groups)) == (EACH, LONGEST, GROUPS)


def test_so_many_reasons_are_told_apart_and_no_more() -> None:
    discards = Discards()
    for number in range(2 * REASONS):
        discards.add(0, "worker-1", f"rubbish.{number}")

    assert len(discards.find(0)) == REASONS


def test_a_discard_is_told_in_a_sentence() -> None:
    slow = Discard(0, "gateway-2", "closed.slow", "x", "42", [], "code 1013")
    gone = Discard(0, "gateway-2", "discarded.client_gone", "x", "", [], "")
    unknown = Discard(0, "gateway-2", "closed.idle", "x", "", [], "code 1008")

    assert sentence(slow) == (
        "gateway-2 closed client x (uid 42): slow (more was waiting for it than [gateway] client_buffer allows) (code 1013)"
    )
    assert sentence(gone) == "gateway-2 discarded something for client x: client_gone (it was not there any more)"
    assert sentence(unknown) == "gateway-2 closed client x: idle (code 1008)"


def test_a_discard_is_read_as_it_was_sent() -> None:
    slow = Discard(1.5, "gateway-2", "closed.slow", "x", "42", ["red"], "code 1013")

    assert read(list(slow)) == slow
    for bad in (None, [], [*slow, 1], ["1", *slow[1:]], [*slow[:5], [1], ""]):
        with pytest.raises(ValueError, match="where a discard is due"):
            read(bad)


def test_a_reason_is_known_by_what_the_client_is_told() -> None:
    assert reasons.named(*reasons.SLOW[1:]) == "slow"
    assert reasons.named(*reasons.GATEWAY_STOPPING.with_retry(1.5)[1:]) == "gateway_stopping"
    assert reasons.named(1000, "") == ""


def test_each_discard_is_explained() -> None:
    folders = ("common", "register", "gateway", "business")
    source = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).glob("*.py"))
    counted = set(re.findall(r'"(discarded\.[a-z_]+)"', source))

    assert len(counted) > 5
    for name in counted:
        assert re.search(r": \w+ \(.+\)$", sentence(Discard(0, "gateway-1", name, "x", "", [], ""))), name
