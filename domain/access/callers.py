"""Who is calling: one function for every door, and no cache that could remember a key that is revoked."""

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

import asyncpg

from domain.access import secrets, users, workspaces
from domain.access.actors import Actor as Actor
from domain.errors import Forbidden, MissingScope, Unauthenticated
from models import database
from models.enums import ActorKind, ApiKeyKind, ApiKeyMode, Role, Scope

WORKSPACE_SCOPES = frozenset(Scope) - {Scope.OPERATOR}
ROLE_SCOPES: dict[Role, frozenset[Scope]] = {
    Role.OWNER: WORKSPACE_SCOPES,
    Role.ADMIN: WORKSPACE_SCOPES,
    Role.DEVELOPER: frozenset(
        {
            Scope.INFERENCE,
            Scope.USAGE_READ,
            Scope.USAGE_READ_ALL,
            Scope.USAGE_WRITE,
            Scope.KEYS_READ,
            Scope.KEYS_WRITE,
            Scope.CLIENT_TOKENS_WRITE,
            Scope.APPS_READ,
            Scope.APPS_WRITE,
            Scope.MEMBERS_READ,
            Scope.ALERTS_READ,
        }
    ),
    Role.BILLING: frozenset(
        {Scope.USAGE_READ, Scope.USAGE_READ_ALL, Scope.BILLING_READ, Scope.BILLING_WRITE, Scope.MEMBERS_READ, Scope.ALERTS_READ}
    ),
    Role.VIEWER: frozenset(
        {Scope.USAGE_READ, Scope.KEYS_READ, Scope.APPS_READ, Scope.BILLING_READ, Scope.MEMBERS_READ, Scope.ALERTS_READ}
    ),
}


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """What an issuer says of a signed-in person; every field has been verified."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class Whence:
    """Where a request comes from: a browser's Origin, and the client's address; None where there is none to tell."""

    origin: str | None = None
    address: str | None = None


NOWHERE = Whence()


class Sessions(Protocol):
    """Verifies session tokens of the configured issuers."""

    async def verify(self, token: str) -> SessionClaims:
        """Return the claims of a token that is genuine and in time; raises Unauthenticated otherwise, Unavailable when its issuer is away."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller who has been identified, at one instant, in one workspace.

    `workspace_id` is None only for a signed-in person who is a member of none; such a caller has no scopes, and `require` says why.
    """

    at: datetime
    workspace_id: UUID | None
    name: str
    scopes: frozenset[Scope]
    role: Role | None = None
    user_id: UUID | None = None
    key_id: UUID | None = None
    key_kind: ApiKeyKind | None = None
    key_mode: ApiKeyMode | None = None
    claims: SessionClaims | None = field(default=None, repr=False)

    @property
    def operator(self) -> bool:
        """Whether the caller runs the installation."""
        return Scope.OPERATOR in self.scopes

    @property
    def actor(self) -> Actor:
        """The caller as it is kept beside what it did."""
        if self.key_id is not None:
            return Actor(ActorKind.OPERATOR if self.operator else ActorKind.API_KEY, self.key_id, self.name)
        return Actor(ActorKind.OPERATOR if self.operator else ActorKind.USER, self.user_id, self.name)

    def workspace(self) -> UUID:
        """Return the workspace; raises Forbidden for a person who is a member of none."""
        if self.workspace_id is None:
            raise Forbidden("You are signed in, and a member of no workspace: this installation is by invitation. Ask an owner to invite you.")
        return self.workspace_id

    def require(self, *scopes: Scope) -> UUID:
        """Return the workspace when the caller has every scope; raises Forbidden, or MissingScope with those that are missing.

        A test key writes nothing that money follows from, whatever its scopes.
        """
        workspace_id = self.workspace()
        missing = tuple(scope.name for scope in scopes if scope not in self.scopes)
        if missing:
            raise MissingScope(missing)
        if self.key_mode is ApiKeyMode.TEST and Scope.BILLING_WRITE in scopes:
            raise Forbidden("A test key never touches money: use a live key, or sign in.")
        return workspace_id

    def person(self) -> UUID:
        """Return the signed-in person; raises Forbidden for a key."""
        if self.user_id is None or self.key_id is not None:
            raise Forbidden("Only a signed-in person can do this; a key cannot.")
        return self.user_id


async def identify(
    credential: str | None, workspace: str | None, *, sessions: Sessions, open_signup: bool, at: datetime, whence: Whence = NOWHERE
) -> Caller | None:
    """Return who calls with a bearer credential: an API key or a session token; None when there is none.

    `workspace` is the `X-Workspace-Id` header. Raises Unauthenticated for a credential that is not believed, and Forbidden for a
    workspace that the caller is no member of, and for a key that may not be used from where the request comes.
    """
    if not credential:
        return None
    if credential.startswith(secrets.PREFIXES):
        return await _by_key(credential, workspace, whence, at=at)
    return await _by_session(credential, workspace, sessions=sessions, open_signup=open_signup, at=at)


async def _by_key(secret: str, workspace: str | None, whence: Whence, *, at: datetime) -> Caller:
    if not secrets.well_formed(secret):
        raise Unauthenticated
    row = await database.fetch_row(
        """
        WITH touched AS (
          UPDATE api_key_secret u SET last_used_at = clock_timestamp() FROM api_key o
           WHERE u.hash = $1 AND o.workspace_id = u.workspace_id AND o.id = u.key_id AND o.revoked_at IS NULL
             AND (u.last_used_at IS NULL OR u.last_used_at < clock_timestamp() - interval '1 minute')
        )
        SELECT k.workspace_id, k.id, k.name, k.kind, k.mode, k.scopes, k.allowed_origins, k.allowed_addresses, s.suffix
          FROM api_key_secret s JOIN api_key k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
         WHERE s.hash = $1 AND (s.works_until IS NULL OR s.works_until > clock_timestamp())
           AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
        """,
        secrets.fingerprint(secret),
    )
    if row is None:
        raise Unauthenticated
    _check_whence(row, whence)
    scopes = frozenset(Scope(scope) for scope in row["scopes"])
    workspace_id: UUID = row["workspace_id"]
    if workspace is not None:
        named = workspaces.parse_id(workspace)
        if named != workspace_id:
            if named is None or Scope.OPERATOR not in scopes or not await workspaces.exists(named):
                raise Forbidden("This key belongs to another workspace than X-Workspace-Id names.")
            workspace_id = named
    return Caller(
        at=at,
        workspace_id=workspace_id,
        name=row["name"] or f"key …{row['suffix']}",
        scopes=scopes,
        role=Role.DEVELOPER,
        key_id=row["id"],
        key_kind=ApiKeyKind(row["kind"]),
        key_mode=ApiKeyMode(row["mode"]),
    )


def _check_whence(row: asyncpg.Record, whence: Whence) -> None:
    """Raise Forbidden, in the words of admission, when a key's row does not let it be used from there."""
    if row["allowed_origins"] is not None and whence.origin not in row["allowed_origins"]:
        raise Forbidden("This key may not be used from this origin.")
    if row["allowed_addresses"] is not None:
        address = ipaddress.ip_address(whence.address) if whence.address else None
        if address is None or not any(address in ipaddress.ip_network(network) for network in row["allowed_addresses"]):
            raise Forbidden("This key may not be used from this address.")


