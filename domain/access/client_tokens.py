"""Client tokens: what a browser may hold instead of a key. Short-lived, bound to origins, models and caps, and never wider than who made it."""

import base64
import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import jwt

from domain import audit, idempotency
from domain.access import end_users, keys
from domain.access.callers import Actor, Caller, Whence
from domain.apps import registry
from domain.apps.addresses import Addresses
from domain.apps.registry import AppView
from domain.errors import Forbidden, InvalidState, NotFound, OutOfRange, Unauthenticated, WiderThanCaller
from domain.money import catalogue
from domain.money.amounts import LARGEST_MICROUSD
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import ActorKind, LimitPer, Measure, Scope
from models.ids import uuid7

SHORTEST_SECONDS, DEFAULT_SECONDS, LONGEST_SECONDS = 300, 600, 900
LARGEST_REQUEST_CAP = 1_000_000
MOST_ORIGINS = 100
RETIRED_AT_ONCE = 2_000
SUBJECT = "client_token"
"""How the table of bounds names a token."""
ISSUER, AUDIENCE, ALGORITHM = "tallygate", "tallygate-inference", "HS256"
ORIGINS = "origins"
"""The claim that says whose pages may read an answer, so that even a refusal without the database is readable; what is let in its row decides."""
_NAMED = "client token "
_PURPOSE = b"tallygate client token 1"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to make; what is None is the app's, by its manifest. Caps are microdollars and calls."""

    app_id: UUID | None = None
    end_user: str | None = None
    allowed_origins: tuple[str, ...] | None = None
    allowed_models: tuple[str, ...] | None = None
    seconds: int = DEFAULT_SECONDS
    spend_cap_microusd: int | None = None
    request_cap: int | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token; None in a list means all, in a cap none of its own. `spent_microusd` has what calls under way hold in it."""

    id: UUID
    workspace_id: UUID
    app_id: UUID | None
    end_user: str | None
    key_id: UUID | None
    creator: Actor
    allowed_origins: tuple[str, ...] | None
    allowed_models: tuple[str, ...] | None
    spend_cap_microusd: int | None
    spent_microusd: int
    request_cap: int | None
    requests: int
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine token says of itself; whether it still works only its row tells."""

    id: UUID
    workspace_id: UUID


def _used(measure: Measure) -> str:
    return f"""coalesce((SELECT sum(w.spent + w.held) FROM bound b JOIN bound_window w ON w.workspace_id = b.workspace_id AND w.bound_id = b.id
        WHERE b.workspace_id = t.workspace_id AND b.subject_kind = '{SUBJECT}' AND b.subject_id = t.id AND b.measure = '{measure.value}'), 0)::bigint"""


_SELECT = f"""
    SELECT t.*, {_used(Measure.MONEY)} AS spent, {_used(Measure.CALLS)} AS requests FROM client_token t
"""
_WORKS = """t.revoked_at IS NULL AND t.expires_at > clock_timestamp()
    AND NOT EXISTS (SELECT FROM api_key k WHERE k.workspace_id = t.workspace_id AND k.id = t.key_id
        AND (k.revoked_at IS NOT NULL OR k.expires_at <= clock_timestamp()))"""


def _view(row: asyncpg.Record) -> TokenView:
    def listed(values: list[str] | None) -> tuple[str, ...] | None:
        return None if values is None else tuple(values)

    return TokenView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        app_id=row["app_id"],
        end_user=row["end_user"],
        key_id=row["key_id"],
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        allowed_origins=listed(row["allowed_origins"]),
        allowed_models=listed(row["allowed_models"]),
        spend_cap_microusd=row["spend_cap"],
        spent_microusd=row["spent"],
        request_cap=row["request_cap"],
        requests=row["requests"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )


def looks_like(credential: str) -> bool:
    """Tell whether a credential has the shape of a token, without believing it."""
    return credential.count(".") == 2


def named(claims: Claims) -> str:
    """Return the text by which a process names a token that it has read; no client can send it as a credential."""
    return f"{_NAMED}{claims.workspace_id}:{claims.id}"


