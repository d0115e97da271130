"""CORS on the inference road: a preflight passes for an origin that somebody has registered; whose pages may read an answer, its client token alone says."""

import re
from collections.abc import Sequence
from typing import Final

import structlog

from domain.access import client_tokens, origins, secrets
from domain.apps.addresses import Addresses
from models.database import CONTENDED, UNREACHABLE
from proxy.dialects.base import Headers
from proxy.dialects.headers import credentials

Fields = list[tuple[bytes, bytes]]

KEPT_SECONDS = 600
"""How long a browser may remember that a preflight has passed; what a token may do is looked at with every call."""
EXPOSED: Final = b", ".join(
    (
        *(b"x-request-id", b"request-id", b"x-tallygate-model", b"x-tallygate-route", b"x-tallygate-charge-microusd", b"x-tallygate-balance-microusd"),
        *(b"x-preset", b"x-max-tokens-clamped", b"x-should-retry", b"retry-after", b"ratelimit", b"ratelimit-policy", b"anthropic-version"),
    )
)
"""What a page may read besides the body."""
USUAL: Final = b"authorization, content-type"
_ORIGIN = re.compile(rb"https?://[a-z0-9.:\[\]-]{1,200}\Z")
_NAMES = re.compile(rb"[A-Za-z0-9-]{1,64}(?:[ \t]*,[ \t]*[A-Za-z0-9-]{1,64}){0,49}\Z")

log = structlog.get_logger()


def answered(headers: Headers, origin: str, signing_secret: str) -> Fields:
    """Return the fields of an answer to a page of an origin, a refusal's too: open to it when the client token that came along is bound to it.

    Calls with a key, or with nothing that is ours, are open to no page: a browser is no place for keys.
    """
    fields: Fields = [(b"vary", b"Origin")]
    shown = credentials(headers)
    if not shown or any(secrets.well_formed(credential) for credential in shown) or not _ORIGIN.match(origin.encode("latin-1")):
        return fields
    if client_tokens.looks_like(shown[0]) and client_tokens.opens_to(signing_secret, shown[0], origin):
        fields += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"access-control-expose-headers", EXPOSED)]
    return fields


class Preflights:
    """Answers what browsers ask before a page calls another site (Fetch, section 3.2)."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def answer(self, headers: Headers, allow: bytes) -> tuple[int, Fields] | None:
        """Return status and fields of a preflight; None for an OPTIONS that is none."""
        asked = dict(headers)
        origin = asked.get(b"origin")
        if origin is None or b"access-control-request-method" not in asked:
            return None
        varies: Fields = [(b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")]
        try:
            if not _ORIGIN.match(origin) or not await origins.known(origin.decode("ascii"), self._addresses):
                return 403, varies
        except (*UNREACHABLE, *CONTENDED) as error:
            log.warning("preflight without the database", error=type(error).__name__)
            return 503, [*varies, (b"retry-after", b"2")]
        names = asked.get(b"access-control-request-headers", b"")
        return 204, [*varies, *passed(origin, allow, names)]


def passed(origin: bytes, methods: bytes, names: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Return the fields of a preflight that passes. Whatever header fields a page wants to send it may: none of them carries a right but the token's."""
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", names if _NAMES.match(names) else USUAL),
        (b"access-control-max-age", str(KEPT_SECONDS).encode()),
    )
