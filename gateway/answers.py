"""What a gateway answers to queries, each for its own clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..common import wire
from ..common.errors import LinkError
from ..common.messages import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .client import Client
    from .index import Index

MAX_ANSWER: Final = wire.MAX_BATCH  #: bytes of one answer: as much as one batch
T = TypeVar("T")


class TooBig(Exception):
    """An answer over :data:`MAX_ANSWER`."""


def answer(index: Index, ask: object, argument: object) -> Any:  # each question has its own kind of answer
    """Return the answer to one question of :class:`~..common.messages.Ask`.

    Raises:
        LinkError: if there is no such question, or it is not asked about what it should be.
        TooBig: if the answer would be so big that it is not even put together. It may be too big all the same.
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


def _by_group(index: Index, members: Callable[[str], list[str]]) -> dict[str, list[str]]:
    return dict(
        _bounded(((group, found), sum(map(len, found))) for group in index.groups for found in [members(group)])
    )


def _sessions(index: Index, groups: list[str] | None) -> dict[str, Any]:
    packed = _bounded((client, len(client.session)) for client in index.of_groups(groups))
    return {client.id: wire.unpack(client.session) for client in packed}


def _bounded(sized: Iterable[tuple[T, int]]) -> Iterator[T]:
    """Yield what comes with its size until that is too much."""
    size = 0
    for one, more in sized:
        size += more
        if size > MAX_ANSWER:
            raise TooBig
        yield one


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
    Ask.GROUP_CLIENTS: lambda index, _: _by_group(index, lambda group: _ids(index.groups[group])),
    Ask.GROUP_COUNTS: lambda index, _: {group: len(clients) for group, clients in index.groups.items()},
    Ask.GROUP_UIDS: lambda index, _: _by_group(index, lambda group: _uids(index, [group])),
    Ask.SESSION: _session,
    Ask.SESSIONS: _sessions,
}
