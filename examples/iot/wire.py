"""What the thermometers speak: four bytes, which are JSON to the handlers and to the browsers."""

import json
import struct
from collections.abc import Iterator

NAMES = {b"T": "celsius", b"S": "setpoint"}


class Thermometer:
    """A letter, tenths of a degree in two bytes, and the sum of the three. A zero byte is a sign of life."""

    def __init__(self, max_message: int) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[str | None]:
        self.rest += data
        while self.rest:
            size = 4 if self.rest[0] else 1
            if len(self.rest) < size:
                return
            record, self.rest = self.rest[:size], self.rest[size:]
            yield decode(record) if size == 4 else None

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        match json.loads(message):
            case {"celsius": int() | float() as degrees} if -300 < degrees < 3000:
                kind = b"T"
            case {"setpoint": int() | float() as degrees} if -300 < degrees < 3000:
                kind = b"S"
            case other:
                raise ValueError(f"{other} is nothing for a thermometer")
        record = kind + struct.pack("!h", round(degrees * 10))
        return record + bytes([sum(record) % 256])


def decode(record: bytes) -> str:
    kind, tenths, check = struct.unpack("!chB", record)
    if kind not in NAMES or sum(record[:3]) % 256 != check:
        raise ValueError(f"{record.hex()} is no record of a thermometer")
    return json.dumps({NAMES[kind]: tenths / 10})
