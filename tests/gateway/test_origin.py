"""Which web pages may open connections."""

from __future__ import annotations

import pytest
from gatecrew.gateway.origin import welcome


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:7272", "localhost:7272"),
        ("http://127.0.0.1:7272", "127.0.0.1:7272"),
        ("http://[::1]:7272", "[::1]:7272"),
        ("https://chat.example.org", "chat.example.org"),
        ("https://chat.example.org", "Chat.Example.Org"),
        ("https://chat.example.org", "chat.example.org:443"),
        ("http://chat.example.org:80", "chat.example.org"),
    ],
)
def test_pages_of_the_same_host_are_welcome(origin: str, host: str) -> None:
    assert welcome(origin, host, [])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example.com", "chat.example.org"),
        ("https://chat.example.org.evil.com", "chat.example.org"),
        ("https://evilchat.example.org", "chat.example.org"),
        ("http://localhost:8000", "localhost:7272"),
        ("http://localhost:7272", "127.0.0.1:7272"),
        ("https://chat.example.org:80", "chat.example.org"),
        ("http://chat.example.org:8080", "chat.example.org:80"),
        ("null", "null"),
        ("", ""),
        ("http://", ""),
        ("chat.example.org", "chat.example.org"),
        ("file://chat.example.org", "chat.example.org"),
        ("https://chat.example.org", None),
    ],
)
def test_pages_from_elsewhere_are_not(origin: str, host: str | None) -> None:
    assert not welcome(origin, host, [])


def test_who_is_no_browser_is_welcome() -> None:
    assert welcome(None, "chat.example.org", [])
    assert welcome(None, None, ["https://www.example.org"])


def test_what_is_listed_is_welcome_and_the_own_pages_stay_so() -> None:
    listed = ["https://www.Example.org", "null"]

    assert welcome("https://WWW.example.org", "chat.example.org", listed)
    assert welcome("null", "chat.example.org", listed)
    assert welcome("https://chat.example.org", "chat.example.org", listed)
    assert not welcome("https://example.org", "chat.example.org", listed)
    assert welcome("https://evil.example.com", "chat.example.org", ["*"])
