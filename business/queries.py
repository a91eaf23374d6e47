"""Everything that can be asked. The same calls stand in a handler (``app``) and outside (``Cluster``).

What holds for all of them:

* They are awaited, ask all gateways concerned at once, and put their answers together.
* What the asker commanded before is carried out before the answer is made.
* A gateway that does not answer before the deadline (``[worker] query_timeout``) makes it a
  :exc:`~..common.errors.PartialAnswer`, which has the answer of the others and the names of those that are missing.
* What is asked about a client, uid or group that there is not has the answer of nobody: False, None, 0 or empty.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from ..common.ids import gateway_of
from ..common.messages import Ask
from .checks import name, names
from .commands import id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .client import AnyClient

T = TypeVar("T")
Answers = list[Any]


class Queries:
    """What can be asked."""

    async def _query(self, gateway: str | None, ask: Ask, argument: object, merge: Callable[[Answers], T]) -> T:
        """Ask the gateway with this key, or with None all of them, and put the answers together.

        Raises:
            PartialAnswer: if some do not answer in time.
        """
        raise NotImplementedError

    # Who is there

    async def is_online(self, client: AnyClient) -> bool:
        """Return whether a client is connected."""
        client_id = id_of(client)
        return await self._query(gateway_of(client_id), Ask.ONLINE, client_id, any)

    async def is_uid_online(self, uid: str) -> bool:
        """Return whether any client of a uid is connected."""
        return await self._query(None, Ask.UID_ONLINE, name("uid", uid), any)

    async def get_all_client_id_count(self) -> int:
        """Return how many clients there are."""
        return await self._query(None, Ask.CLIENT_COUNT, None, sum)

    async def get_client_id_count_by_group(self, group: str | Iterable[str]) -> int:
        """Return how many clients are in a group, or in any of several."""
        return await self._query(None, Ask.CLIENT_COUNT, names("group", group), sum)

    async def get_all_client_id_list(self) -> list[str]:
        """Return the ids of all clients."""
        return await self._query(None, Ask.CLIENTS, None, _joined)

    async def get_client_id_list_by_group(self, group: str | Iterable[str]) -> list[str]:
        """Return the ids of the clients in a group, or in any of several, each once."""
        return await self._query(None, Ask.CLIENTS, names("group", group), _joined)

    async def get_all_uid_count(self) -> int:
        """Return how many uids have a client."""
        return len(await self.get_all_uid_list())

    async def get_uid_count_by_group(self, group: str | Iterable[str]) -> int:
        """Return how many uids have a client in a group, or in any of several."""
        return len(await self.get_uid_list_by_group(group))

    async def get_all_uid_list(self) -> list[str]:
        """Return all uids that have a client, each once."""
        return await self._query(None, Ask.UIDS, None, _distinct)

    async def get_uid_list_by_group(self, group: str | Iterable[str]) -> list[str]:
        """Return the uids that have a client in a group, or in any of several, each once."""
        return await self._query(None, Ask.UIDS, names("group", group), _distinct)

    async def get_client_id_by_uid(self, uid: str | Iterable[str]) -> list[str]:
        """Return the ids of the clients of a uid, or of several."""
        return await self._query(None, Ask.CLIENTS_OF_UIDS, names("uid", uid), _joined)

    async def get_uid_by_client_id(self, client: AnyClient) -> str | None:
        """Return the uid of a client, or None."""
        client_id = id_of(client)
        return await self._query(gateway_of(client_id), Ask.UID_OF_CLIENT, client_id, _only)

    # Groups

    async def get_all_group_id_list(self) -> list[str]:
        """Return the names of all groups, each once."""
        return await self._query(None, Ask.GROUPS, None, _distinct)

    async def get_all_group_client_id_list(self) -> dict[str, list[str]]:
        """Return the ids of the clients of every group."""
        return await self._query(None, Ask.GROUP_CLIENTS, None, lambda answers: _by_key(answers, _joined))

    async def get_all_group_client_id_count(self) -> dict[str, int]:
        """Return how many clients are in every group."""
        return await self._query(None, Ask.GROUP_COUNTS, None, _summed)

    async def get_all_group_uid_list(self) -> dict[str, list[str]]:
        """Return the uids that have a client in each group, for every group."""
        return await self._query(None, Ask.GROUP_UIDS, None, lambda answers: _by_key(answers, _distinct))

    async def get_all_group_uid_count(self) -> dict[str, int]:
        """Return how many uids have a client in each group, for every group."""
        return {group: len(uids) for group, uids in (await self.get_all_group_uid_list()).items()}

    # Sessions

    async def get_session(self, client: AnyClient) -> dict[str, Any] | None:
        """Return the session of a client, or None if it is gone. What is changed in it changes nothing at the gateway."""
        client_id = id_of(client)
        return await self._query(gateway_of(client_id), Ask.SESSION, client_id, _only)

    async def get_all_client_sessions(self) -> dict[str, dict[str, Any]]:
        """Return the sessions of all clients, by client id."""
        return await self._query(None, Ask.SESSIONS, None, _merged)

    async def get_client_sessions_by_group(self, group: str | Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the sessions of the clients in a group, or in any of several, by client id."""
        return await self._query(None, Ask.SESSIONS, names("group", group), _merged)

    async def flush(self) -> None:
        """Let what was commanded so far take effect now, and return when it has.

        In a handler: if the worker dies before the handler ends, its event is handled again and what was flushed repeats.

        Raises:
            Unreachable: if something commanded could not be handed to a gateway.
            PartialAnswer: if a gateway did not confirm before the deadline.
        """
        await self._query(None, Ask.SYNC, None, any)


def _only(answers: Answers) -> Any:  # what one gateway answered
    return answers[0] if answers else None


def _joined(answers: Answers) -> list[str]:
    return list(chain.from_iterable(answers))


def _distinct(answers: Answers) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(answers)))


def _merged(answers: Answers) -> dict[str, Any]:
    return {key: value for answer in answers for key, value in answer.items()}


def _summed(answers: Answers) -> dict[str, int]:
    return dict(sum((Counter(answer) for answer in answers), Counter[str]()))


def _by_key(answers: Answers, merge: Callable[[Answers], list[str]]) -> dict[str, list[str]]:
    lists: dict[str, list[list[str]]] = {}
    for answer in answers:
        for key, values in answer.items():
            lists.setdefault(key, []).append(values)
    return {key: merge(of_key) for key, of_key in lists.items()}