def claims_of(name: str) -> Claims | None:
    """Return the claims that `named` was given; None for any other text."""
    if not name.startswith(_NAMED):
        return None
    workspace_id, _, token_id = name.removeprefix(_NAMED).partition(":")
    return Claims(UUID(token_id), UUID(workspace_id))


async def prove(claims: Claims, whence: Whence | None = None) -> None:
    """Raise Unauthenticated when a token does not work now: one indexed look-up.

    With `whence`, Forbidden when it may not be used from that origin, or its app is switched off.
    """
    row = await database.fetch_row(
        f"""
        SELECT t.allowed_origins, p.suspended_at FROM client_token t
          LEFT JOIN app p ON p.workspace_id = t.workspace_id AND p.id = t.app_id AND p.deleted_at IS NULL
         WHERE t.workspace_id = $1 AND t.id = $2 AND (t.app_id IS NULL OR p.id IS NOT NULL) AND {_WORKS}
        """,
        claims.workspace_id,
        claims.id,
    )
    if row is None:
        raise Unauthenticated("This client token is unknown, revoked or expired.")
    if whence is None:
        return
    if row["suspended_at"] is not None:
        raise Forbidden("The app of this client token is switched off by its owner.")
    if row["allowed_origins"] is not None and whence.origin not in row["allowed_origins"]:
        raise Forbidden("This client token may not be used from this origin.")


async def models_of(claims: Claims) -> frozenset[str] | None:
    """Return the models that a token is held to; None when it is held to none."""
    names = await database.fetch_value("SELECT allowed_models FROM client_token WHERE workspace_id = $1 AND id = $2", claims.workspace_id, claims.id)
    return None if names is None else frozenset(names)


def signing_key(secret: str) -> bytes:
    """A key of its own, so that nothing else that the installation signs can pass for a token."""
    return hmac.digest(secret.encode(), _PURPOSE, hashlib.sha256)


