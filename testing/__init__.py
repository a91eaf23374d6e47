"""A kit for tests of handler modules: a whole cluster in one thread and in virtual time. See ``docs/testing.md``."""

from .clients import Closed, Guest
from .clock import Failed, Stuck
from .simulation import Simulation, simulate

__all__ = ["Closed", "Failed", "Guest", "Simulation", "Stuck", "simulate"]
