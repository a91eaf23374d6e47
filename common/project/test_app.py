"""The application in a simulated cluster: run it with ``python -m pytest``."""

from app import app
from gatecrew.testing import Simulation, simulate


@simulate(app, gateways=2, workers=2)
async def test_all_hear_what_one_says(cluster: Simulation) -> None:
    """Also at another gateway, and though a worker dies."""
    ann = await cluster.connect("gateway-1")
    bob = await cluster.connect("gateway-2")
    assert [await ann.receive(), await bob.receive()] == ["welcome", "welcome"]

    cluster.kill("worker-1")
    ann.send("hello")

    assert [await ann.receive(), await bob.receive()] == ["hello", "hello"]
