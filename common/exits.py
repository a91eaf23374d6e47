"""How processes end: the exit codes of all commands, and what an exit code says."""

from __future__ import annotations

import signal
from enum import IntEnum

from .errors import ConfigError, GatecrewError


class Exit(IntEnum):
    """How a command ended."""

    FINE = 0
    FAILED = 1
    USAGE = 2  #: the command line or the configuration is wrong: trying again is of no use

    @classmethod
    def of(cls, error: GatecrewError) -> Exit:
        """Return the exit code for this error."""
        return cls.USAGE if isinstance(error, ConfigError) else cls.FAILED

    def error(self, text: str) -> GatecrewError:
        """Return an error that has this exit code."""
        return ConfigError(text) if self is Exit.USAGE else GatecrewError(text)


def ending(code: int) -> str:
    """Say how a process ended, to follow its name.

    Args:
        code: its exit code, or minus the number of the signal that killed it.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"
