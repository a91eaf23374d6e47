"""What a gateway answers to queries, each for its own clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..common import wire
from ..common.errors import LinkError
from ..common.messages import Ask
from .index import Index


def answer(index: Index, ask: int, argument: Any) -> Any:  # noqa: ANN401  # each question has its own kind of answer
    """Return the answer to one question of :class:`~..common.messages.Ask`.

    Raises:
        LinkError: if there is no such question.
    """
    try:
        return _ANSWERS[ask](index, argument)
    except KeyError:
        raise LinkError(f"asks question {ask}, which there is not") from None


def _uid_of_client(index: Index, client_id: str) -> str | None:
    client = index.clients.get(client_id)
    return None if client is None else client.uid


def _uids(index: Index, group: str | None) -> list[str]:
    if group is None:
        return list(index.uids)
    return list({client.uid for client in index.of_group(group) if client.uid is not None})


def _session(index: Index, client_id: str) -> Any:  # noqa: ANN401
    client = index.clients.get(client_id)
    return None if client is None else wire.unpack(client.session)


_ANSWERS: dict[int, Callable[[Index, Any], Any]] = {
    Ask.SYNC: lambda _, __: True,
    Ask.ONLINE: lambda index, client_id: client_id in index.clients,
    Ask.UID_ONLINE: lambda index, uid: uid in index.uids,
    Ask.CLIENT_COUNT: lambda index, group: len(index.of_group(group)),
    Ask.CLIENTS: lambda index, group: [client.id for client in index.of_group(group)],
    Ask.UIDS: _uids,
    Ask.CLIENTS_OF_UID: lambda index, uid: [client.id for client in index.uids.get(uid, ())],
    Ask.UID_OF_CLIENT: _uid_of_client,
    Ask.GROUPS: lambda index, _: list(index.groups),
    Ask.GROUP_CLIENTS: lambda index, _: {g: [client.id for client in clients] for g, clients in index.groups.items()},
    Ask.GROUP_COUNTS: lambda index, _: {group: len(clients) for group, clients in index.groups.items()},
    Ask.GROUP_UIDS: lambda index, _: {group: _uids(index, group) for group in index.groups},
    Ask.SESSION: _session,
    Ask.SESSIONS: lambda index, group: {c.id: wire.unpack(c.session) for c in index.of_group(group)},
}
