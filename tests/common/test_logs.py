"""What processes log, as lines of text and of JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from gatecrew.common import logs
from gatecrew.common.config import LogConfig
from gatecrew.common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger("gatecrew.test")


class SetUp(Protocol):
    def __call__(self, name: str = "worker-1", **settings: str) -> Callable[[], list[str]]: ...


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[SetUp]:
    """Set logging up with these settings, and a file; what is returned reads its lines."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    for handler in handlers:
        root.removeHandler(handler)  # or it would be closed
    path = tmp_path / "log"

    def start(name: str = "worker-1", **settings: str) -> Callable[[], list[str]]:
        logs.set_up(LogConfig(**{"file": str(path), **settings}), role="worker", name=name)
        return lambda: path.read_text().splitlines()

    yield start
    logging.captureWarnings(capture=False)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for handler in handlers:
        root.addHandler(handler)


def only(lines: list[str]) -> dict[str, Any]:
    (line,) = lines
    event: dict[str, Any] = json.loads(line)
    return event


def test_text_has_time_level_name_and_message(set_up: SetUp) -> None:
    lines = set_up()
    _log.info("%d clients", 3, extra={"colour": "red"})

    (line,) = lines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(rf"{time} INFO worker-1\[{os.getpid()}\]: 3 clients colour=red", line)


def test_a_name_may_have_a_percent_sign(set_up: SetUp) -> None:
    lines = set_up(name="100%")
    _log.info("here")

    assert lines()[0].endswith(f" INFO 100%[{os.getpid()}]: here")


def test_text_has_the_traceback_below(set_up: SetUp) -> None:
    lines = set_up()
    try:
        raise KeyError("gone")
    except KeyError:
        _log.exception("a handler failed")

    assert lines()[0].endswith("a handler failed")
    assert lines()[-1] == "KeyError: 'gone'"


def test_json_is_one_object_a_line(set_up: SetUp) -> None:
    lines = set_up(format="json")
    try:
        raise KeyError("gone")
    except KeyError:
        _log.exception("a handler\nfailed", extra={"client": "abc", "role": "liar"}, stack_info=True)

    event = only(lines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time"))
    assert event.pop("exception").endswith("KeyError: 'gone'")
    assert event.pop("stack").startswith("Stack (most recent call last)")
    assert event.pop("pid") > 0
    assert event == {
        "level": "error",
        "logger": "gatecrew.test",
        "role": "worker",
        "name": "worker-1",
        "message": "a handler\nfailed",
        "client": "abc",
    }


def test_json_says_whatever_came_along(set_up: SetUp) -> None:
    lines = set_up(format="json")
    _log.info("here", extra={"thing": {1, 2}, "map": {(1, 2): 3, "ok": b"x"}})

    event = only(lines())
    assert event["thing"] == "{1, 2}"
    assert event["map"] == {"ok": "b'x'"}


@pytest.mark.parametrize("format_", ["text", "json"])
def test_no_character_is_too_strange(set_up: SetUp, format_: str) -> None:
    lines = set_up(format=format_)
    _log.info("grüße \udcff 🎉")

    (line,) = lines()
    message = json.loads(line)["message"] if format_ == "json" else line
    assert message.endswith("grüße \udcff 🎉" if format_ == "json" else "grüße \\udcff 🎉")


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_left_out(set_up: SetUp, level: str, count: int) -> None:
    lines = set_up(level=level)
    for said in ("debug", "info", "warning", "error"):
        getattr(_log, said)("here")

    assert len(lines()) == count


def test_warnings_of_python_are_logged(set_up: SetUp) -> None:
    lines = set_up()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        set_up()
        warnings.warn("old", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)

    assert "UserWarning: old" in lines()[0]


def test_a_second_set_up_replaces_the_first(set_up: SetUp, tmp_path: Path) -> None:
    first = set_up()
    set_up(file=str(tmp_path / "second"))
    _log.info("here")

    assert first() == []
    assert len((tmp_path / "second").read_text().splitlines()) == 1


def test_a_file_that_was_moved_away_is_opened_anew(set_up: SetUp, tmp_path: Path) -> None:
    lines = set_up()
    _log.info("before")
    (tmp_path / "log").rename(tmp_path / "log.1")
    _log.info("after")

    assert lines()[0].endswith("after")
    assert (tmp_path / "log.1").read_text().endswith("before\n")


def test_without_a_file_it_is_standard_error(set_up: SetUp, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(file="")
    _log.info("here")

    assert capsys.readouterr().err.endswith(f"INFO worker-1[{os.getpid()}]: here\n")


def test_a_file_that_cannot_be_opened_is_named(set_up: SetUp, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\[log\] file: cannot open .*/none/log: No such file or directory$"):
        set_up(file=str(tmp_path / "none" / "log"))
