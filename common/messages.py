"""Every message that travels between two processes, inside the batches of a lane.

A message is a list: its opcode and then its fields, in the order given here. ``data`` is always ``str`` (text) or ``bytes``
(binary). ``client`` is a client id, ``uid`` and ``group`` are strings.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

Message = list[Any]


# Gateway -> worker. `n` counts the events of one link and names one in the worker's ack; `number` counts the events of one
# client: with the client's id it is the event id, the same however often the event is sent.
#
# `state` is None, or what the worker does not know yet about this client:
#   [applied, uid or None, session (packed map), introduction or None, redelivered]
# `applied` counts the worker's own changes of uid and session that are contained in it.
# `introduction` comes with the first event of a client that a worker sees: [path, query, remote, listener, subprotocol].
CONNECT: Final = 1  #: [n, client, number, state, headers]
MESSAGE: Final = 2  #: [n, client, number, state, data]
CLOSE: Final = 3  #: [n, client, number, state, [code, reason]]
FORGET: Final = 4  #: [client]: it moved to another worker, with nothing outstanding here
PING: Final = 6  #: [n]: to be acknowledged like an event, in its turn; no handler sees it
HANDSHAKE: Final = 8  #: [number, client, introduction, headers]: may it come? To be answered by ACCEPT or REFUSE
REVOKED: Final = 9  #: [what, value, since, until]: passed on, so that the gateways that it is linked to learn of it

# Gateway -> whoever asked
ANSWER: Final = 5  #: [query number, answer]
NO_ANSWER: Final = 7  #: [query number, why]

# Worker or caller -> gateway. `counted` is true for what a worker changed at the client whose event it handles.
ACK: Final = 16  #: [n, n, ...]: these events are done, their commands are in this batch
SEND: Final = 17  #: [client or list of clients, data]
SEND_UID: Final = 18  #: [uids, data]
SEND_GROUP: Final = 19  #: [groups, data, excluded clients]
SEND_ALL: Final = 20  #: [data, excluded clients]
BIND: Final = 21  #: [client, uid, device, counted]
UNBIND: Final = 22  #: [client, counted]
JOIN: Final = 23  #: [client, group]
LEAVE: Final = 24  #: [client, group]
UNGROUP: Final = 25  #: [group]
SET_SESSION: Final = 26  #: [client, map, counted]
UPDATE_SESSION: Final = 27  #: [client, map of what changed, list of keys that went, counted]
CLOSE_CLIENT: Final = 28  #: [client, last message or None, code, reason]
DESTROY_CLIENT: Final = 29  #: [client]
QUERY: Final = 30  #: [query number, Ask, argument]
DRAIN: Final = 31  #: []: send no more events; this worker leaves when its outstanding ones are done
#: [credit, decides]: send me events, at most so many that I have not acknowledged; and, if it decides on them, handshakes
TAKE: Final = 32
#: [origin, number, commands]: what leaves before an ack, or without one; to be carried out unless this number or a later one of that
#: origin was. The origin is an event id, and the number tells which part of its turn this is, or it is the sender's key, and
#: the number rises.
TURN: Final = 33
#: [number, uid or None, device, groups, session, subprotocol or None, token or None]: the client may come. A token is
#: [expires, id or None, issued], times being those of the world, in seconds since 1970.
ACCEPT: Final = 34
REFUSE: Final = 35  #: [number, HTTP status, reason, seconds after which to come again or None]
TOKEN: Final = 36  #: [client, token]: it goes by this token from now on
#: [what ("uid" or "id"), value, since or None, until or seconds]: tokens of this uid that were issued up to `since`, or the token
#: with this id, are good for nothing any more. With None, since now, and to be remembered for so many seconds.
REVOKE: Final = 37
#: [time, process, reason, client, uid, groups, note]: what did not reach a client, to be remembered; see :mod:`.discards`
DISCARDED: Final = 39
CUT: Final = 38  #: []: the last link between us ended though I did not hang: I was cut off

# Member -> register. A member is [role, name, key, address, meta].
ANNOUNCE: Final = 48  #: [role, name, key, address, meta, stats]: also renews the lease
ASK_MEMBERS: Final = 49  #: []
LEAVING: Final = 53  #: []: forget me at once
# Register -> member
SNAPSHOT: Final = 50  #: [epoch, number, members]
CHANGE: Final = 51  #: [epoch, number, joined members, keys of those that left]
MEMBERS: Final = 52  #: [members, each a map with what it announced and its age in seconds]

# Gateway -> its buddy, which tells the close of its clients if it is lost
KEEP: Final = 64  #: [client, uid or None, session (packed map), introduction]: a new client, or what is new of it
RELEASE: Final = 65  #: [client]: its close event is done
WHOLE: Final = 66  #: []: since this link began you were told everything
RELEASE_ALL: Final = 67  #: []: another gateway is the buddy now
# Buddy -> gateway
KNOWN: Final = 68  #: []: the answer to WHOLE
# Gateway -> the gateway that counts the clients of a uid, its owner. A device is a kind of device, or empty.
CLAIM: Final = 80  #: [uid, device, client, since or None]: a place for it; with the time, if it was granted one before
UNCLAIM: Final = 81  #: [uid, device, client]: it needs none any more
# Owner -> gateway
GRANTED: Final = 82  #: [uid, device, client, since]: it may stay
TOO_MANY: Final = 83  #: [uid, device, client]: it must go
# Gateway -> worker or caller
GATEWAYS: Final = 70  #: [members]: the gateways that this one knows of
# Buddy -> worker -> lost gateway, if it is there again
FENCE: Final = 69  #: [key]: this gateway was lost and its clients' close told; it is heeded no more


class Ask(IntEnum):
    """What a query asks; each gateway answers for its own clients."""

    SYNC = 0  #: True, once all earlier messages of the asker are applied
    ONLINE = 1  #: client -> bool
    UID_ONLINE = 2  #: uid -> bool
    CLIENT_COUNT = 3  #: list of groups, or None (all) -> number of clients
    CLIENTS = 4  #: list of groups, or None -> list of clients
    UIDS = 5  #: list of groups, or None -> list of uids
    CLIENTS_OF_UIDS = 6  #: list of uids -> list of clients
    UID_OF_CLIENT = 7  #: client -> uid or None
    GROUPS = 8  #: None -> list of groups
    GROUP_CLIENTS = 9  #: None -> map of group to clients
    GROUP_COUNTS = 10  #: None -> map of group to number of clients
    GROUP_UIDS = 11  #: None -> map of group to uids
    SESSION = 12  #: client -> map or None
    SESSIONS = 13  #: list of groups, or None -> map of client to session
    #: [uid, group, address (each or empty), what to sort by, limit] -> [how many there are, the first of them, each as in
    #: :class:`~..gateway.overview.Row`]
    CONNECTIONS = 15
    DISCARDS = 16  #: [seconds, client, uid, group (each or empty)] -> list of what was discarded lately
    ROUND_TRIP = 14  #: key of a worker -> milliseconds of a ping to it and back, or None if it cannot be pinged
