"""The pages for developers: their examples work as far as they go, nothing public is forgotten, and what they name is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatecrew
import pytest
from gatecrew import App, BlockingCluster, Client, Cluster, Group, Request, Uid
from gatecrew.business.app import KINDS
from gatecrew.common.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Run the examples of a page one after the other, as one module."""
    names: dict[str, Any] = {"__name__": page}
    for example in examples(page):
        exec(compile(example, page, "exec"), names)
    return names


def test_the_examples_of_handlers_are_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "printed by openssl rand -hex 32, as it were")
    app = run("handlers.md")["app"]

    assert {kind for kind in KINDS if app.functions(kind)} == {"handshake", "connect", "message", "error"}
    assert [(timer.seconds, timer.once) for timer in app.timers()] == [(60, False), (1, True)]


def test_the_example_of_a_test_passes() -> None:
    run("testing.md")["test_the_lobby_survives_a_worker"]()


def test_the_protocol_of_the_example_keeps_the_rules() -> None:
    run("protocols.md")["test_blocks"]()


def test_the_examples_of_the_api_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gatecrew.toml").touch()

    assert {"announce", "shipped"} <= run("api.md").keys()


@pytest.mark.parametrize("cls", [App, Client, Request, Group, Uid, Cluster, BlockingCluster])
def test_every_public_call_and_attribute_is_described(cls: type) -> None:
    internal = {
        App: {"family", "decide", "functions", "handler", "timers", "run_by"},
        Client: {
            *("busy", "gateway", "mailbox", "number", "source"),
            *("learn", "rebind", "replace_session", "request", "restore", "saved", "session_change", "update_session"),
        },
        Request: {"count", "index"},
        Cluster: {"deliver", "disconnect"},
    }.get(cls, set())
    public = {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}
    described = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", (DOCS / "api.md").read_text()))))

    assert internal <= public, "nothing that is gone is named here"
    assert public - internal <= described


def test_calls_are_described_as_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)\((.*?)\)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    calls = [(name, given) for name, given in rows if hasattr(App, name)]

    assert len(calls) > 30
    for name, given in calls:
        parameters = list(inspect.signature(getattr(App, name)).parameters.values())[1:]
        shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
        assert (name, given.replace('"', "'")) == (name, ", ".join(shown))


def test_every_public_name_is_described() -> None:
    text = (DOCS / "api.md").read_text()

    assert [name for name in gatecrew.__all__ if not name.startswith("_") and f"`{name}" not in text] == []


def bounds() -> list[str]:
    """Return the rows of the tables of bounds."""
    return re.findall(r"^\| (?!what \||---).*", (DOCS / "bounds.md").read_text(), re.MULTILINE)


def names_in(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        inside = node.body if isinstance(node, ast.ClassDef) else []
        found |= {f"{node.name}::{one.name}" for one in inside if hasattr(one, "name")}  # type: ignore[attr-defined]
        found.add(getattr(node, "name", ""))
    return found


def lost(tests: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return which of these tests, each a path and a name, are not there."""
    return [(path, name) for path, name in tests if name not in names_in(ROOT / "tests" / path)]


def test_each_bound_is_reached_by_a_test() -> None:
    named = [re.search(r" `([\w/]+\.py)::([\w:]+)` \|$", row) for row in bounds()]

    assert len(named) > 50
    assert [row for row, test in zip(bounds(), named, strict=True) if test is None] == []
    assert lost((test[1], test[2]) for test in named if test) == []


def test_each_guarantee_is_shown_by_a_test() -> None:
    text = (DOCS / "guarantees.md").read_text()
    rows = re.findall(r"^\| (?!guaranteed|---).*", text, re.MULTILINE)
    tests = re.findall(r"`([\w/]+\.py)::([\w:]+)`", text)

    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"::\w+` \|$", row)] == []
    assert lost(tests) == []


def test_what_the_bounds_name_is_there() -> None:
    text = "\n".join(bounds())
    folders = ("common", "register", "gateway", "business")
    source = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).glob("*.py"))
    keys = re.findall(r"`\[(\w+)\] (\w+)`", text)
    constants = re.findall(r"`(_?[A-Z][A-Z_]+)`", text)
    counters = re.findall(r"`[a-z]+\.([a-z_]+)`", text)

    assert keys
    assert [key for section, key in keys if not hasattr(getattr(Config(), section), key)] == []
    assert constants
    assert [name for name in constants if not re.search(rf"^{name}: Final", source, re.MULTILINE)] == []
    assert counters
    assert [name for name in counters if not re.search(rf"[\".]{name}\"", source)] == []


def test_each_threat_is_met_by_a_test() -> None:
    rows = re.findall(r"^\| (?!threat|---).*", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    named = [re.search(r" `([\w/]+\.py)::([\w:]+)` \|$", row) for row in rows]

    assert len(named) > 30
    assert [row for row, test in zip(rows, named, strict=True) if test is None] == []
    assert lost((test[1], test[2]) for test in named if test) == []
