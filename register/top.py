"""``gatecrew top``: all processes of the cluster, again and again, on the whole screen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import time
import tty
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..common.errors import GatecrewError
from ..common.ids import new_key
from ..common.link import Node
from . import status
from .agent import Agent, link_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from ..common.config import Config

#: Another screen, without the cursor, and back again: what stood in the terminal before is untouched.
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_REVERSE: Final = "\x1b[7m"
_PLAIN: Final = "\x1b[m"


class _Used(NamedTuple):
    """How much of a processor a process had used when."""

    at: float
    seconds: float


class Top:
    """What is shown, made of what processes announce."""

    def __init__(self) -> None:
        self._used: dict[str, _Used] = {}

    def lines(self, members: Sequence[Mapping[str, Any]], now: float) -> list[str]:
        """Return the lines: the whole cluster, the head of the table, the processes, in order of their names.

        Args:
            members: as :func:`~.status.ask` returns them.
            now: Unix time in seconds.
        """
        shares = {member["key"]: self._share(member, now) for member in members}
        self._used = {key: used for key, used in self._used.items() if key in shares}
        columns = [*(name for name, _ in status.COLUMNS), "CPU", "ERRORS"]
        rows = [columns]
        for member in sorted(members, key=lambda member: (member["role"], member["name"])):
            cells = [show(member, now) for _, show in status.COLUMNS]
            rows.append([*cells, shares[member["key"]], status.figure(member, "errors")])
        return [self._summary(members, now), *status.aligned(rows, words=2)]

    def _share(self, member: Mapping[str, Any], now: float) -> str:
        """Return the share of a processor that a process used since it was last looked at."""
        if "cpu" not in member:
            return status.MISSING
        used = _Used(now - member["age"], member["cpu"])
        before = self._used.get(member["key"], _Used(member["started"], 0.0))
        if used.at - before.at < 0.25:  # it has announced nothing since
            used = before
        self._used[member["key"]] = used
        seconds = used.at - before.at
        return f"{max(0.0, 100 * (used.seconds - before.seconds) / seconds):.0f}%" if seconds > 0 else status.MISSING

    @staticmethod
    def _summary(members: Sequence[Mapping[str, Any]], now: float) -> str:
        roles = Counter(member["role"] for member in members)
        gateways = [member for member in members if member["role"] == "gateway"]
        counts = [f"{number} {role}{'s'[: number != 1]}" for role, number in sorted(roles.items())]
        clients = sum(member.get("connections", 0) for member in gateways)
        rate = sum(member.get("events_per_second", 0) for member in gateways)
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        return f"{clock}  {', '.join(counts)}  {clients} client{'s'[: clients != 1]}  {rate:.0f} events/s"


def fitted(lines: Sequence[str], width: int, height: int) -> list[str]:
    """Return as much of the lines as fits the terminal, and how many lines did not."""
    cut = [line[:width] for line in lines]
    if len(cut) > height:
        missing = len(cut) - height + 1
        cut[height - 1 :] = [f"... and {missing} more"[:width]]
    return cut


def run(config: Config, every: float, count: int | None) -> None:
    """Show it until ``q`` or Ctrl-C, or so many times; plain, one below the other, if standard output is no terminal.

    Raises:
        GatecrewError: if no register answers at first.
    """
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(config, every, count))


async def _run(config: Config, every: float, count: int | None) -> None:
    addresses = config.cluster.register_addresses()
    agent = Agent(Node("caller", "top", new_key()), link_settings(config), addresses, announce=False)
    leave = asyncio.Event()
    top = Top()
    try:
        members = await status.gather(agent, addresses)
        with _screen(sys.stdout, leave) if sys.stdout.isatty() else contextlib.nullcontext():
            for number in range(1, sys.maxsize):
                _show(sys.stdout, top.lines(members, time.time()))
                if number == count:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await leave.wait()
                        return
                with contextlib.suppress(GatecrewError):  # what was known last is shown until a register is back
                    members = await status.gather(agent, addresses)
    finally:
        await agent.close()


def _show(out: TextIO, lines: Sequence[str]) -> None:
    if not out.isatty():
        out.write("\n".join([*lines, "", ""]))
    else:
        size = shutil.get_terminal_size()
        shown = fitted(lines, size.columns, size.lines)
        if "NO_COLOR" not in os.environ and len(shown) > 1:
            shown[1] = f"{_REVERSE}{shown[1].ljust(size.columns)}{_PLAIN}"
        out.write(_HOME + f"{_REST_OF_LINE}\r\n".join(shown) + _REST_OF_LINE + _REST_OF_SCREEN)
    out.flush()


@contextlib.contextmanager
def _screen(out: TextIO, leave: asyncio.Event) -> Iterator[None]:
    """Take the whole screen, and listen for ``q``."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        loop.add_signal_handler(signal.SIGTERM, leave.set)
        if sys.stdin.isatty():
            keys = sys.stdin.fileno()
            undo.callback(termios.tcsetattr, keys, termios.TCSADRAIN, termios.tcgetattr(keys))
            tty.setcbreak(keys)

            def pressed() -> None:
                if os.read(keys, 64).lower() in (b"q", b""):
                    leave.set()

            loop.add_reader(keys, pressed)
            undo.callback(loop.remove_reader, keys)
        out.write(_ENTER)
        undo.callback(out.flush)
        undo.callback(out.write, _LEAVE)
        yield
