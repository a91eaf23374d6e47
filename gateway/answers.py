"""What a gateway answers to queries, each for its own clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..common import wire
from ..common.errors import LinkError
from ..common.messages import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .client import Client
    from .index import Index


def answer(index: Index, ask: object, argument: object) -> Any:  # each question has its own kind of answer
    """Return the answer to one question of :class:`~..common.messages.Ask`.

    Raises:
        LinkError: if there is no such question, or it is not asked about what it should be.
    """
    question = _ANSWERS.get(ask) if isinstance(ask, int) else None
    if question is None:
        raise LinkError(f"asks question {ask!r}, which there is not")
    if argument is None and ask != Ask.CLIENTS_OF_UIDS:
        texts: object = []
    else:
        texts = argument if ask in _ABOUT_MANY else [argument]
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise LinkError(f"asks question {ask} about {type(argument).__name__}")
    return question(index, argument)


def _ids(clients: Iterable[Client]) -> list[str]:
    return [client.id for client in clients]


def _uids(index: Index, groups: list[str] | None) -> list[str]:
    if groups is None:
        return list(index.uids)
    return list({client.uid for client in index.of_groups(groups) if client.uid is not None})


def _uid_of_client(index: Index, client_id: str) -> str | None:
    client = index.clients.get(client_id)
    return None if client is None else client.uid


def _session(index: Index, client_id: str) -> Any:
    client = index.clients.get(client_id)
    return None if client is None else wire.unpack(client.session)


_ABOUT_MANY = frozenset({Ask.CLIENT_COUNT, Ask.CLIENTS, Ask.UIDS, Ask.SESSIONS, Ask.CLIENTS_OF_UIDS})
_ANSWERS: dict[int, Callable[[Index, Any], Any]] = {
    Ask.SYNC: lambda _, __: True,
    Ask.ONLINE: lambda index, client_id: client_id in index.clients,
    Ask.UID_ONLINE: lambda index, uid: uid in index.uids,
    Ask.CLIENT_COUNT: lambda index, groups: len(index.of_groups(groups)),
    Ask.CLIENTS: lambda index, groups: _ids(index.of_groups(groups)),
    Ask.UIDS: _uids,
    Ask.CLIENTS_OF_UIDS: lambda index, uids: _ids(index.of_uids(uids)),
    Ask.UID_OF_CLIENT: _uid_of_client,
    Ask.GROUPS: lambda index, _: list(index.groups),
    Ask.GROUP_CLIENTS: lambda index, _: {group: _ids(clients) for group, clients in index.groups.items()},
    Ask.GROUP_COUNTS: lambda index, _: {group: len(clients) for group, clients in index.groups.items()},
    Ask.GROUP_UIDS: lambda index, _: {group: _uids(index, [group]) for group in index.groups},
    Ask.SESSION: _session,
    Ask.SESSIONS: lambda index, groups: {client.id: wire.unpack(client.session) for client in index.of_groups(groups)},
}
