"""What a gateway tells of itself; what it does is tested with real workers and whole clusters."""

from __future__ import annotations

import pytest
from gatecrew.gateway.server import page_url


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("ws://127.0.0.1:7272", "http://127.0.0.1:7272/"),
        ("ws://[::1]:7272", "http://[::1]:7272/"),
        ("ws://*:80", "http://localhost:80/"),
        ("ws://0.0.0.0:80", "http://localhost:80/"),
        ("wss://chat.example:443", "https://chat.example:443/"),
        ("tcp://127.0.0.1:7273", None),
        ("unix:/run/chat.sock", None),
    ],
)
def test_pages_are_at_an_address_that_a_browser_can_open(listen: str, url: str | None) -> None:
    assert page_url(listen) == url
