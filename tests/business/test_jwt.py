"""Who is let in by a token."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from time import time
from typing import TYPE_CHECKING, Any

import gatecrew.business.jwt as jwt_module
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gatecrew import Accept, AppError, JwtAuth, Refuse, Request, Token, TokenError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "a secret of 32 bytes or more, as it should be"


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, with these changes; None takes one away."""
    found = {"sub": "ann", "exp": time() + 3600, "iat": time() - 1, "jti": "t1"} | changes
    return {key: value for key, value in found.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else None)


def request(*headers: tuple[str, str], subprotocol: str | None = None, **query: str) -> Request:
    return Request("/", query, list(headers), "127.0.0.1:1", "ws://127.0.0.1:2", subprotocol)


def bearing(text: str) -> Request:
    return request(("Authorization", f"Bearer {text}"))


def hmac(**options: Any) -> JwtAuth:
    return JwtAuth(SECRET, algorithms=["HS256"], **options)


async def test_a_good_token_says_who_it_is_and_for_how_long() -> None:
    good = claims()
    decision = await hmac()(bearing(jwt.encode(good, SECRET)))

    assert decision == Accept(uid="ann", token=Token(float(good["exp"]), "t1", float(good["iat"])))


@pytest.mark.parametrize(
    ("shown", "subprotocol"),
    [
        (request(("authorization", f"bearer {token()}")), None),
        (request(("Sec-WebSocket-Protocol", f"bearer, {token()}")), "bearer"),
        (request(("Sec-WebSocket-Protocol", "v1, bearer"), ("Sec-WebSocket-Protocol", token())), "bearer"),
        (request(("Sec-WebSocket-Protocol", f"v1, bearer, {token()}"), subprotocol="v1"), None),
        (request(("Cookie", f"a=b; ticket={token()}; c=d")), None),
        (request(t=token()), None),
    ],
)
async def test_a_token_may_come_in_several_places(shown: Request, subprotocol: str | None) -> None:
    decision = await hmac(cookie="ticket", query="t")(shown)

    assert isinstance(decision, Accept)
    assert (decision.uid, decision.subprotocol) == ("ann", subprotocol)


@pytest.mark.parametrize(
    "shown",
    [
        request(),
        request(("Authorization", "Basic YTpi")),
        request(("Sec-WebSocket-Protocol", "bearer")),
        request(("Cookie", f"ticket={token()}")),
        request(t=token()),
    ],
)
async def test_where_no_token_is_looked_for_there_is_none(shown: Request) -> None:
    assert await hmac()(shown) == Refuse(401, "token_missing")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (token(exp=time() - 10), "token_expired"),
        (token(exp=None), "token_invalid: .*exp"),
        (token(sub=None), "token_invalid: .*sub"),
        (token(sub=""), "token_invalid: sub is no text"),
        (token(exp=time() + 90_000), "token_invalid: it lasts for more than 86400 s"),
        (token(iat=time() + 3000), "token_invalid: .*iat"),
        (token(nbf=time() + 3000), "token_invalid: .*nbf"),
        (token(aud="somebody else"), "token_invalid: .*audience"),
        (token(key="another secret of 32 bytes or more, as well"), "token_invalid: .*[Ss]ignature"),
        (token(algorithm="HS512", key=SECRET * 2), "token_invalid: .*alg"),
        (jwt.encode(claims(), "", "none"), "token_invalid: .*alg"),
        ("nonsense", "token_invalid"),
        ("", "token_missing"),
    ],
)
async def test_a_bad_token_is_refused_and_told_why(text: str, reason: str) -> None:
    decision = await hmac()(bearing(text))

    assert isinstance(decision, Refuse)
    assert decision.status == 401
    assert re.match(reason, decision.reason)


async def test_audience_issuer_and_another_claim_for_the_uid_may_be_asked_for() -> None:
    auth = hmac(audience=["chat", "web"], issuer="us", uid="name")

    assert (await auth.verify(token(aud="web", iss="us", name="bob")))["name"] == "bob"
    for bad in ({"aud": "mail", "iss": "us"}, {"aud": "chat", "iss": "them"}, {"aud": "chat"}, {"iss": "us"}):
        with pytest.raises(TokenError, match="token_invalid"):
            await auth.verify(token(name="bob", **bad))


async def test_clocks_may_differ_by_the_leeway() -> None:
    old = claims(exp=time() - 5)

    decision = await hmac(leeway=10)(bearing(jwt.encode(old, SECRET)))

    assert isinstance(decision, Accept)
    assert decision.token is not None
    assert decision.token.expires == float(old["exp"]) + 10


