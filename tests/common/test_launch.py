"""What can run at once."""

from __future__ import annotations

import pytest
from gatecrew.common import launch
from gatecrew.common.config import load


@pytest.mark.parametrize(
    ("listen", "link", "gateways"),
    [
        ("ws://*:7272", "ipc", None),
        ("ws://*:7272", "tcp://127.0.0.1:0", None),
        ("ws://*:7272", "tcp://127.0.0.1:2900-2902", 3),
        ("unix:/run/x", "ipc", 1),
        ("ws://*:7272,unix:/run/x?protocol=text", "tcp://127.0.0.1:2900-2902", 1),
    ],
)
def test_so_many_gateways_run_side_by_side(listen: str, link: str, gateways: int | None) -> None:
    found = load(None, {"GATECREW_GATEWAY_LISTEN": listen, "GATECREW_GATEWAY_LINK": link}, {})

    assert launch._most(found).get("gateway") == gateways
