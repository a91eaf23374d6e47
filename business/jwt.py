"""A handshake handler for JSON Web Tokens (RFC 7519); needs ``pip install 'gatecrew[jwt]'``."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from ..common.errors import AppError, TokenError
from .commands import DAY
from .handshake import Accept, Decision, Refuse, Token

try:
    import jwt
except ImportError as error:
    raise AppError("JwtAuth needs PyJWT: pip install 'gatecrew[jwt]'") from error

if TYPE_CHECKING:
    from .client import Api, Client, Request

_log = logging.getLogger(__name__)

Claims = dict[str, Any]
Hook = Callable[["Request", Claims], "Decision | Awaitable[Decision]"]

BEARER: Final = "bearer"  #: the subprotocol that is offered before a token
KEYS_FRESH: Final = 3600.0  #: seconds after which a JWK set is read anew
KEYS_PAUSE: Final = 10.0  #: seconds between two attempts to read it, for a key that is not in it
KEYS_TIMEOUT: Final = 4.0  #: seconds that one attempt may take
MAX_KEYS: Final = 1024 * 1024  #: bytes of a JWK set
MIN_SECRET: Final = 32  #: bytes; RFC 7518, section 3.2


class JwtAuth:
    """Lets in who brings a token: ``app.on_handshake(JwtAuth(key, algorithms=["HS256"]))``.

    The token is looked for in ``Authorization: Bearer <token>``, in the subprotocols, as ``["bearer", token]``, and if they are named
    in a cookie and in the query. It must have an end (``exp``).

    Args:
        key: the secret, for HS256 and the like, or the public key in PEM, for the others.
        jwks: in its place, a file or URL with a JWK set. It is read again every hour, and for a key that is not in it.
        algorithms: which are accepted.
        audience: one of these has to be the token's ``aud``; without, a token that has one is refused.
        issuer: one of these has to be its ``iss``.
        uid: the claim that becomes the uid.
        cookie: the name of the cookie.
        query: the name in the query. Mind that URLs are logged by proxies.
        leeway: seconds that clocks may differ.
        lifetime: seconds after which any token has ended: one that lasts longer is refused. Revocations are remembered for so long.
        accept: ``accept(request, claims)`` is called for each good token. It may return a Refuse, or an Accept with groups,
            session and so on. It may be async, and otherwise has to be quick.

    Raises:
        AppError: if the keys and algorithms do not fit together.
    """

    def __init__(
        self,
        key: str | bytes | None = None,
        *,
        algorithms: Iterable[str],
        jwks: str | Path | None = None,
        audience: str | Iterable[str] | None = None,
        issuer: str | Iterable[str] | None = None,
        uid: str = "sub",
        cookie: str = "",
        query: str = "",
        leeway: float = 0.0,
        lifetime: float = DAY,
        accept: Hook | None = None,
    ) -> None:
        self._algorithms = [algorithms] if isinstance(algorithms, str) else list(algorithms)
        if (key is None) == (jwks is None):
            raise AppError("JwtAuth: expected a key or jwks")
        self._key: Any = None if key is None else _prepared(key, self._algorithms)
        self._keys = None if jwks is None else _Keys(jwks)
        self._audience = [audience] if isinstance(audience, str) else None if audience is None else list(audience)
        self._issuer = [issuer] if isinstance(issuer, str) else None if issuer is None else list(issuer)
        self._uid = uid
        self._cookie = cookie
        self._query = query
        self._leeway = leeway
        self._lifetime = lifetime
        self._accept = accept

    async def __call__(self, request: Request) -> Decision:
        """Decide on a handshake."""
        text, subprotocol = self._find(request)
        if not text:
            return Refuse(401, "token_missing")
        try:
            claims = await self.verify(text)
        except _NoKeysError as error:
            return Refuse(503, str(error), retry_after=round(KEYS_PAUSE))
        except TokenError as error:
            return Refuse(401, str(error))
        decision = self._accept(request, claims) if self._accept is not None else None
        if inspect.isawaitable(decision):
            decision = await decision
        if isinstance(decision, Refuse):
            return decision
        found = decision or Accept()
        return replace(
            found,
            uid=found.uid or claims[self._uid],
            token=found.token or self._token(claims),
            subprotocol=found.subprotocol or (None if request.subprotocol else subprotocol),
        )

    async def verify(self, token: str) -> Claims:
        """Return the claims of a token.

        Raises:
            TokenError: if it is no good: ``token_expired`` or ``token_invalid``, and why.
        """
        try:
            key = (
                self._key if self._keys is None else await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            )
            claims: Claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", self._uid]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("token_expired") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenError(f"token_invalid: {error}") from error
        uid = claims[self._uid]
        if not isinstance(uid, str) or not uid:
            raise TokenError(f"token_invalid: {self._uid} is no text")
        if float(claims["exp"]) + self._leeway - time() > self._lifetime:
            raise TokenError(f"token_invalid: it lasts for more than {self._lifetime:g} s")
        return claims

    async def renew(self, client: Client, token: str) -> None:
        """Let a client stay by another token, of the same uid, before its own ends.

        Raises:
            TokenError: if it is no good.
        """
        claims = await self.verify(token)
        if claims[self._uid] != client.uid:
            raise TokenError("token_invalid: it is another uid's")
        client.renew(self._token(claims))

    def revoke(self, api: Api, *, uid: str | None = None, token_id: str | None = None) -> None:
        """Revoke the tokens of a uid that were issued up to now, or the one with this id (``jti``).

        Args:
            api: the app, in a handler, or a cluster.
            uid: whose tokens.
            token_id: of one token.
        """
        api.revoke(uid=uid, token_id=token_id, lifetime=self._lifetime)

    def _token(self, claims: Claims) -> Token:
        return Token(float(claims["exp"]) + self._leeway, claims.get("jti"), float(claims.get("iat", 0)))

    def _find(self, request: Request) -> tuple[str, str | None]:
        """Return the token, if there is one, and the subprotocol to answer with."""
        scheme, _, text = request.header("Authorization").partition(" ")
        if scheme.lower() == BEARER and text.strip():
            return text.strip(), None
        offers = request.subprotocols
        if BEARER in offers[:-1]:
            return offers[offers.index(BEARER) + 1], BEARER
        text = request.cookie(self._cookie) if self._cookie else ""
        return text or (request.query.get(self._query, "") if self._query else ""), None


class _NoKeysError(TokenError):
    """Nobody can say whether a token is good."""


class _Keys:
    """A JWK set (RFC 7517), kept in memory."""

    def __init__(self, source: str | Path) -> None:
        self._source = str(source)
        if "://" in self._source and not self._source.startswith(("https://", "http://")):
            raise AppError(f"JwtAuth: jwks: found {self._source}, expected a file or https://...")
        self._keys: Mapping[str | None, jwt.PyJWK] | None = None
        self._read_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, kid: str | None) -> jwt.PyJWK:
        """Return the key with this id; None names the only one.

        Raises:
            jwt.InvalidKeyError: if there is none.
            _NoKeysError: if the set was never read.
        """
        if self._wanting(kid):
            async with self._lock:
                if self._wanting(kid):  # nobody read it meanwhile
                    await self._read()
        keys = self._keys
        if keys is None:
            raise _NoKeysError("keys_unavailable")
        if kid is None and len(keys) == 1:
            return next(iter(keys.values()))
        if kid not in keys:
            raise jwt.InvalidKeyError("no such key")
        return keys[kid]

    def _wanting(self, kid: str | None) -> bool:
        now = monotonic()
        if now - self._tried_at < KEYS_PAUSE:
            return False
        missing = self._keys is None or (kid is not None and kid not in self._keys)
        return missing or now - self._read_at > KEYS_FRESH

    async def _read(self) -> None:
        self._tried_at = monotonic()
        try:
            data = await asyncio.to_thread(self._fetch)
            found = jwt.PyJWKSet.from_dict(json.loads(data))
        except (OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
            _log.error("JwtAuth: %s cannot be read: %s", self._source, getattr(error, "reason", error))
            return
        self._keys = {key.key_id: key for key in found.keys}
        self._read_at = monotonic()

    def _fetch(self) -> bytes:
        if "://" not in self._source:
            return Path(self._source).read_bytes()
        with urlopen(self._source, timeout=KEYS_TIMEOUT) as response:  # noqa: S310  # the scheme was looked at
            data: bytes = response.read(MAX_KEYS + 1)
        if len(data) > MAX_KEYS:
            raise URLError(f"more than {MAX_KEYS} bytes")
        return data


def _prepared(key: str | bytes, algorithms: list[str]) -> Any:
    if not algorithms:
        raise AppError('JwtAuth: algorithms: found none, expected such as ["HS256"]')
    secret = [name for name in algorithms if name.startswith("HS")]
    if secret and len(secret) < len(algorithms):
        raise AppError(f"JwtAuth: algorithms: found {', '.join(algorithms)}: one key is a secret or public, not both")
    if secret and len(key) < MIN_SECRET:
        raise AppError(f"JwtAuth: a key of {len(key)} bytes, expected {MIN_SECRET}: openssl rand -hex 32 makes one")
    prepared: Any = None
    for name in algorithms:
        if name == "none":
            raise AppError('JwtAuth: algorithms: "none" would accept whatever comes')
        try:
            prepared = jwt.get_algorithm_by_name(name).prepare_key(key)
        except (jwt.PyJWTError, NotImplementedError, ValueError, TypeError) as error:
            raise AppError(f"JwtAuth: the key is none for {name}: {error}") from None
    return prepared
