"""The opening handshake, without sockets."""

from __future__ import annotations

import itertools
import logging

import pytest
from gatecrew.gateway.handshake import MAX_REQUEST, Answer, Opening, Terms, introduce
from gatecrew.gateway.pages import Pages
from hypothesis import given
from hypothesis import strategies as st
from websockets.typing import Subprotocol

LOG = logging.getLogger("test.handshake")
GOOD = {
    "Host": "example.org",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
PAGES = Pages({"index.html": b"home"})


def terms(*subprotocols: str, pages: Pages | None = None) -> Terms:
    return Terms(tuple(map(Subprotocol, subprotocols)), [], pages, LOG)


def request(target: str = "/", line: str = "GET {} HTTP/1.1", **headers: str | None) -> bytes:
    fields = GOOD | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [line.format(target), *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(data: bytes, offer: Terms | None = None) -> Answer:
    found = Opening(offer or terms()).feed(data)
    assert found is not None
    return found


def test_a_good_request_is_accepted() -> None:
    found = answer(request())

    assert found.status == 101
    assert found.response.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in found.response  # section 1.3
    assert found.response.endswith(b"\r\n\r\n")


@given(st.lists(st.integers(0, 300)), st.binary(max_size=30))
def test_a_request_may_come_in_pieces_with_frames_behind_it(cuts: list[int], behind: bytes) -> None:
    whole = request("/chat") + behind
    end = len(whole) - len(behind)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    opening = Opening(terms())
    for start, stop in itertools.pairwise(places):
        found = opening.feed(whole[start:stop])
        assert (found is not None) == (stop >= end)
        if found is not None:
            assert found.status == 101
            assert found.rest == whole[end:stop]
            break


def test_a_client_is_introduced() -> None:
    found = answer(request("/caf%C3%A9?a=1&b=x%20y&a=2&empty=", X_Token="t"))
    handshake = introduce(found, "127.0.0.1:5000", "ws://127.0.0.1:1")

    assert handshake.path == "/café"
    assert handshake.query == {"a": "2", "b": "x y", "empty": ""}
    assert ("X-Token", "t") in handshake.headers
    assert handshake[3:] == ("127.0.0.1:5000", "ws://127.0.0.1:1", None)


@pytest.mark.parametrize("target", ["//[", "http://[::1", "?", "*", "/%ff%00"])
def test_odd_targets_do_no_harm(target: str) -> None:
    introduce(answer(request(target)), "", "").path.encode()  # no lone surrogates: it goes over the wire


@pytest.mark.parametrize(("offered", "chosen"), [("b, a", "a"), ("b", "b"), ("c", None), (None, None), ("c, b", "b")])
def test_the_listener_prefers_among_the_subprotocols_of_the_client(offered: str | None, chosen: str | None) -> None:
    found = answer(request(Sec_WebSocket_Protocol=offered), terms("a", "b"))

    assert (101, chosen) == (found.status, found.subprotocol)
    assert (b"Sec-WebSocket-Protocol" in found.response) == (chosen is not None)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(Upgrade=None), 426),
        (request(Connection=None), 426),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key="short"), 400),
        (request(Sec_WebSocket_Version="8"), 400),
        (request(Sec_WebSocket_Protocol=";;"), 400),
        (request(line="POST {} HTTP/1.1"), 405),
        (request(line="HEAD {} HTTP/1.1"), 405),
        (request(line="GET {} HTTP/1.0"), 505),
        (request(line="GET {} HTTP/2"), 400),
        (request(line="POST {} HTTP/1.1", Content_Length="5") + b"hello", 400),
        (request(line="POST {} HTTP/1.1", Transfer_Encoding="chunked"), 400),
        (request("/" + "a" * 9000), 414),
        (request(X_Long="a" * 9000), 431),
        (request(**{f"X-{number}": "a" for number in range(200)}), 431),
        (request(**{f"X-{number}": "a" * 8000 for number in range(10)}), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS to a port without it
        (b"hello\r\n", 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_a_bad_request_gets_a_proper_status(data: bytes, status: int) -> None:
    found = answer(data)

    assert status == found.status
    assert found.request is None
    assert found.response.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in found.response


def test_a_request_without_end_is_refused() -> None:
    opening = Opening(terms())
    found = None
    for _ in range(MAX_REQUEST // 4):
        found = opening.feed(b"a: b\r\n" if opening.begun else b"GET / HTTP/1.1\r\n")
        if found is not None:
            break

    assert found is not None
    assert found.status == 431


@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    opening = Opening(terms("a", pages=PAGES))
    found = opening.feed(data) or opening.feed(b"\r\n\r\n\r\n\r\n")

    assert found is not None
    assert found.status >= 400


fields = st.dictionaries(
    st.sampled_from([*GOOD, "Sec-WebSocket-Protocol", "Origin", "Content-Length"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30),
)


@given(fields, st.booleans())
def test_no_headers_make_it_fail(headers: dict[str, str], pages: bool) -> None:
    lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in (GOOD | headers).items())]
    found = answer("\r\n".join([*lines, "", ""]).encode("latin-1"), terms("a", pages=PAGES if pages else None))

    assert found.status in (101, 200, 400, 403, 426)


def test_a_page_of_another_host_is_refused() -> None:
    found = answer(request(Host="chat.example.org", Origin="https://evil.example.com"))

    assert (found.status, found.cause, found.request) == (403, "foreign_origin", None)
    assert answer(request(Host="chat.example.org", Origin="https://chat.example.org")).status == 101


def test_two_origins_or_hosts_are_none() -> None:
    assert answer(request(Host="a\r\nHost: b", Origin="http://a")).status == 403
    assert answer(request(Host="a", Origin="http://a\r\nOrigin: http://b")).status == 400


@pytest.mark.parametrize(("method", "body"), [("GET", b"home"), ("HEAD", b"")])
def test_a_plain_request_gets_a_page(method: str, body: bytes) -> None:
    found = answer(request(line=method + " {} HTTP/1.0", Upgrade=None), terms(pages=PAGES))

    assert (found.status, found.request) == (200, None)
    assert found.response.partition(b"\r\n\r\n")[2] == body


def test_pages_do_not_stand_in_the_way_of_a_handshake() -> None:
    assert answer(request(), terms(pages=PAGES)).status == 101
    assert answer(request(line="POST {} HTTP/1.1", Upgrade=None), terms(pages=PAGES)).status == 405
