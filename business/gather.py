"""The answers to one question, gathered from several gateways. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Gather:
    """One question, until everybody answered or it is known who will not.

    Args:
        asked: the names of those who are asked, by key, in the order of :attr:`answers`.
    """

    def __init__(self, asked: Mapping[str, str]) -> None:
        self._names = dict(asked)
        self._waiting = dict(asked)
        self._answers: dict[str, Any] = {}
        self.refusals: list[str] = []  #: who does not answer, and why
        self.finished: Callable[[], object] = lambda: None  #: called when nothing more is waited for

    @property
    def complete(self) -> bool:
        """Whether nothing more is waited for."""
        return not self._waiting

    @property
    def answers(self) -> list[Any]:
        """The answers, in the order of those who were asked."""
        return [self._answers[key] for key in self._names if key in self._answers]

    @property
    def missing(self) -> list[str]:
        """The names of those who did not answer."""
        return [name for key, name in self._names.items() if key not in self._answers]

    def answered(self, key: str, answer: Any) -> None:  # each question has its own kind of answer
        """Take an answer; one that was not waited for is ignored."""
        if self._waiting.pop(key, None) is not None:
            self._answers[key] = answer
            self._see()

    def refused(self, key: str, why: str) -> None:
        """Take note that somebody says why it does not answer."""
        if self._waiting.pop(key, None) is not None:
            self.refusals.append(f"{self._names[key]}: {why}")
            self._see()

    def failed(self, key: str) -> None:
        """Take note that somebody will not answer."""
        if self._waiting.pop(key, None) is not None:
            self._see()

    def left(self, key: str) -> None:
        """Take note that somebody left before it answered, and has nothing to say any more: it is not missing."""
        if self._waiting.pop(key, None) is not None:
            del self._names[key]
            self._see()

    def give_up(self) -> None:
        """Wait for nobody any more: the deadline is over."""
        if self._waiting:
            self._waiting.clear()
            self._see()

    def _see(self) -> None:
        if not self._waiting:
            self.finished()
