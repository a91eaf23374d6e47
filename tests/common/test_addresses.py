"""Addresses taken apart and put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gatecrew.common.addresses import Address, Listen, parse, parse_listen
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from ipaddress import IPv6Address

ports = st.integers(0, 65535)
hosts = st.ip_addresses(v=4).map(str) | st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ws://127.0.0.1:7272", Address("ws", "127.0.0.1", 7272, 7272)),
        ("ws://chat.example:0", Address("ws", "chat.example", 0, 0)),
        ("ws://*:80", Address("ws", "*", 80, 80)),
        ("ws://[::1]:65535", Address("ws", "::1", 65535, 65535)),
        ("ws://[fe80::1%eth0]:80", Address("ws", "fe80::1%eth0", 80, 80)),
    ],
)
def test_an_address_is_taken_apart(text: str, address: Address) -> None:
    assert parse(text, "ws") == address
    assert address.with_port(address.first) == text


def test_a_range_of_ports_is_taken_apart() -> None:
    assert parse("tcp://[::1]:2900-2999", "tcp", ports=True) == Address("tcp", "::1", 2900, 2999)
    assert parse("tcp://h:2900-2900", "tcp", ports=True) == Address("tcp", "h", 2900, 2900)
    assert parse("tcp://h:2900", "tcp", ports=True) == Address("tcp", "h", 2900, 2900)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not of the form"),
        ("127.0.0.1:7272", "not of the form"),
        ("tcp://127.0.0.1:7272", "not of the form ws://host:port"),
        ("ws://127.0.0.1", "not of the form"),
        ("ws://:80", "not of the form"),
        ("ws://::1:80", "not of the form"),
        ("ws://host:80/path", "not of the form"),
        ("ws://user@host:80", "not of the form"),
        ("ws://host: 80", "not of the form"),
        ("ws://host:80\n", "not of the form"),
        ("ws://host:٣", "not of the form"),  # a digit to Python
        ("ws://[host]:80", r"\[host\] is not an IPv6 address"),
        ("ws://[127.0.0.1]:80", "is not an IPv6 address"),
        ("ws://host:65536", "ports end at 65535"),
        ("ws://host:1-2", "a range of ports has no meaning here"),
    ],
)
def test_what_is_no_address_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text, "ws")


@pytest.mark.parametrize("span", ["2-1", "0-5", "0-0"])
def test_a_range_that_is_none_is_refused(span: str) -> None:
    with pytest.raises(ValueError, match="not a range of ports"):
        parse(f"tcp://host:{span}", "tcp", ports=True)


def test_a_range_ends_where_ports_end() -> None:
    with pytest.raises(ValueError, match="ports end at 65535"):
        parse("tcp://host:1-65536", "tcp", ports=True)


@given(hosts, ports)
def test_what_is_put_together_is_taken_apart_again(host: str, port: int) -> None:
    address = Address("tcp", host, port, port)

    assert parse(address.with_port(port), "tcp") == address


@given(st.ip_addresses(v=6), ports)
def test_ipv6_stands_in_brackets(host: IPv6Address, port: int) -> None:
    text = Address("tcp", str(host), port, port).with_port(port)

    assert text == f"tcp://[{host}]:{port}"
    assert parse(text, "tcp").host == str(host)


@given(st.text())
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    try:
        address = parse(text, "ws", ports=True)
    except ValueError:
        return
    assert 0 <= address.first <= address.last <= 65535


@pytest.mark.parametrize(
    ("host", "loopback", "wildcard"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("localhost", True, False),
        ("10.0.0.1", False, False),
        ("localhost.example", False, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("*", False, True),
    ],
)
def test_an_address_knows_how_far_it_reaches(host: str, loopback: bool, wildcard: bool) -> None:
    address = Address("tcp", host, 1, 1)

    assert (address.loopback, address.wildcard) == (loopback, wildcard)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("ws://h:80", Listen("ws://h:80", "ws", Address("ws", "h", 80, 80), "", {})),
        ("tls://*:0?a=b%2Cc&d=", Listen("tls://*:0", "tls", Address("tls", "*", 0, 0), "", {"a": "b,c", "d": ""})),
        (
            "unix:/run/x.sock?protocol=text",
            Listen("unix:/run/x.sock", "unix", None, "/run/x.sock", {"protocol": "text"}),
        ),
    ],
)
def test_where_clients_connect_is_taken_apart(text: str, listen: Listen) -> None:
    assert parse_listen(text) == listen


def test_what_goes_by_tls_and_what_any_number_may_listen_on() -> None:
    found = [parse_listen(text) for text in ("ws://h:1", "wss://h:0", "tcp://h:0", "tls://h:1", "unix:/x")]

    assert [listen.tls for listen in found] == [False, True, False, True, False]
    assert [listen.shared for listen in found] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "nothing is not one of ws, wss, tcp, tls, unix"),
        ("http://h:80", "http is not one of ws, wss, tcp, tls, unix"),
        ("tcp://h", "not of the form tcp://host:port"),
        ("tcp://h:1-2", "a range of ports has no meaning here"),
        ("unix:x.sock", "not of the form unix:/path"),
        ("unix:/" + "x" * 107, "the path of a unix socket has at most 107 bytes"),
        ("ws://h:80?a", "bad query field"),
        ("ws://h:80?a=1&a=2", "an option stands there twice"),
    ],
)
def test_where_nobody_can_connect(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_listen(text)


@given(st.text() | st.text().map("unix:/".__add__) | st.text().map("tcp://h:1?".__add__))
def test_any_text_is_where_clients_connect_or_refused(text: str) -> None:
    try:
        listen = parse_listen(text)
    except ValueError:
        return
    assert text.startswith(listen.url)
