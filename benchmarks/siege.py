"""Let strangers do their worst to a cluster beside honest clients, and see what those notice.

    python -m gatecrew.benchmarks.siege [--seconds 300] [--rate 1000]

The strangers are a process of their own and come from 127.0.0.2. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import zlib
from collections import Counter
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import uvloop

from .chaos.ledger import quantile
from .chaos.load import UPGRADE, masked
from .chaos.stage import GATEWAYS, a_stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .chaos.stage import Stage

MIB: Final = 1 << 20
CLIENTS: Final = 200  # honest ones
CONNECTS: Final = 20_000
STRANGERS: Final = "127.0.0.2"
TEXT, BINARY, PING = 0x81, 0x82, 0x89
COMPRESSED: Final = 0x40
_COUNTED: Final = ("closed.", "handshake.", "aborted.", "clients.", "link.", "discarded.")


# The strangers


class Stranger:
    """One connection of somebody who means no good."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def upgrade(self, *headers: bytes) -> None:
        """Open a WebSocket."""
        await self.send(UPGRADE[:-2] + b"".join(headers) + b"\r\n")
        await self.reader.readuntil(b"\r\n\r\n")

    async def repeat(self, data: bytes, pause: float = 0.0) -> None:
        """Send the same again and again until it is cut off, and read what comes."""
        reading = asyncio.ensure_future(self.drain())
        try:
            while not reading.done():
                await self.send(data)
                await asyncio.sleep(pause)
        finally:
            reading.cancel()

    async def drain(self) -> None:
        """Read until it is cut off."""
        while await self.reader.read(MIB):
            pass


def _large(head: int, payload: bytes) -> bytes:
    return bytes((head, 0xFF)) + len(payload).to_bytes(8) + bytes(4) + payload


def _bomb() -> bytes:
    squeeze = zlib.compressobj(9, wbits=-12)
    return _large(BINARY | COMPRESSED, (squeeze.compress(bytes(200 * MIB)) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4])


async def _slow_handshakes(stranger: Stranger) -> None:
    for byte in UPGRADE[:-2] + b"X-Slow: " + b"x" * 1000:
        await stranger.send(bytes((byte,)))
        await asyncio.sleep(0.3)


async def _half_open(stranger: Stranger) -> None:
    await stranger.drain()


async def _junk(stranger: Stranger) -> None:
    await stranger.send(os.urandom(4096))
    await stranger.drain()


async def _endless_headers(stranger: Stranger) -> None:
    await stranger.send(UPGRADE[:-2])
    await stranger.repeat(b"X-More: " + b"x" * 1000 + b"\r\n")


async def _giant_frames(stranger: Stranger) -> None:
    await stranger.upgrade()
    await stranger.repeat(_large(TEXT, b"z" * MIB))


async def _too_large_frames(stranger: Stranger) -> None:
    await stranger.upgrade()
    await stranger.repeat(bytes((BINARY, 0xFF)) + (1 << 40).to_bytes(8) + bytes(4))


async def _tiny_frames(stranger: Stranger) -> None:
    await stranger.upgrade()
    await stranger.repeat(masked(TEXT, b"z") * 5000)


async def _empty_fragments(stranger: Stranger) -> None:
    await stranger.upgrade()
    await stranger.send(masked(0x01, b"z"))
    await stranger.repeat(masked(0x00, b"") * 500)


async def _pings(stranger: Stranger) -> None:
    await stranger.upgrade()
    await stranger.repeat(masked(PING, b"x" * 125) * 500)


async def _bad_utf8(stranger: Stranger) -> None:
    await stranger.upgrade()
    await stranger.repeat(masked(TEXT, b"good so far \xed\xa0\x80"), 0.1)