def sign(secret: str, token: TokenView) -> str:
    """Return what the browser holds: a JWT (RFC 7519) that names the row, the instant at which it ends, and digests of its origins."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": str(token.id),
        "sub": str(token.workspace_id),
        "iat": int(token.created_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
        **({} if token.allowed_origins is None else {ORIGINS: [_digest(origin) for origin in token.allowed_origins]}),
    }
    return jwt.encode(claims, signing_key(secret), algorithm=ALGORITHM)


def read(secret: str, token: str, at: datetime) -> Claims:
    """Return what a token says; raises Unauthenticated for one that is not ours, is over, or would live longer than any of ours."""
    try:
        claims = _decoded(secret, token)
        made, ends = claims["iat"], claims["exp"]
        if type(made) is not int or type(ends) is not int or not 0 < ends - made <= LONGEST_SECONDS or ends <= at.timestamp():
            raise Unauthenticated("This client token is over.")
        return Claims(UUID(claims["jti"]), UUID(claims["sub"]))
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, AttributeError):
        raise Unauthenticated("This client token is unknown, revoked or expired.") from None


def opens_to(secret: str, token: str, origin: str) -> bool:
    """Tell whether pages of an origin may read what a token is answered: it is one of ours, over or not, and bound to this origin or to none."""
    try:
        origins = _decoded(secret, token).get(ORIGINS)
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, AttributeError):
        return False
    return origins is None or _digest(origin) in origins


def _decoded(secret: str, token: str) -> dict[str, Any]:
    """Return the claims of a token that we signed, in time or not; raises what PyJWT raises."""
    claims: dict[str, Any] = jwt.decode(
        token,
        signing_key(secret),
        algorithms=[ALGORITHM],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": ["exp", "iat", "jti", "sub"], "verify_exp": False, "verify_iat": False},
    )
    return claims


def _digest(origin: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(origin.encode()).digest()[:12]).decode()


async def create(caller: Caller, new: NewToken, addresses: Addresses, *, offered: Collection[str] = (), audited: bool = True) -> TokenView:
    """Make a token. A key's own restrictions and bounds hold for every token it makes, and the token stops with the key.

    Without origins or models of its own it has those of the app's manifest, the app's own origin among them; the manifest's caps hold unless it
    asks for less. Raises NotFound for an app or a model that there is not, WiderThanCaller for more than the calling key may, InvalidInput and
    OutOfRange. A repeat with the same idempotency key is the first token, which signed is the same text, and InvalidState once that is over. One
    that is not `audited` leaves no line in the audit log: visitors of an app are no callers.
    """
    workspace_id = caller.require(Scope.CLIENT_TOKENS_WRITE)
    _check(new)
    app = None if new.app_id is None else await _app(workspace_id, new.app_id)
    manifest = {} if app is None else app.manifest
    caps = manifest.get("caps", {})
    key = await keys.own(caller)
    origins, models = new.allowed_origins, await _named(new.allowed_models, offered)
    if key is not None:
        _refuse_wider(key.allowed_origins, origins, "allowedOrigins")
        _refuse_wider(key.allowed_models, models, "allowedModels")
    if origins is None and app is not None:
        origins = _within(tuple(dict.fromkeys((addresses.origin(app.slug), *manifest.get("allowedOrigins", ())))), key.allowed_origins if key else None)
    if models is None and "models" in manifest:
        models = _within(await _known(manifest["models"], offered), key.allowed_models if key else None)
    token_id = uuid7()
    ends = caller.at.replace(microsecond=0) + timedelta(seconds=new.seconds)
    spend_cap = _least(new.spend_cap_microusd, caps.get("spendCapMicrousd"))
    request_cap = _least(new.request_cap, caps.get("requestCap"))
    async with database.transaction():
        if new.idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "clientTokenCreate", new.idempotency_key, _input(caller, new), token_id)
            if first is not None:
                return await _repeated(workspace_id, first, at=caller.at)
        if new.end_user is not None:
            await end_users.name(workspace_id, new.app_id, new.end_user, at=caller.at)
        await database.fetch(
            """
            INSERT INTO client_token (workspace_id, id, app_id, end_user, key_id, creator_kind, creator_id, creator_name, allowed_origins, allowed_models,
                                      spend_cap, request_cap, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            """,
            workspace_id,
            token_id,
            new.app_id,
            new.end_user,
            key.id if key else None,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            origins if origins is not None or key is None else key.allowed_origins,
            models if models is not None or key is None else key.allowed_models,
            spend_cap,
            request_cap,
            caller.at.replace(microsecond=0),
            ends,
        )
        # Both bounds always: admission and settlement then count what the token uses, whether it is capped or not.
        for place, (measure, most) in enumerate(((Measure.MONEY, spend_cap), (Measure.CALLS, request_cap))):
            await database.fetch(
                """
                INSERT INTO bound (workspace_id, id, subject_kind, subject_id, measure, "window", most, per, position, created_at)
                VALUES ($1, $2, $3, $4, $5, 'lifetime', $6, $7, $8, $9)
                """,
                workspace_id,
                uuid7(),
                SUBJECT,
                token_id,
                measure.value,
                LARGEST_MICROUSD if most is None else most,
                LimitPer.TOGETHER.value,
                place,
                caller.at,
            )
        # Those of tokens that are over leave the list that admission looks through.
        await database.fetch(
            f"""
            UPDATE bound SET removed_at = $2 WHERE workspace_id = $1 AND id IN (
              SELECT b.id FROM bound b JOIN client_token t ON t.workspace_id = b.workspace_id AND t.id = b.subject_id AND t.expires_at < $2
               WHERE b.workspace_id = $1 AND b.subject_kind = '{SUBJECT}' AND b.removed_at IS NULL FOR NO KEY UPDATE OF b SKIP LOCKED)
            """,
            workspace_id,
            caller.at,
        )
        made = await _again(workspace_id, token_id)
        if audited:
            await audit.note(
                caller.actor,
                "clientToken.create",
                ("ClientToken", token_id),
                audit.difference(None, _told(made)),
                workspace_id=workspace_id,
                at=caller.at,
            )
    return made


def _input(caller: Caller, new: NewToken) -> list[object]:
    """What an idempotency key remembers: the request and whose it was, because a token may do what its maker may."""
    asked = [new.app_id, new.end_user, new.allowed_origins, new.allowed_models, new.seconds, new.spend_cap_microusd, new.request_cap]
    return [caller.actor.kind, caller.actor.id, *asked]


async def _repeated(workspace_id: UUID, token_id: UUID, *, at: datetime) -> TokenView:
    row = await database.fetch_row(f"{_SELECT} WHERE t.workspace_id = $1 AND t.id = $2 AND t.expires_at > $3", workspace_id, token_id, at)
    if row is None:
        raise InvalidState("The token that this idempotency key made is over: make another one.", state="expired", path=("idempotencyKey",))
    return _view(row)


def _told(made: TokenView) -> dict[str, object]:
    return {
        "appId": made.app_id,
        "endUserId": made.end_user,
        "allowedOrigins": made.allowed_origins,
        "allowedModels": made.allowed_models,
        "spendCap": made.spend_cap_microusd,
        "requestCap": made.request_cap,
        "expiresAt": made.expires_at,
    }


async def revoke_one(caller: Caller, token_id: UUID) -> int:
    """Revoke a token, and return how many worked until now: 1 or 0. Raises NotFound."""
    workspace_id = caller.require(Scope.CLIENT_TOKENS_WRITE)
    if not await database.fetch_value("SELECT EXISTS (SELECT FROM client_token WHERE workspace_id = $1 AND id = $2)", workspace_id, token_id):
        raise NotFound("client token", path=("id",))
    return await _revoke(caller, "id", token_id, ("ClientToken", token_id))


async def revoke_of_app(caller: Caller, app_id: UUID) -> int:
    """Revoke every token of an app, and return how many worked until now. Raises NotFound."""
    await _app(caller.require(Scope.CLIENT_TOKENS_WRITE), app_id)
    return await _revoke(caller, "app_id", app_id, ("App", app_id))


async def revoke_of_key(caller: Caller, key_id: UUID) -> int:
    """Revoke every token that a key made, and return how many worked until now. Raises NotFound."""
    workspace_id = caller.require(Scope.CLIENT_TOKENS_WRITE)
    if not await database.fetch_value("SELECT EXISTS (SELECT FROM api_key WHERE workspace_id = $1 AND id = $2)", workspace_id, key_id):
        raise NotFound("key", path=("apiKeyId",))
    return await _revoke(caller, "key_id", key_id, ("ApiKey", key_id))


async def revoke_of_end_user(caller: Caller, end_user_id: UUID) -> int:
    """Revoke every token of an end user, and return how many worked until now. Raises NotFound."""
    workspace_id = caller.require(Scope.CLIENT_TOKENS_WRITE)
    row = await database.fetch_row("SELECT app_id, external_id FROM end_user WHERE workspace_id = $1 AND id = $2", workspace_id, end_user_id)
    if row is None:
        raise NotFound("end user", path=("endUserId",))
    return await _revoke(caller, "app_id IS NOT DISTINCT FROM $3 AND t.end_user", row["external_id"], ("EndUser", end_user_id), row["app_id"])


async def _revoke(caller: Caller, column: str, value: UUID | str, subject: audit.Subject, *more: object) -> int:
    async with database.transaction():
        rows = await database.fetch(
            f"UPDATE client_token t SET revoked_at = clock_timestamp() WHERE t.workspace_id = $1 AND t.{column} = $2 AND {_WORKS} RETURNING t.id",
            caller.workspace(),
            value,
            *more,
        )
        if rows:
            told = {"revokedCount": (None, len(rows))}
            await audit.note(caller.actor, "clientToken.revoke", subject, told, workspace_id=caller.workspace(), at=caller.at)
    return len(rows)


async def retire(at: datetime) -> int:
    """Let tokens go that were over a day before `at`, and return how many: those that were used when the calls that name them are gone, the others at once.

    Any process may do it at any time, and may die over it.
    """
    gone = 0
    while some := int(await database.fetch_value("SELECT retire_tokens_1($1, $2)", at, RETIRED_AT_ONCE)):
        gone += some
    return gone


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, TokenView]:
    """Return those of the workspace's tokens that have these ids, by id."""
    rows = await database.fetch(f"{_SELECT} WHERE t.workspace_id = $1 AND t.id = ANY ($2)", caller.require(Scope.APPS_READ), list(ids))
    return {row["id"]: _view(row) for row in rows}


async def find(caller: Caller, token_id: UUID) -> TokenView:
    """Return a token of the workspace; raises NotFound for another's too."""
    found = await find_many(caller, [token_id])
    if token_id not in found:
        raise NotFound("client token", path=("id",))
    return found[token_id]


async def page(caller: Caller, app_id: UUID, page: Page) -> PageOf[TokenView]:
    """Return a page of an app's tokens that still work, newest first."""
    keyset = newest_first(page, column="t.id", offset=2)
    rows = await database.fetch(
        f"{_SELECT} WHERE t.workspace_id = $1 AND t.app_id = $2 AND {_WORKS} {keyset.where} {keyset.order}",
        caller.require(Scope.APPS_READ),
        app_id,
        *keyset.arguments,
    )
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller, app_id: UUID) -> int:
    """Return how many of an app's tokens still work."""
    statement = f"SELECT count(*) FROM client_token t WHERE t.workspace_id = $1 AND t.app_id = $2 AND {_WORKS}"
    return int(await database.fetch_value(statement, caller.require(Scope.APPS_READ), app_id))


