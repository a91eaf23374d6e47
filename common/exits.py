"""The exit codes of all commands."""

from __future__ import annotations

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
