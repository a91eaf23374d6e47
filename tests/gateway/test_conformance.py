"""RFC 6455 and 7692, byte by byte: what a client may send, and with which code it is closed for what it may not.

The groups are those of the Autobahn testsuite. Frames go into an :class:`Inbox`; ``test_websocket.py`` sends some through real sockets.
"""

from __future__ import annotations

import itertools
import logging
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest
from gatecrew.gateway.frames import Inbox
from gatecrew.gateway.handshake import Opening, Terms
from gatecrew.gateway.websocket import _DEFLATE as DEFLATE
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import CLOSING, OPEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.extensions import Extension

LOG = logging.getLogger("test.conformance")
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
MASK = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """Return a frame as a client sends it, right or wrong."""
    head = (FIN if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask is not None else 0
    if len(payload) < 126:
        start = bytes((head, bit | len(payload)))
    elif len(payload) < 1 << 16:
        start = bytes((head, bit | 126)) + len(payload).to_bytes(2)
    else:
        start = bytes((head, bit | 127)) + len(payload).to_bytes(8)
    if mask is None:
        return start + payload
    return start + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


class Said(NamedTuple):
    """What came of some bytes: messages, frames that were written, and the code of the last, if that is a close frame."""

    messages: list[str | bytes]
    written: list[tuple[int, bytes]]
    code: int | None


def said(
    stream: bytes,
    *,
    step: int | None = None,
    extensions: Sequence[Extension] = (),
    limit: int = 1 << 20,
    parts: int = 64,
) -> Said:
    """Feed an inbox, in pieces of so many bytes."""
    inbox = Inbox(limit, extensions, LOG, parts)
    step = step or len(stream)
    messages: list[str | bytes] = []
    for at in range(0, len(stream), step):
        if inbox.protocol.state is not OPEN:
            inbox.drain(stream[at : at + step])
        else:
            messages += inbox.feed(stream[at : at + step])
    written = []
    for data in inbox.protocol.data_to_send():
        if data:
            assert data[1] < 126, "no mask, and control frames are short"
            written.append((data[0] & 0xF, data[2:]))
    code = int.from_bytes(written[-1][1][:2]) if written and written[-1][0] == CLOSE and written[-1][1] else None
    assert (inbox.protocol.state is CLOSING) == any(opcode == CLOSE for opcode, _ in written)
    return Said(messages, written, code)


def fails(stream: bytes, code: int) -> bool:
    """Return whether the bytes, at once or one by one, are answered by just a close frame with this code."""
    found = [said(stream, step=step) for step in (None, 1)]
    return all(one.code == code and not one.messages and len(one.written) == 1 for one in found)


class TestMessages:
    """Group 1: messages of all sizes at which the length is written in another way."""

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
    @pytest.mark.parametrize("step", [None, 997])
    def test_of_any_size_in_any_pieces(self, size: int, step: int | None) -> None:
        stream = frame(TEXT, b"*" * size) + frame(BINARY, b"\xfe" * size)

        assert said(stream, step=step) == (["*" * size, b"\xfe" * size], [], None)

    @pytest.mark.parametrize(
        "stream",
        [
            bytes((0x82, 0xFE)) + (5).to_bytes(2) + MASK + b"12345",
            bytes((0x82, 0xFF)) + (300).to_bytes(8) + MASK + b"x" * 300,
        ],
        ids=["16 bits", "64 bits"],
    )
    def test_a_longer_length_than_is_needed_is_understood(self, stream: bytes) -> None:
        (message,) = said(stream).messages

        assert len(message) in (5, 300)

    @pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", MASK])
    def test_any_mask_will_do(self, mask: bytes) -> None:
        assert said(frame(TEXT, b"masked", mask=mask)).messages == ["masked"]

    @pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
    @pytest.mark.parametrize("size", [2, 125])
    def test_without_a_mask_all_is_wrong(self, opcode: int, size: int) -> None:
        assert fails(frame(opcode, b"\x03\xe8".ljust(size, b" "), mask=None), 1002)

    def test_a_length_that_is_no_number_is_wrong(self) -> None:
        """Section 5.2: the highest bit of 64 is 0."""
        assert said(bytes((0x82, 0xFF)) + b"\x80" + bytes(7) + MASK).code in (1002, 1009)


class TestPings:
    """Group 2: a ping is answered with what it holds, a pong by nothing."""

    @pytest.mark.parametrize("payload", [b"", b"Hello", b"\x00\xff\xfe", b"x" * 125])
    def test_pings_are_answered(self, payload: bytes) -> None:
        for step in (None, 1):
            assert said(frame(PING, payload), step=step) == ([], [(PONG, payload)], None)

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_no_control_frame_has_126_bytes(self, opcode: int) -> None:
        assert fails(frame(opcode, b"\x03\xe8".ljust(126, b" ")), 1002)

    def test_many_are_answered_in_their_order(self) -> None:
        pings = [str(number).encode() for number in range(10)]

        assert said(b"".join(frame(PING, ping) for ping in pings), step=1).written == [(PONG, ping) for ping in pings]

    def test_pongs_that_nobody_asked_for_are_nothing(self) -> None:
        assert said(frame(PONG, b"unasked") + frame(PING, b"?")).written == [(PONG, b"?")]


class TestReservedBitsAndOpcodes:
    """Groups 3 and 4."""

    @pytest.mark.parametrize("rsv", range(1, 8))
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    def test_reserved_bits_are_zero(self, rsv: int, opcode: int) -> None:
        assert fails(frame(opcode, rsv=rsv), 1002)

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    @pytest.mark.parametrize("payload", [b"", b"what"])
    def test_reserved_opcodes_are_wrong(self, opcode: int, payload: bytes) -> None:
        assert fails(frame(opcode, payload), 1002)

    def test_what_came_before_counts_and_nothing_after(self) -> None:
        found = said(frame(TEXT, b"before") + frame(5) + frame(TEXT, b"after") + frame(PING))

        assert (found.messages, found.code, len(found.written)) == (["before"], 1002, 1)


class TestFragments:
    """Group 5."""

    @pytest.mark.parametrize("step", [None, 1])
    def test_control_frames_may_stand_between(self, step: int | None) -> None:
        stream = frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(CONT, b"b", fin=False) + frame(PONG)
        stream += frame(PING, b"2") + frame(CONT, b"c") + frame(BINARY, b"whole")

        assert said(stream, step=step) == (["abc", b"whole"], [(PONG, b"1"), (PONG, b"2")], None)

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_no_control_frame_is_fragmented(self, opcode: int) -> None:
        assert fails(frame(opcode, fin=False), 1002)

    @pytest.mark.parametrize("fin", [True, False])
    def test_nothing_goes_on_that_has_not_begun(self, fin: bool) -> None:
        assert fails(frame(CONT, b"what?", fin=fin), 1002)
        after = said(frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(CONT, b"c", fin=fin))
        assert (after.messages, after.code) == (["ab"], 1002)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("fin", [True, False])
    def test_no_message_begins_within_another(self, opcode: int, fin: bool) -> None:
        assert fails(frame(TEXT, b"a", fin=False) + frame(opcode, b"b", fin=fin), 1002)

    @given(st.text(max_size=40), st.lists(st.integers(0, 200), max_size=6), st.sampled_from([None, 1, 3]))
    def test_a_text_may_be_cut_anywhere(self, text: str, cuts: list[int], step: int | None) -> None:
        payload = text.encode()
        places = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
        pieces = [payload[a:b] for a, b in itertools.pairwise(places)]
        stream = b"".join(
            frame(CONT if at else TEXT, piece, fin=at == len(pieces) - 1) for at, piece in enumerate(pieces)
        )

        assert said(stream, step=step) == ([text], [], None)

    def test_a_message_has_so_many_fragments_and_no_more(self) -> None:
        begin, go_on, end = frame(BINARY, b"a", fin=False), frame(CONT, b"b", fin=False), frame(CONT, b"c")

        assert said(begin + go_on * 2 + end + begin + go_on * 2 + end, parts=4).messages == [b"abbc", b"abbc"]
        found = said(begin + go_on * 3 + end, parts=4)
        assert (found.messages, found.code) == ([], 1008)

    def test_empty_fragments_count(self) -> None:
        assert said(frame(TEXT, fin=False) + frame(CONT, fin=False) * 64).code == 1008

    def test_an_inbox_knows_whether_a_message_has_begun(self) -> None:
        inbox = Inbox(1000, [], LOG)
        begun = []
        for data in (frame(TEXT, b"a"), frame(TEXT, b"a", fin=False), frame(PING), frame(CONT), b"\x81", b"\x80", MASK):
            inbox.feed(data)
            begun.append(inbox.unfinished)

        assert begun == [False, True, True, False, True, True, False]


BAD_UTF8 = {
    "a byte that begins nothing": b"\x80",
    "a byte that is never there": b"\xff",
    "overlong, two bytes": b"\xc0\xaf",
    "overlong, three bytes": b"\xe0\x80\xaf",
    "overlong, four bytes": b"\xf0\x80\x80\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "past the last code point": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "cut off by another letter": b"\xe2\x82a",
}
GOOD_UTF8 = [
    "\0",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
]
CUT_OFF = [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"]


class TestUtf8:
    """Group 6."""

    @pytest.mark.parametrize("text", [*GOOD_UTF8, "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε"])
    def test_all_that_is_utf8_is_text(self, text: str) -> None:
        for step in (None, 1):
            assert said(frame(TEXT, text.encode()), step=step).messages == [text]

    @pytest.mark.parametrize("bad", BAD_UTF8.values(), ids=BAD_UTF8)
    @pytest.mark.parametrize("before", [b"", "κόσμε".encode(), b"x" * 5000], ids=["first", "later", "late"])
    def test_what_is_not_is_1007(self, bad: bytes, before: bytes) -> None:
        assert fails(frame(TEXT, before + bad), 1007)
        assert fails(frame(TEXT, before + bad + b"after"), 1007)

    @pytest.mark.parametrize("cut", CUT_OFF)
    def test_a_letter_that_is_cut_off_at_the_end_is_1007(self, cut: bytes) -> None:
        assert fails(frame(TEXT, b"so far" + cut), 1007)
        assert fails(frame(TEXT, b"so far" + cut, fin=False) + frame(CONT), 1007)

    @pytest.mark.parametrize("bad", BAD_UTF8.values(), ids=BAD_UTF8)
    def test_a_fragment_is_judged_before_the_next_one_comes(self, bad: bytes) -> None:
        assert fails(frame(TEXT, b"so far", fin=False) + frame(CONT, bad, fin=False), 1007)

    @pytest.mark.parametrize("bad", BAD_UTF8.values(), ids=BAD_UTF8)
    @pytest.mark.parametrize("opcode", [TEXT, CONT])
    def test_the_beginning_of_a_frame_is_judged_before_its_end_comes(self, bad: bytes, opcode: int) -> None:
        text = "κόσμε".encode()
        begin = b"" if opcode == TEXT else frame(TEXT, text[:-1], fin=False)
        whole = frame(opcode, (b"" if opcode == TEXT else text[-1:]) + bad + b"and so on")

        assert fails(begin + whole[: -len("and so on")], 1007)

    def test_a_letter_may_be_cut_by_a_frame_and_its_next_part_be_wrong(self) -> None:
        assert fails(frame(TEXT, b"\xf4", fin=False) + frame(CONT, b"\x90", fin=False), 1007)

    def test_binary_messages_are_any_bytes(self) -> None:
        for bad in BAD_UTF8.values():
            assert said(frame(BINARY, bad)).messages == [bad]
            assert said(frame(BINARY, bad, fin=False) + frame(CONT, bad), step=1).messages == [bad + bad]


class TestClose:
    """Group 7: a close frame is answered with the same code, and is the last that counts."""

    @pytest.mark.parametrize(
        "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    )
    def test_codes_that_may_be_sent(self, code: int) -> None:
        payload = code.to_bytes(2) + b"bye"

        assert said(frame(CLOSE, payload)) == ([], [(CLOSE, payload)], code)

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
    def test_codes_that_may_not(self, code: int) -> None:
        assert fails(frame(CLOSE, code.to_bytes(2)), 1002)
        assert fails(frame(CLOSE, code.to_bytes(2) + b"why"), 1002)

    def test_without_a_code(self) -> None:
        assert said(frame(CLOSE)).written == [(CLOSE, b"")]

    def test_half_a_code(self) -> None:
        assert fails(frame(CLOSE, b"\x03"), 1002)

    def test_the_longest_reason(self) -> None:
        payload = b"\x03\xe8" + b"*" * 123

        assert said(frame(CLOSE, payload)).written == [(CLOSE, payload)]

    @pytest.mark.parametrize("bad", [*BAD_UTF8.values(), *CUT_OFF])
    def test_a_reason_that_is_not_utf8(self, bad: bytes) -> None:
        assert fails(frame(CLOSE, b"\x03\xe8" + bad), 1007)

    @pytest.mark.parametrize("after", [frame(TEXT, b"a"), frame(PING), frame(CLOSE), frame(5), b"\xff" * 50])
    def test_nothing_after_it_matters(self, after: bytes) -> None:
        assert said(frame(CLOSE, b"\x03\xe8") + after) == ([], [(CLOSE, b"\x03\xe8")], 1000)

    @pytest.mark.parametrize("step", [None, 1])
    def test_it_may_stand_in_the_midst_of_a_message(self, step: int | None) -> None:
        stream = frame(TEXT, b"begun", fin=False) + frame(CLOSE, b"\x03\xe8") + frame(CONT, b"never ended")

        assert said(stream, step=step) == ([], [(CLOSE, b"\x03\xe8")], 1000)


class TestSizes:
    """Groups 9 and 10: large messages, and small pieces of them."""

    @pytest.mark.parametrize("step", [None, 64, 1300, 65536])
    def test_a_mebibyte_in_one_frame_or_in_many(self, step: int | None) -> None:
        data = bytes(range(256)) * 4096
        pieces = [data[at : at + 16384] for at in range(0, len(data), 16384)]
        many = b"".join(frame(CONT if at else BINARY, piece, fin=at == 63) for at, piece in enumerate(pieces))

        assert said(frame(BINARY, data) + many, step=step).messages == [data, data]

    def test_one_byte_more_than_is_allowed(self) -> None:
        assert said(frame(BINARY, b"x" * 1001)[:20], limit=1000).code == 1009
        assert said(frame(BINARY, b"x" * 600, fin=False) + frame(CONT, b"x" * 401), limit=1000).code == 1009


def deflated(*payloads: bytes, opcode: int = TEXT, bits: int = 12, takeover: bool = True) -> bytes:
    """Return the frames of a client that compresses."""
    extension = PerMessageDeflate(False, not takeover, bits, bits)
    return b"".join(
        Frame(opcode, payload).serialize(mask=True, extensions=[extension])  # type: ignore[arg-type]
        for payload in payloads
    )


def inflater(bits: int = 12, *, takeover: bool = True) -> list[Extension]:
    return [PerMessageDeflate(not takeover, False, bits, bits)]


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class TestCompression:
    """Groups 12 and 13."""

    @pytest.mark.parametrize("bits", range(9, 16))
    @pytest.mark.parametrize("takeover", [True, False])
    @pytest.mark.parametrize("step", [None, 11])
    def test_messages_in_any_window(self, bits: int, takeover: bool, step: int | None) -> None:
        texts = [b"", b"x", b"again and again " * 500, b"again and again " * 500]
        stream = deflated(*texts, bits=bits, takeover=takeover)
        found = said(stream, step=step, extensions=inflater(bits, takeover=takeover))

        assert found == ([text.decode() for text in texts], [], None)

    def test_a_compressed_message_may_be_fragmented_and_pinged_within(self) -> None:
        body = raw_deflate("πολλά ".encode() * 100)
        stream = frame(TEXT, body[:5], fin=False, rsv=4) + frame(PING) + frame(CONT, body[5:9], fin=False)
        stream += frame(CONT, body[9:])

        for step in (None, 1):
            assert said(stream, step=step, extensions=inflater()) == (["πολλά " * 100], [(PONG, b"")], None)

    @pytest.mark.parametrize(
        ("stream", "code"),
        [
            (frame(TEXT, raw_deflate(b"a"), fin=False, rsv=4) + frame(CONT, b"", rsv=4), 1002),
            (frame(PING, rsv=4), 1002),
            (frame(TEXT, b"\xff\xff\xff\xff", rsv=4), 1002),
            (frame(TEXT, raw_deflate(b"a"), rsv=6), 1002),
            (frame(TEXT, raw_deflate(b"\xff"), rsv=4), 1007),
            (frame(TEXT, raw_deflate(b"\xff"), fin=False, rsv=4), 1007),
        ],
        ids=[
            "the bit again",
            "a control frame",
            "no deflate",
            "another bit",
            "not UTF-8",
            "a fragment that is not UTF-8",
        ],
    )
    def test_what_is_wrong_with_compression(self, stream: bytes, code: int) -> None:
        found = said(stream, extensions=inflater())

        assert (found.messages, found.code) == ([], code)

    def test_without_it_a_compressed_frame_is_wrong(self) -> None:
        assert fails(frame(TEXT, raw_deflate(b"a"), rsv=4), 1002)

    @pytest.mark.parametrize("fin", [True, False])
    def test_a_bomb_is_not_inflated_beyond_the_limit(self, fin: bool) -> None:
        bomb = raw_deflate(bytes(50 << 20))
        assert len(bomb) < 60_000
        inbox = Inbox(100_000, inflater(), LOG)
        inbox.feed(frame(BINARY, bomb, fin=fin, rsv=4))

        assert inbox.protocol.close_sent is not None
        assert inbox.protocol.close_sent.code == 1009
        assert inbox.inflated == 0

    def test_a_bomb_of_fragments_is_not_either(self) -> None:
        body = raw_deflate(bytes(10 << 20))
        pieces = [body[at : at + 10] for at in range(0, len(body), 10)]
        stream = b"".join(
            frame(CONT if at else BINARY, piece, fin=False, rsv=0 if at else 4) for at, piece in enumerate(pieces)
        )
        inbox = Inbox(100_000, inflater(), LOG, len(pieces) + 1)
        inbox.feed(stream)

        assert inbox.protocol.close_sent is not None
        assert inbox.protocol.close_sent.code == 1009
        assert 0 < inbox.inflated <= 101_000

    @pytest.mark.parametrize(
        ("offer", "answer"),
        [
            ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
            (
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            ),
            (
                "permessage-deflate; client_max_window_bits=9",
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=9",
            ),
            ("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9"),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
            ),
            ("permessage-deflate; server_max_window_bits=8", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=x", None),
            ("permessage-deflate; unheard_of", None),
            ("permessage-deflate; server_max_window_bits=10; server_max_window_bits=11", None),
            ("permessage-brotli", None),
            (
                "permessage-deflate; unheard_of, permessage-deflate; server_max_window_bits=10",
                "permessage-deflate; server_max_window_bits=10",
            ),
        ],
    )
    def test_parameters_are_agreed_on(self, offer: str, answer: str | None) -> None:
        opening = Opening(Terms((), [DEFLATE], None, LOG))
        found = opening.feed(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: " + offer.encode() + b"\r\n\r\n"
        )

        assert found is not None
        assert found.status == 101
        lines = found.response.decode().split("\r\n")
        agreed = [line.partition(": ")[2] for line in lines if line.startswith("Sec-WebSocket-Extensions: ")]
        assert agreed == ([answer] if answer else [])
        assert bool(found.extensions) == bool(answer)
