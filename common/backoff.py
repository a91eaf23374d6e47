"""How long to wait before something that failed is tried again. Pure: times and random numbers are passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays that double from failure to failure, and begin anew after a time of health.

    Each is shortened by up to a half at random, so that processes that failed together do not come back together.
    """

    first: float = 0.2  #: seconds
    longest: float = 30.0  #: seconds
    healthy: float = 60.0  #: what was up for so many seconds is forgiven
    failures: int = 0  #: in a row

    def failed(self, uptime: float, random: float) -> float:
        """Return the seconds to wait after one more failure.

        Args:
            uptime: seconds for which it worked before it failed.
            random: a number of [0, 1).
        """
        if uptime >= self.healthy:
            self.failures = 0
        # the exponent is bounded because a float is, after some thousand failures
        delay = min(self.longest, self.first * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return delay * (1 - random / 2)