async def _bombs(stranger: Stranger, bomb: bytes) -> None:
    await stranger.upgrade(b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    await stranger.repeat(bomb, 0.1)


async def _never_reads(stranger: Stranger) -> None:
    await stranger.upgrade()
    while True:
        await stranger.send(masked(TEXT, b"f100000"))
        await asyncio.sleep(0.01)


async def _connects(stranger: Stranger, random: Random) -> None:
    if random.random() < 0.5:
        await stranger.upgrade()


#: What they do, and how many at a time do so.
MIX: Final[dict[str, tuple[int, Callable[[Stranger], Awaitable[None]]]]] = {
    "slow handshakes": (100, _slow_handshakes),
    "half-open connections": (200, _half_open),
    "junk": (3, _junk),
    "endless headers": (2, _endless_headers),
    "giant frames": (2, _giant_frames),
    "too large frames": (3, _too_large_frames),
    "tiny frames": (3, _tiny_frames),
    "empty fragments": (3, _empty_fragments),
    "ping floods": (3, _pings),
    "bad UTF-8": (3, _bad_utf8),
    "compression bombs": (3, partial(_bombs, bomb=_bomb())),
    "clients that never read": (3, _never_reads),
}


CONNECT: Final = "connects"
KNOCKS: Final = "junk on internal ports"
ALL: Final = (*MIX, CONNECT, KNOCKS)


async def _attack(
    ports: list[int], random: Random, act: Callable[[Stranger], Awaitable[None]], done: Callable[[], None]
) -> None:
    """Connect, do it, and count that it came to an end."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        port = random.choice(ports)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(STRANGERS, 0))
        try:
            await act(Stranger(reader, writer))
        finally:
            writer.transport.abort()
    done()


async def _again_and_again(
    ports: list[int], random: Random, act: Callable[[Stranger], Awaitable[None]], done: Callable[[], None]
) -> None:
    while True:
        await _attack(ports, random, act, done)
        await asyncio.sleep(random.uniform(0.1, 0.5))


async def _knock(sockets: list[str], random: Random, done: Callable[[], None]) -> None:
    """Send junk to where only processes of the cluster should come."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(random.choice(sockets))
            writer.write(random.choice([os.urandom(4096), b"\xff\0\0\0\0\0\0\0\1\x7f\3", b"GET / HTTP/1.1\r\n\r\n"]))
            await asyncio.sleep(0.05)
            writer.transport.abort()
        done()
        await asyncio.sleep(0.05)


async def besiege(
    seconds: float, ports: list[int], sockets: list[str], seed: int, only: frozenset[str]
) -> Counter[str]:
    """Do all of it for so long, and return how often each came to an end."""
    random, ends = Random(seed), Counter[str]()

    def counter(name: str) -> Callable[[], None]:
        return lambda: ends.update([name])

    tasks = [
        asyncio.ensure_future(_again_and_again(ports, random, act, counter(name)))
        for name, (number, act) in MIX.items()
        if name in only
        for _ in range(number)
    ]
    if KNOCKS in only:
        tasks.append(asyncio.ensure_future(_knock(sockets, random, counter(KNOCKS))))
    start = asyncio.get_running_loop().time()
    connects: set[asyncio.Task[None]] = set()
    begun = 0
    while (passed := asyncio.get_running_loop().time() - start) < seconds:
        due = (CONNECT in only) * min(CONNECTS, int(CONNECTS * passed / (0.95 * seconds)))
        for _ in range(min(due - begun, 500)):  # as many sockets as there may be at a time
            begun += 1
            act = partial(_connects, random=random)
            task = asyncio.ensure_future(_attack(ports, random, act, counter(CONNECT)))
            connects.add(task)
            task.add_done_callback(connects.discard)
        await asyncio.sleep(0.01)
    for task in (*tasks, *connects):
        task.cancel()
    await asyncio.gather(*tasks, *connects, return_exceptions=True)
    return ends


# The cluster and the honest


async def _memory(stage: Stage) -> int:
    return sum(stage.memory(name) for name in GATEWAYS)


async def _counters(stage: Stage) -> Counter[str]:
    total: Counter[str] = Counter()
    for name in GATEWAYS:
        total += await stage.stats(name)
    return Counter({key: value for key, value in total.items() if key.startswith(_COUNTED)})


async def hold_out(stage: Stage, seconds: float, seed: int, only: str) -> list[str]:
    """Measure in peace, during the siege, and after it; return the scoreboard."""
    load = stage.load
    before: list[float] = []
    during: list[float] = []
    load.waits = before
    await asyncio.sleep(min(10, seconds / 3))
    memory = peak = await _memory(stage)
    counted = await _counters(stage)
    load.waits = during
    sockets = [str(path) for path in (stage.crew.folder / "run").glob("gateway-*.sock")]
    ports = [stage.crew.processes[name].url.rpartition(":")[2] for name in GATEWAYS]
    command = [
        sys.executable,
        "-m",
        "gatecrew.benchmarks.siege",
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
        "--only",
        only,
    ]
    strangers = await asyncio.create_subprocess_exec(
        *command, "--ports", *ports, "--sockets", *sockets, stdout=asyncio.subprocess.PIPE
    )
    try:
        said = asyncio.ensure_future(strangers.communicate())
        while not said.done():
            await asyncio.wait([said], timeout=0.2)
            peak = max(peak, await _memory(stage))
    finally:
        if strangers.returncode is None:
            strangers.terminate()
    ends: dict[str, int] = json.loads((await said)[0])
    load.waits = None
    after = await _memory(stage)
    for _ in range(100):  # those that hang have to be given up first
        if after <= 1.1 * memory:
            break
        await asyncio.sleep(0.2)
        after = await _memory(stage)
    told = await _counters(stage) - counted
    p99 = [quantile(waits, 0.99) for waits in (before, during)]
    stage.check(p99[1] < 2 * p99[0], "p99 of the honest doubled")
    stage.check(after <= 1.1 * memory, "memory is not back within 10 %")
    latency = [
        f"p50 {1000 * quantile(waits, 0.5):.1f} ms, p99 {1000 * quantile(waits, 0.99):.1f} ms"
        for waits in (before, during)
    ]
    return [
        f"latency   {latency[0]} in peace; {latency[1]} in the siege",
        f"memory    of the gateways {memory / MIB:.0f} MiB before, {peak / MIB:.0f} MiB at most, {after / MIB:.0f} MiB after",
        "strangers " + ", ".join(f"{name} {ends[name]}" for name in ends),
        "counted   " + ", ".join(f"{name} {number}" for name, number in sorted(told.items())),
    ]


async def run(seconds: float, rate: int, seed: int, only: str) -> int:
    """Run it, and return the exit code."""
    settings = {"gateway_compression": "true", "gateway_rate_patience": str(min(30.0, seconds / 4))}
    async with a_stage(CLIENTS, rate, 0, Random(seed), settings=settings, proxied=False, supervised=False) as stage:
        lines = await hold_out(stage, seconds, seed, only)
    ledger, cut_off = stage.load.ledger, len(stage.load.cut_off)
    stage.check(not ledger.lost, "lost")
    stage.check(not ledger.reordered, "reordered")
    stage.check(not cut_off, "cut off")
    print(
        f"honest    {ledger.sent} messages, {ledger.lost} lost, {ledger.reordered} reordered, {cut_off} clients cut off"
    )
    print(*lines, *(f"FAIL: {failure}" for failure in stage.failures), sep="\n")
    print("FAIL" if stage.failures else "pass")
    return int(bool(stage.failures))


def main() -> int:
    """Read the command line and run; with ``--ports``, be the strangers."""
    parser = argparse.ArgumentParser(
        prog="siege", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300, help="for which it lasts: %(default)s")
    parser.add_argument("--rate", type=int, default=1000, help="honest messages a second in all: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the choices: %(default)s")
    parser.add_argument("--only", default=",".join(ALL), help="some of: %(default)s")
    parser.add_argument("--ports", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--sockets", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    only = frozenset(chosen.only.split(","))
    if not only <= set(ALL):
        parser.error(f"--only: {', '.join(sorted(only - set(ALL)))}: expected {', '.join(ALL)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends what it started
    if chosen.ports:
        os.nice(10)  # strangers have machines of their own
        print(json.dumps(uvloop.run(besiege(chosen.seconds, chosen.ports, chosen.sockets, chosen.seed, only))))
        return 0
    return uvloop.run(run(chosen.seconds, chosen.rate, chosen.seed, chosen.only))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("siege: interrupted")
