"""What a process shows of itself when it is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .histogram import Histogram


class Observation(NamedTuple):
    """One look at a process."""

    unready: str  #: why it cannot serve; empty if it can
    stats: Mapping[str, Any]  #: what it counts, and how much there is of what
    handlers: Mapping[str, Histogram] = {}  #: how long they take, by name
