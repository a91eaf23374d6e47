"""Waiting for what nobody tells."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Return when something is true."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # nobody tells when it is
            await asyncio.sleep(0.005)