async def _again(workspace_id: UUID, token_id: UUID) -> TokenView:
    row = await database.fetch_row(f"{_SELECT} WHERE t.workspace_id = $1 AND t.id = $2", workspace_id, token_id)
    assert row is not None, "it was made just now"
    return _view(row)


async def _app(workspace_id: UUID, app_id: UUID) -> AppView:
    app = await registry.of_workspace(workspace_id, app_id)
    if app is None:
        raise NotFound("app", path=("appId",))
    return app


async def _known(names: Collection[str], offered: Collection[str]) -> tuple[str, ...]:
    """The own names of models; what a manifest names and nobody offers stays, and matches nothing."""
    own = await catalogue.own_names(names) | {name: name for name in offered}
    return tuple(dict.fromkeys(own.get(name, name) for name in names))


async def _named(names: tuple[str, ...] | None, offered: Collection[str]) -> tuple[str, ...] | None:
    if not names:
        return names
    own = await catalogue.own_names(names) | {name: name for name in offered}
    for place, name in enumerate(names):
        if name not in own:
            raise NotFound("model", path=("allowedModels", str(place)))
    return tuple(dict.fromkeys(own[name] for name in names))


def _within(values: tuple[str, ...], most: tuple[str, ...] | None) -> tuple[str, ...]:
    return values if most is None else tuple(value for value in values if value in most)


def _least(asked: int | None, most: int | None) -> int | None:
    """A cap of the token, never above the manifest's."""
    return min((cap for cap in (asked, most) if cap is not None), default=None)


def _refuse_wider(mine: tuple[str, ...] | None, asked: tuple[str, ...] | None, field: str) -> None:
    if mine is not None and asked is not None and not set(asked) <= set(mine):
        raise WiderThanCaller("Wider than what the calling key may use.", path=(field,))


def _check(new: NewToken) -> None:
    ranges = (
        ("expiresInSeconds", new.seconds, SHORTEST_SECONDS, LONGEST_SECONDS),
        ("spendCap", new.spend_cap_microusd, 0, LARGEST_MICROUSD),
        ("requestCap", new.request_cap, 1, LARGEST_REQUEST_CAP),
    )
    for field, value, least, most in ranges:
        if value is not None and not least <= value <= most:
            raise OutOfRange(f"It is {least} to {most}.", minimum=least, maximum=most, too_large=value > most, path=(field,))
    if new.end_user is not None:
        end_users.check_name(new.end_user, path=("endUserId",))
    keys.check_restrictions(models=new.allowed_models, origins=new.allowed_origins)
