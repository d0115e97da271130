"""Session tokens: of OIDC issuers through their published keys, and of the local issuer that `manage.py login` speaks for."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import jwt
import msgspec

from domain.access.callers import SessionClaims
from domain.errors import Unauthenticated, Unavailable
from domain.outside import before_calling

LOCAL_ISSUER = "tallygate:local"
LOCAL_SESSION_HOURS = 12
LEEWAY_SECONDS = 30
LONGEST_SESSION_SECONDS = 31 * 86_400
"""A session that claims to live longer is not believed, whoever signed it."""
REFRESH_SECONDS = 60.0
KEYS_SECONDS = 600.0
"""How long a key that its issuer has withdrawn may still be believed."""
LARGEST_KEY_SET_BYTES = 256 * 1024
LARGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer whose tokens are believed, with one algorithm for all its keys."""

    url: str
    audience: str | None
    algorithm: str
    jwks_url: str | None


@dataclass(slots=True)
class _Keys:
    by_id: dict[str, Any] = field(default_factory=dict)
    asked_at: float = -REFRESH_SECONDS
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def want(self, key_id: str) -> bool:
        """Tell whether it is time to ask for the keys: because of an unknown one, or because these are old."""
        return time.monotonic() - self.asked_at >= (KEYS_SECONDS if key_id in self.by_id else REFRESH_SECONDS)


def _local_key(secret: str) -> bytes:
    return hashlib.sha256(b"tallygate local sessions\0" + secret.encode()).digest()


def local_session(secret: str, email: str, name: str | None, *, at: datetime) -> str:
    """Return a session token of the local issuer for an address, good for LOCAL_SESSION_HOURS."""
    claims = {"iss": LOCAL_ISSUER, "sub": email.lower(), "email": email.lower(), "email_verified": True, "iat": at, "exp": at + timedelta(hours=LOCAL_SESSION_HOURS)}
    return jwt.encode(claims | ({"name": name} if name else {}), _local_key(secret), algorithm="HS256")


class Issuers:
    """Fulfils `domain.access.callers.Sessions`.

    Keys are fetched when a token names one that is not known, at most once a minute for each issuer, so that random key ids cannot make us
    hammer it, and again every KEYS_SECONDS; known keys keep working while the issuer is away. Nothing that a token says chooses an address, a key or an algorithm.
    """

    def __init__(self, issuers: Sequence[Issuer], *, local_secret: str | None) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._local_secret = local_secret
        self._keys: dict[str, _Keys] = {issuer.url: _Keys() for issuer in issuers}

    async def verify(self, token: str) -> SessionClaims:
        """Return the claims of a genuine token; raises Unauthenticated, or Unavailable when its issuer's keys cannot be had."""
        if len(token) > LARGEST_TOKEN or token.count(".") != 2:
            raise Unauthenticated
        try:
            unverified = jwt.decode(token, options={"verify_signature": False})
            issuer_url = unverified.get("iss")
            if issuer_url == LOCAL_ISSUER and self._local_secret is not None:
                claims = jwt.decode(
                    token, _local_key(self._local_secret), algorithms=["HS256"], issuer=LOCAL_ISSUER, leeway=LEEWAY_SECONDS, options={"require": ["exp", "iat", "sub"]}
                )
                return self._claims(LOCAL_ISSUER, claims)
            issuer = self._issuers.get(issuer_url) if isinstance(issuer_url, str) else None
            if issuer is None:
                raise Unauthenticated
            key = await self._key(issuer, jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=[issuer.algorithm],
                issuer=issuer.url,
                audience=issuer.audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "sub"], "verify_aud": issuer.audience is not None},
            )
            return self._claims(issuer.url, claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise Unauthenticated from None

    @staticmethod
    def _claims(issuer: str, claims: dict[str, Any]) -> SessionClaims:
        subject, email, name = claims["sub"], claims.get("email"), claims.get("name")
        if int(claims["exp"]) - int(claims["iat"]) > LONGEST_SESSION_SECONDS:
            raise Unauthenticated
        if not isinstance(subject, str) or not 1 <= len(subject) <= 400 or "\x00" in subject:
            raise Unauthenticated
        return SessionClaims(
            issuer=issuer,
            subject=subject,
            email=email if isinstance(email, str) and len(email) <= 320 else None,
            email_verified=claims.get("email_verified") is True,
            name=name[:200] if isinstance(name, str) and name.isprintable() else None,
        )

    async def _key(self, issuer: Issuer, key_id: object) -> Any:
        if not isinstance(key_id, str):
            raise Unauthenticated
        keys = self._keys[issuer.url]
        if keys.want(key_id):
            async with keys.lock:
                if keys.want(key_id):
                    try:
                        keys.by_id = await self._fetch(issuer)
                        keys.asked_at = time.monotonic()
                    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, jwt.PyJWTError):
                        keys.asked_at = time.monotonic()
                        if not keys.by_id:
                            keys.asked_at -= REFRESH_SECONDS - 5  # nothing is known yet: soon again
                            raise Unavailable("The issuer of this session cannot be reached; try again.", retry_after_seconds=5) from None
        if key_id not in keys.by_id:
            raise Unauthenticated
        return keys.by_id[key_id]

    async def _fetch(self, issuer: Issuer) -> dict[str, Any]:
        before_calling("an issuer")
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
            address = issuer.jwks_url
            if address is None:
                document = await self._get(session, f"{issuer.url.rstrip('/')}/.well-known/openid-configuration")
                address = document.get("jwks_uri") if isinstance(document, dict) else None
                if not isinstance(address, str):
                    raise ValueError("the issuer publishes no key set")
            return {
                key.key_id: key.key
                for key in jwt.PyJWKSet.from_dict(await self._get(session, address)).keys
                if key.key_id and key.public_key_use in (None, "sig") and key.algorithm_name == issuer.algorithm
            }

    @staticmethod
    async def _get(session: aiohttp.ClientSession, address: str) -> Any:
        async with session.get(address, allow_redirects=False) as response:
            response.raise_for_status()
            body = await response.content.read(LARGEST_KEY_SET_BYTES + 1)
            if len(body) > LARGEST_KEY_SET_BYTES or response.status != 200:
                raise ValueError("the issuer's answer is too large, or no answer")
            return msgspec.json.decode(body)