async def test_the_application_may_refuse_and_add() -> None:
    async def accept(request: Request, claims: dict[str, Any]) -> Accept | Refuse | None:
        match claims["sub"]:
            case "ann":
                return Accept(groups=["admins"], session={"id": claims["jti"]})
            case "bob":
                return Refuse(403, "banned")
        return None

    auth = hmac(accept=accept)
    ann, bob, cyd = [await auth(bearing(token(sub=name))) for name in ("ann", "bob", "cyd")]

    assert isinstance(ann, Accept)
    assert (ann.uid, ann.groups, ann.session) == ("ann", ["admins"], {"id": "t1"})
    assert ann.token is not None
    assert bob == Refuse(403, "banned")
    assert isinstance(cyd, Accept)


PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_public_keys_verify_what_private_ones_signed(algorithm: str) -> None:
    private = PRIVATE[algorithm]
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    auth = JwtAuth(pem, algorithms=[algorithm])

    assert (await auth.verify(token(private, algorithm)))["sub"] == "ann"
    with pytest.raises(TokenError, match="token_invalid"):  # the public key is no secret
        await auth.verify(_signed_with_the_public_key(pem))


def _signed_with_the_public_key(pem: bytes) -> str:
    """Return what an attacker makes who hopes that the algorithm is not looked at."""
    from base64 import urlsafe_b64encode
    from hmac import digest

    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims())]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return (signed + b"." + urlsafe_b64encode(digest(pem, signed, "sha256")).rstrip(b"=")).decode()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"algorithms": ["HS256"]}, "expected a key or jwks"),
        ({"key": SECRET, "jwks": "keys.json", "algorithms": ["HS256"]}, "expected a key or jwks"),
        ({"key": SECRET, "algorithms": []}, "algorithms: found none"),
        ({"key": SECRET, "algorithms": ["none"]}, "would accept whatever comes"),
        ({"key": SECRET, "algorithms": ["HS256", "RS256"]}, "one key is a secret or public"),
        ({"key": "short", "algorithms": "HS256"}, "a key of 5 bytes, expected 32: openssl rand"),
        ({"key": SECRET, "algorithms": ["RS256"]}, "the key is none for RS256"),
        ({"key": SECRET, "algorithms": ["XX"]}, "the key is none for XX"),
        ({"jwks": "ftp://a/b", "algorithms": ["RS256"]}, "expected a file or https"),
    ],
)
def test_keys_that_cannot_be_are_a_mistake(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(AppError, match=problem):
        JwtAuth(**options)


# JWK sets


def jwk(kid: str, algorithm: str = "ES256") -> dict[str, Any]:
    public = PRIVATE[algorithm].public_key()
    return {**jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True), "kid": kid, "alg": algorithm}


class Issuer:
    """A server with a JWK set."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] | None = []
        self.asked = 0


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@contextmanager
def serving(issuer: Issuer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            self.send_response(200 if issuer.keys is not None else 500)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": issuer.keys}).encode())

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        server.shutdown()
        thread.join()


async def test_a_jwk_set_is_read_once_and_again_for_a_new_key(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(jwt_module, "monotonic", lambda: now)
    with serving(issuer) as url:
        auth = JwtAuth(jwks=url, algorithms=["ES256", "EdDSA"])
        issuer.keys = [jwk("k1")]
        first, second = token(PRIVATE["ES256"], "ES256", "k1"), token(PRIVATE["EdDSA"], "EdDSA", "k2")
        for _ in range(2):
            assert (await auth.verify(first))["sub"] == "ann"

        issuer.keys = [jwk("k1"), jwk("k2", "EdDSA")]
        with pytest.raises(TokenError, match="no such key"):  # it was read a moment ago
            await auth.verify(second)
        assert issuer.asked == 1
        now += jwt_module.KEYS_PAUSE
        assert (await auth.verify(second))["sub"] == "ann"
        assert issuer.asked == 2

        issuer.keys = [jwk("k2", "EdDSA")]
        now += jwt_module.KEYS_FRESH + 1
        with pytest.raises(TokenError, match="no such key"):
            await auth.verify(first)


async def test_while_a_jwk_set_cannot_be_read_the_old_one_counts(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(jwt_module, "monotonic", lambda: now)
    good = token(PRIVATE["ES256"], "ES256", "k1")
    with serving(issuer) as url:
        auth = JwtAuth(jwks=url, algorithms=["ES256"])
        issuer.keys = None
        assert await auth(bearing(good)) == Refuse(503, "keys_unavailable", 10)
        assert f"{url} cannot be read" in caplog.text

        issuer.keys = [jwk("k1")]
        now += jwt_module.KEYS_PAUSE
        assert isinstance(await auth(bearing(good)), Accept)
        issuer.keys = None
        now += jwt_module.KEYS_FRESH + 1
        assert isinstance(await auth(bearing(good)), Accept)
        assert issuer.asked == 3


async def test_a_jwk_set_may_be_a_file_and_its_only_key_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk("k1")]}))
    auth = JwtAuth(jwks=path, algorithms=["ES256"])

    assert (await auth.verify(token(PRIVATE["ES256"], "ES256")))["sub"] == "ann"
    with pytest.raises(TokenError, match="token_invalid"):
        await auth.verify(token(PRIVATE["EdDSA"], "EdDSA", "k1"))
