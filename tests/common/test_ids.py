"""Keys of processes and ids of clients."""

from __future__ import annotations

import re

import pytest
from gatecrew.common.errors import ClientIdError
from gatecrew.common.ids import CLIENT_ID_LENGTH, gateway_of, new_client_id, new_key
from hypothesis import given
from hypothesis import strategies as st


def test_keys_are_new_each_time_and_fit_into_a_file_name() -> None:
    keys = {new_key() for _ in range(1000)}

    assert len(keys) == 1000
    assert all(re.fullmatch("[a-z2-7]{8}", key) for key in keys)


def test_a_client_id_names_its_gateway_and_nothing_else_can_be_told_from_it() -> None:
    key = new_key()
    ids = {new_client_id(key) for _ in range(1000)}

    assert len({client_id[8:] for client_id in ids}) == 1000
    assert {len(client_id) for client_id in ids} == {CLIENT_ID_LENGTH}
    assert {gateway_of(client_id) for client_id in ids} == {key}


@pytest.mark.parametrize(
    "text", ["", "x", "a" * 23, "a" * 25, "A" * 24, "a" * 23 + "\n", "a" * 23 + "ä", "1" + "a" * 23]
)
def test_what_is_no_client_id_is_refused(text: str) -> None:
    with pytest.raises(ClientIdError, match="not a client id: "):
        gateway_of(text)


@given(st.text(max_size=30))
def test_any_text_is_a_client_id_or_refused(text: str) -> None:
    try:
        key = gateway_of(text)
    except ValueError:
        assert not re.fullmatch("[a-z2-7]{8}[A-Za-z0-9_-]{16}", text)
    else:
        assert text.startswith(key)