async def prove_key(secret: str, whence: Whence | None = None) -> None:
    """Raise Unauthenticated when an API key does not work now: one indexed look-up; given where it comes from, Forbidden when it may not be used there."""
    row = None
    if secrets.well_formed(secret):
        row = await database.fetch_row(
            """
            SELECT k.allowed_origins, k.allowed_addresses FROM api_key_secret s JOIN api_key k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
             WHERE s.hash = $1 AND (s.works_until IS NULL OR s.works_until > clock_timestamp())
               AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
            """,
            secrets.fingerprint(secret),
        )
    if row is None:
        raise Unauthenticated("This API key is unknown, revoked or expired.")
    if whence is not None:
        _check_whence(row, whence)


async def models_of(secret: str) -> frozenset[str] | None:
    """Return the models that a key is held to; None when it is held to none, or there is no such key."""
    names = await database.fetch_value(
        "SELECT k.allowed_models FROM api_key_secret s JOIN api_key k ON k.workspace_id = s.workspace_id AND k.id = s.key_id WHERE s.hash = $1",
        secrets.fingerprint(secret),
    )
    return None if names is None else frozenset(names)


async def key_of(secret: str) -> tuple[UUID, UUID]:
    """Return the workspace and the id of an API key that works now; raises Unauthenticated for any other."""
    row = secrets.well_formed(secret) and await database.fetch_row(
        """
        SELECT k.workspace_id, k.id FROM api_key_secret s JOIN api_key k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
         WHERE s.hash = $1 AND (s.works_until IS NULL OR s.works_until > clock_timestamp())
           AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
        """,
        secrets.fingerprint(secret),
    )
    if not row:
        raise Unauthenticated("This API key is unknown, revoked or expired.")
    return row["workspace_id"], row["id"]


async def _by_session(token: str, workspace: str | None, *, sessions: Sessions, open_signup: bool, at: datetime) -> Caller:
    claims = await sessions.verify(token)
    user = await users.signed_in(claims.issuer, claims.subject, claims.email if claims.email_verified else None, claims.name, at=at)
    places = await workspaces.of_user(user.id)
    if not places and open_signup and not user.operator:
        await workspaces.create_first(user.id, user.display_name, at=at)
        places = await workspaces.of_user(user.id)
    operator = frozenset({Scope.OPERATOR}) if user.operator else frozenset()
    named = workspaces.parse_id(workspace) if workspace is not None else None
    if workspace is not None:
        chosen = next((place for place in places if place.workspace.id == named), None)
        if chosen is None and not (user.operator and named is not None and await workspaces.exists(named)):
            raise Forbidden("You are no member of the workspace that X-Workspace-Id names.")
    else:
        chosen = next(iter(places), None)
    role = chosen.role if chosen else None
    scopes = (ROLE_SCOPES[role] if role else frozenset()) | operator
    if user.operator and role is None:
        scopes = WORKSPACE_SCOPES | operator
    return Caller(
        at=at,
        workspace_id=chosen.workspace.id if chosen else named,
        name=user.display_name,
        scopes=scopes if chosen or named or user.operator else frozenset(),
        role=role,
        user_id=user.id,
        claims=claims,
    )
