"""An issuer of sessions as companies run them: a real HTTP server that publishes keys, and signs tokens with them."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

AUDIENCE = "tallygate"


@dataclass
class IssuerServer:
    """An issuer at `url`; `fetched` counts how often its key set was asked for, `down` makes it answer 503."""

    url: str
    algorithm: str
    keys: dict[str, RSAPrivateKey | Ed25519PrivateKey] = field(default_factory=dict)
    fetched: int = 0
    down: bool = False

    def add(self, kid: str) -> None:
        """Publish a new key."""
        self.keys[kid] = generate_private_key(65537, 2048) if self.algorithm == "RS256" else Ed25519PrivateKey.generate()

    def published(self) -> list[dict[str, Any]]:
        """Return the public keys as JWKs."""
        found = []
        for kid, key in self.keys.items():
            text = RSAAlgorithm.to_jwk(key.public_key()) if isinstance(key, RSAPrivateKey) else OKPAlgorithm.to_jwk(key.public_key())
            found.append({**json.loads(text), "kid": kid, "use": "sig", "alg": self.algorithm})
        return found

    def token(self, kid: str, *, key: Any = None, algorithm: str | None = None, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign a token; a claim given as None is left out."""
        now = datetime.now(UTC)
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "user_1", "iat": now, "exp": now + timedelta(minutes=5)}
        said = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(said, key or self.keys[kid], algorithm=algorithm or self.algorithm, headers={"kid": kid} | (headers or {}))


@contextlib.asynccontextmanager
async def serve(algorithm: str) -> AsyncIterator[IssuerServer]:
    """Run an issuer on a port of the loopback, with one key `k1`."""
    issuer = IssuerServer("", algorithm)

    async def configuration(request: web.Request) -> web.Response:
        return web.json_response({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"})

    async def keys(request: web.Request) -> web.Response:
        issuer.fetched += 1
        return web.Response(status=503) if issuer.down else web.json_response({"keys": issuer.published()})

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", configuration)
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    issuer.add("k1")
    yield issuer
    await runner.cleanup()
