"""Which web pages may open connections.

A browser lets any page connect to any host, and sends its user's cookies along. It does say which page it is, in the header
``Origin``, so that a server can tell its own pages from strangers' (RFC 6455, section 10.2). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ANY: Final = "*"  #: in a list of origins: all of them
_PORTS: Final = {"http": ":80", "https": ":443"}


def welcome(origin: str | None, host: str | None, listed: Sequence[str]) -> bool:
    """Return whether a client may come.

    Args:
        origin: its header ``Origin``, as in ``https://chat.example.org``; None if it has none, and so is no browser.
        host: its header ``Host``.
        listed: origins that are welcome beside the host's own, each like ``origin``, or :data:`ANY`.
    """
    if origin is None or ANY in listed:
        return True
    origin = origin.lower()
    if origin in (one.lower() for one in listed):
        return True
    scheme, found, place = origin.partition("://")
    if not found or not host:
        return False
    default = _PORTS.get(scheme)
    return default is not None and place.removesuffix(default) == host.lower().removesuffix(default)
