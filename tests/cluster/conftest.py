"""The clusters that tests share, and clients of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .crew import Crew, a_crew

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .crew import Guest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the processes of its cluster said last."""
    report = yield
    if report.failed:
        crews = {crew for crew in getattr(item, "funcargs", {}).values() if isinstance(crew, Crew)}
        for path in sorted(path for crew in crews for path in crew.folder.glob("*.log")):
            report.sections.append((path.stem, path.read_text()[-4000:]))
    return report


@pytest.fixture(scope="session")
def shared_crew() -> Iterator[Crew]:
    limits = {
        "gateway_max_message": "100000",
        "gateway_client_buffer": "200000",
        "gateway_subprotocols": "chat.v2,chat.v1",
    }
    with a_crew(
        "register-1", "gateway-1", "gateway-2", "worker-1", "worker-2", worker_handler_timeout="1.5", **limits
    ) as crew:
        yield crew


@pytest.fixture
def crew(shared_crew: Crew) -> Iterator[Crew]:
    """The cluster that most tests share. They leave it as it was; their clients leave with them."""
    yield shared_crew
    shared_crew.leave()


@pytest.fixture
def ann(crew: Crew) -> Guest:
    return crew.connect("gateway-1", "worker-1")


@pytest.fixture
def bob(crew: Crew) -> Guest:
    """A client at another gateway than Ann, handled by another worker."""
    return crew.connect("gateway-2", "worker-2")


@pytest.fixture
def cyd(crew: Crew) -> Guest:
    """A client at Ann's gateway, handled by Bob's worker."""
    return crew.connect("gateway-1", "worker-2")


@pytest.fixture
def gone(crew: Crew) -> str:
    """The id of a client that was there."""
    guest = crew.connect("gateway-2")
    client_id = guest.id
    guest.leave()
    return client_id
