"""An API that keeps what it is asked for, to see what calls are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from gatecrew.business.client import Api, Client
from gatecrew.business.hub import Gateway
from gatecrew.common.ids import new_client_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatecrew.common.messages import Ask, Message

T = TypeVar("T")


class Recorder(Api):
    """Keeps commands and questions; ``answers`` is what the gateways say."""

    def __init__(self, *answers: Any) -> None:
        self.commands: list[tuple[str | None, Message]] = []
        self.questions: list[tuple[str | None, Ask, object]] = []
        self.answers = list(answers)

    def _record(self, gateway: str | None, message: Message) -> None:
        self.commands.append((gateway, message))

    async def _query(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[list[Any]], T]) -> T:
        self.questions.append((gateway, ask, argument))
        return merge(self.answers)


def make_client(api: Api, gateway: str) -> Client:
    """Return a client of the gateway with this key."""
    return Client(api, new_client_id(gateway), Gateway("gateway-1", gateway))
