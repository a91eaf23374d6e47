"""Keys of processes and ids of clients.

A *key* names one run of one process: 8 characters out of ``a-z2-7`` (40 random bits), new at each start. A *client id* is
the key of its gateway and 16 url-safe characters (96 random bits): it can be routed without a look-up, is never used twice,
and cannot be guessed.
"""

from __future__ import annotations

import re
import secrets

from .errors import ClientIdError

KEY_LENGTH = 8
CLIENT_ID_LENGTH = KEY_LENGTH + 16

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_CLIENT_ID = re.compile(rf"[a-z2-7]{{{KEY_LENGTH}}}[A-Za-z0-9_-]{{{CLIENT_ID_LENGTH - KEY_LENGTH}}}")


def new_key() -> str:
    """Return a key for a process that starts."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))


def new_client_id(gateway_key: str) -> str:
    """Return an id for a client that opened at the gateway with this key."""
    return gateway_key + secrets.token_urlsafe(12)


def gateway_of(client_id: str) -> str:
    """Return the key of the gateway that holds the client.

    Raises:
        ClientIdError: if this is not the shape of a client id.
    """
    if _CLIENT_ID.fullmatch(client_id) is None:
        raise ClientIdError(f"not a client id: {client_id!r} (expected {CLIENT_ID_LENGTH} characters, as in client.id)")
    return client_id[:KEY_LENGTH]
