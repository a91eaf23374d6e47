"""However gateways come and go, and whichever links are cut: in the end a uid has as many clients as it may."""

from __future__ import annotations

import contextlib
import random

import pytest
from gatecrew import Accept, App, Request
from gatecrew.testing import Closed, Guest, Simulation

GATEWAYS = ["gateway-1", "gateway-2", "gateway-3"]
UIDS = ["ann", "bob", "cyd"]


def an_app() -> App:
    app = App()

    @app.on_handshake
    async def admit(request: Request) -> Accept:
        return Accept(uid=request.path[1:])

    return app


class Play:
    """What happens to one cluster."""

    def __init__(self, cluster: Simulation, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.guests: list[tuple[str, Guest]] = []
        self.cuts: list[tuple[str, str]] = []

    async def step(self) -> None:
        cluster, chance = self.cluster, self.chance
        match chance.choice(["come", "come", "come", "cut", "kill", "wait"]):
            case "come":
                uid = chance.choice(UIDS)
                with contextlib.suppress(Closed):
                    self.guests.append((uid, await cluster.connect(chance.choice(GATEWAYS), f"/{uid}")))
            case "cut":
                one, other = chance.sample(GATEWAYS, 2)
                self.cuts.append((one, other))
                cluster.cut(one, other, silent=chance.random() < 0.5)
            case "kill":
                name = chance.choice(GATEWAYS)
                cluster.kill(name)
                await cluster.start(name)
                await cluster.until(cluster.linked)
            case "wait":
                await cluster.sleep(chance.random() * 3)

    async def heal(self) -> None:
        for one, other in self.cuts:
            self.cluster.heal(one, other)
        await self.cluster.sleep(10)

    def there(self, uid: str) -> list[Guest]:
        return [guest for its, guest in self.guests if its == uid and guest.open]


@pytest.mark.parametrize("over", ["kick_oldest", "refuse"])
@pytest.mark.parametrize("seed", range(6))
def test_a_uid_has_one_client_when_all_is_healed(seed: int, over: str) -> None:
    async def test(cluster: Simulation) -> None:
        play = Play(cluster, random.Random(seed))
        for _ in range(12):
            await play.step()
        await play.heal()

        for uid in UIDS:
            there = play.there(uid)
            assert len(there) <= 1
            if over == "refuse" and there:
                with pytest.raises(Closed):
                    await cluster.connect("gateway-1", f"/{uid}")
            else:
                new = await cluster.connect("gateway-1", f"/{uid}")
                await cluster.sleep(1)
                assert (new.open, play.there(uid)) == (True, [])

    settings = {"devices_per_uid": 1, "devices_over": over}
    Simulation(an_app(), gateways=3, workers=1, seed=seed, gateway=settings).run(test)
