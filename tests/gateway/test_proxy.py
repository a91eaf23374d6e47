"""Where a client behind a proxy is."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from gatecrew.gateway.proxy import HEAD, MAX_BODY, SIGNATURE, Head, Trusted, parse_body, parse_head
from hypothesis import given
from hypothesis import strategies as st

PORTS = st.integers(0, 65535)


def packed(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


@given(st.ip_addresses(), PORTS, st.binary(max_size=100))
def test_an_address_comes_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, more: bytes) -> None:
    body = address.packed + address.packed + struct.pack("!HH", port, 1) + more
    data = packed(0x21, 0x11 if address.version == 4 else 0x21, body)

    head = parse_head(data[:HEAD])
    assert head.size == len(body)
    remote = parse_body(head, body)
    assert remote == (f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}")


@pytest.mark.parametrize(
    "head",
    [Head(0, 0x11, 0), Head(0, 0x21, 3), Head(1, 0x00, 0), Head(1, 0x31, 216), Head(1, 0x12, 12)],
    ids=["local", "local with something", "unspecified", "unix", "udp"],
)
def test_where_nothing_is_said_nothing_is_told(head: Head) -> None:
    assert parse_body(head, bytes(head.size)) is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PROXY TCP4 1.2.3.4 5", "no header of the PROXY protocol, version 2"),
        (SIGNATURE + b"\x11\x11\0\x0c", "version and command 0x11, expected 0x20 or 0x21"),
        (SIGNATURE + b"\x22\x11\0\x0c", "version and command 0x22, expected 0x20 or 0x21"),
        (SIGNATURE + b"\x21\x11\xff\xff", f"a header of 65535 bytes, expected at most {MAX_BODY}"),
    ],
)
def test_a_header_that_is_none_is_an_error(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_head(data[:HEAD])


@pytest.mark.parametrize(("family", "size"), [(0x11, 11), (0x21, 35)])
def test_addresses_that_are_cut_off_are_an_error(family: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes of addresses, expected {size + 1}"):
        parse_body(Head(1, family, size), bytes(size))


@given(st.binary(min_size=HEAD, max_size=HEAD) | st.binary(min_size=4, max_size=4).map(SIGNATURE.__add__), st.binary())
def test_nothing_but_a_value_error_is_raised(data: bytes, body: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_body(parse_head(data), body)


@pytest.mark.parametrize(
    ("names", "address", "trusted"),
    [
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "11.1.2.3", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.1", "::1"], "::1", True),
        (["unix"], "", True),
        (["10.0.0.0/8"], "", False),
        (["unix"], "127.0.0.1", False),
        ([], "127.0.0.1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["10.0.0.0/8"], "nonsense", False),
    ],
)
def test_who_is_trusted(names: list[str], address: str, trusted: bool) -> None:
    assert (address in Trusted(names)) is trusted


@pytest.mark.parametrize(
    ("said", "remote"),
    [
        (["192.0.2.7"], "192.0.2.7:0"),
        (["192.0.2.7:5000"], "192.0.2.7:5000"),
        (["2001:db8::7"], "[2001:db8::7]:0"),
        (["[2001:db8::7]:5000"], "[2001:db8::7]:5000"),
        (["[2001:db8::7]"], "[2001:db8::7]:0"),
        (["6.6.6.6, 192.0.2.7"], "192.0.2.7:0"),
        (["6.6.6.6", "192.0.2.7"], "192.0.2.7:0"),
        (["6.6.6.6, 192.0.2.7, 10.0.0.1,10.0.0.2"], "192.0.2.7:0"),
        (["10.0.0.1"], None),
        (["192.0.2.7:70000"], None),
        (["192.0.2.7, unknown"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(said: list[str], remote: str | None) -> None:
    headers = [("Host", "localhost"), *(("x-Forwarded-FOR", value) for value in said)]

    assert Trusted(["10.0.0.0/8"]).forwarded(headers) == remote


@given(st.text())
def test_any_header_is_understood_or_not(said: str) -> None:
    remote = Trusted(["10.0.0.0/8"]).forwarded([("X-Forwarded-For", said)])

    assert remote is None or str(ipaddress.ip_address(remote.rpartition(":")[0].strip("[]"))) in remote
