"""The pages for developers: their examples work as far as they go, and nothing public is forgotten."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import gatecrew
import pytest
from gatecrew import App, BlockingCluster, Client, Cluster, Group, Request, Uid
from gatecrew.business.app import KINDS

DOCS = Path(__file__).parent.parent / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Run the examples of a page one after the other, as one module."""
    names: dict[str, Any] = {"__name__": page}
    for example in examples(page):
        exec(compile(example, page, "exec"), names)
    return names


def test_the_examples_of_handlers_are_handlers() -> None:
    app = run("handlers.md")["app"]

    assert {kind for kind in KINDS if app.functions(kind)} == {"connect", "message", "error"}
    assert [(timer.seconds, timer.once) for timer in app.timers()] == [(60, False), (1, True)]


def test_the_examples_of_the_api_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gatecrew.toml").touch()

    assert {"announce", "shipped"} <= run("api.md").keys()


@pytest.mark.parametrize("cls", [App, Client, Request, Group, Uid, Cluster, BlockingCluster])
def test_every_public_call_and_attribute_is_described(cls: type) -> None:
    internal = {
        App: {"family", "functions", "handler", "timers", "run_by"},
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
