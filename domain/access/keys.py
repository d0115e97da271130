"""API keys: made, shown, changed, rotated, revoked. A secret is shown once, and a key never makes or changes one wider than itself."""

import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final
from uuid import UUID

import asyncpg

from domain import audit, idempotency
from domain.access import limits, secrets
from domain.access.callers import Actor, Caller
from domain.access.limits import BoundInput
from domain.access.workspaces import check_name
from domain.errors import InvalidInput, InvalidState, NotFound, OutOfRange, WiderThanCaller
from domain.money import catalogue
from domain.pages import Page, PageOf, cut, newest_first
from models import database
from models.enums import ActorKind, ApiKeyKind, ApiKeyMode, ApiKeyStatus, Measure, Scope, SubjectKind
from models.ids import uuid7

DEFAULT_SCOPES = frozenset(
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
        Scope.BILLING_READ,
        Scope.BILLING_WRITE,
    }
)
"""What a workspace key does in the documents: all of them, and nothing beyond."""
LONGEST_GRACE_SECONDS = 604_800
REPEAT_SECONDS = 86_400
MOST_ENTRIES = 100
COUNTS = (Measure.CALLS, Measure.TOKENS, Measure.CONCURRENT)


class Unset(Enum):
    """The mark of a change that was not asked for, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to make; None means unrestricted, or for `scopes` what a workspace key does."""

    name: str | None = None
    kind: ApiKeyKind = ApiKeyKind.PAY_PER_TOKEN
    mode: ApiKeyMode = ApiKeyMode.LIVE
    scopes: frozenset[Scope] | None = None
    allowed_models: tuple[str, ...] | None = None
    allowed_origins: tuple[str, ...] | None = None
    allowed_addresses: tuple[str, ...] | None = None
    budgets: tuple[BoundInput, ...] = ()
    limits: tuple[BoundInput, ...] = ()
    expires_at: datetime | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """What to change of a key; UNSET stays as it is."""

    name: str | Unset | None = UNSET
    allowed_models: tuple[str, ...] | Unset | None = UNSET
    allowed_origins: tuple[str, ...] | Unset | None = UNSET
    allowed_addresses: tuple[str, ...] | Unset | None = UNSET
    budgets: tuple[BoundInput, ...] | Unset = UNSET
    limits: tuple[BoundInput, ...] | Unset = UNSET
    expires_at: datetime | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Narrows a list of keys; None matches all."""

    statuses: tuple[ApiKeyStatus, ...] | None = None
    kinds: tuple[ApiKeyKind, ...] | None = None
    name_contains: str | None = None


@dataclass(frozen=True, slots=True)
class SecretView:
    """What is known of one secret of a key."""

    fingerprint: str
    prefix: str
    suffix: str
    created_at: datetime
    works_until: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key; `secrets` newest first, never empty."""

    id: UUID
    workspace_id: UUID
    name: str | None
    kind: ApiKeyKind
    mode: ApiKeyMode
    status: ApiKeyStatus
    scopes: frozenset[Scope]
    allowed_models: tuple[str, ...] | None
    allowed_origins: tuple[str, ...] | None
    allowed_addresses: tuple[str, ...] | None
    creator: Actor
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    secrets: tuple[SecretView, ...]

    @property
    def last_used_at(self) -> datetime | None:
        """When any of its secrets was last used, to within a minute."""
        return max((secret.last_used_at for secret in self.secrets if secret.last_used_at), default=None)


_STATUS = """CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= clock_timestamp() THEN 'expired' ELSE 'active' END"""
_SELECT = f"""
    SELECT k.id, k.workspace_id, k.name, k.kind, k.mode, {_STATUS} AS status, k.scopes, k.allowed_models, k.allowed_origins, k.allowed_addresses,
           k.creator_kind, k.creator_id, k.creator_name, k.created_at, k.expires_at, k.revoked_at,
           (SELECT array_agg(ROW(s.hash, s.prefix, s.suffix, s.created_at, s.works_until, s.last_used_at) ORDER BY s.created_at DESC, s.works_until NULLS FIRST)
              FROM api_key_secret s WHERE s.workspace_id = k.workspace_id AND s.key_id = k.id) AS secrets
      FROM api_key k
"""
_FILTER = f"""
    WHERE k.workspace_id = $1 AND ($2::text[] IS NULL OR {_STATUS} = ANY ($2)) AND ($3::text[] IS NULL OR k.kind = ANY ($3))
      AND ($4::text IS NULL OR position(lower($4) IN lower(coalesce(k.name, ''))) > 0)
"""


def _view(row: asyncpg.Record) -> KeyView:
    return KeyView(
        id=row["id"],
        workspace_id=row["workspace_id"],
        name=row["name"],
        kind=ApiKeyKind(row["kind"]),
        mode=ApiKeyMode(row["mode"]),
        status=ApiKeyStatus(row["status"]),
        scopes=frozenset(Scope(scope) for scope in row["scopes"]),
        allowed_models=_tuple(row["allowed_models"]),
        allowed_origins=_tuple(row["allowed_origins"]),
        allowed_addresses=_tuple(row["allowed_addresses"]),
        creator=Actor(ActorKind(row["creator_kind"]), row["creator_id"], row["creator_name"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        secrets=tuple(SecretView(*secret) for secret in row["secrets"]),
    )


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _filter(caller: Caller, wanted: KeyFilter) -> tuple[UUID, list[str] | None, list[str] | None, str | None]:
    if "\x00" in (wanted.name_contains or ""):
        raise InvalidInput("No name has a zero byte.", path=("filter", "nameContains"))
    return (
        caller.require(Scope.KEYS_READ),
        None if wanted.statuses is None else [status.value for status in wanted.statuses],
        None if wanted.kinds is None else [kind.value for kind in wanted.kinds],
        wanted.name_contains,
    )


async def page(caller: Caller, page: Page, wanted: KeyFilter | None = None) -> PageOf[KeyView]:
    """Return a page of the workspace's keys, newest first; revoked ones stay listed."""
    arguments = _filter(caller, wanted or KeyFilter())
    keyset = newest_first(page, column="k.id", offset=len(arguments))
    rows = await database.fetch(f"{_SELECT} {_FILTER} {keyset.where} {keyset.order}", *arguments, *keyset.arguments)
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller, wanted: KeyFilter | None = None) -> int:
    """Return how many keys match."""
    return int(await database.fetch_value(f"SELECT count(*) FROM api_key k {_FILTER}", *_filter(caller, wanted or KeyFilter())))


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, KeyView]:
    """Return those of the workspace's keys that have these ids, by id; the caller's own key needs no scope."""
    if set(ids) != {caller.key_id}:
        caller.require(Scope.KEYS_READ)
    rows = await database.fetch(f"{_SELECT} WHERE k.workspace_id = $1 AND k.id = ANY ($2)", caller.workspace(), list(ids))
    return {row["id"]: _view(row) for row in rows}


async def find(caller: Caller, key_id: UUID) -> KeyView:
    """Return one key of the workspace; raises NotFound for another's too."""
    found = await find_many(caller, [key_id])
    if key_id not in found:
        raise NotFound("key", path=("id",))
    return found[key_id]


async def create(caller: Caller, new: NewKey, *, offered: Collection[str] = (), seed: bytes | None = None) -> tuple[KeyView, str | None]:
    """Make a key and return it with its secret, which is nowhere else.

    Models are named as the catalogue has them, or as `offered` has besides (`auto` and its like); an alias is kept as its model's own name.
    A repeat with the same idempotency key returns the first key and no secret; with the `seed` (`secrets.seed`) that its secret was made of, the
    secret too, for REPEAT_SECONDS, and InvalidState with another or later. Raises WiderThanCaller for more than the caller's own
    rights, NotFound for a model that there is not, InvalidInput and its kin for malformed values, IdempotencyConflict.
    """
    workspace_id = caller.require(Scope.KEYS_WRITE)
    _check(new.name, new.allowed_models, new.allowed_origins, new.allowed_addresses)
    if new.expires_at is not None and new.expires_at <= caller.at:
        raise InvalidInput("A key must expire in the future.", path=("expiresAt",))
    limits.check(new.budgets, path="budgets")
    limits.check(new.limits, path="limits")
    scopes = (DEFAULT_SCOPES & caller.scopes) if new.scopes is None else new.scopes
    if not scopes <= caller.scopes:
        missing = ", ".join(sorted(scope.name for scope in scopes - caller.scopes))
        raise WiderThanCaller(f"You do not hold {missing} yourself.", path=("scopes",))
    minter = await _own_key(caller)
    wanted = replace(new, **await _named(new, offered))
    if minter is not None:
        wanted = _within(minter, wanted)
    key_id = uuid7()
    secret = secrets.make(wanted.mode) if seed is None else secrets.remake(wanted.mode, seed, key_id)
    async with database.transaction():
        if new.idempotency_key is not None:
            first = await idempotency.claim(workspace_id, "apiKeyCreate", new.idempotency_key, _input(new), key_id)
            if first is not None:
                key = await _again(workspace_id, first)
                return key, None if seed is None else _secret_again(key, seed, at=caller.at)
        await database.fetch(
            """
            INSERT INTO api_key (workspace_id, id, name, kind, mode, scopes, allowed_models, allowed_origins, allowed_addresses,
                                 creator_kind, creator_id, creator_name, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            """,
            workspace_id,
            key_id,
            check_name(wanted.name) if wanted.name else None,
            wanted.kind.value,
            wanted.mode.value,
            sorted(scope.value for scope in scopes),
            wanted.allowed_models,
            wanted.allowed_origins,
            wanted.allowed_addresses,
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
            caller.at,
            wanted.expires_at,
        )
        await _insert_secret(workspace_id, key_id, secret, at=caller.at)
        if wanted.budgets:
            await limits.replace(workspace_id, SubjectKind.KEY, key_id, (Measure.MONEY,), wanted.budgets, at=caller.at)
        if wanted.limits:
            await limits.replace(workspace_id, SubjectKind.KEY, key_id, COUNTS, wanted.limits, at=caller.at)
        told = audit.difference(None, await _told(workspace_id, key_id))
        await audit.note(caller.actor, "apiKey.create", ("ApiKey", key_id), told, workspace_id=workspace_id, at=caller.at)
    made = await database.fetch_row(f"{_SELECT} WHERE k.workspace_id = $1 AND k.id = $2", workspace_id, key_id)
    assert made is not None
    return _view(made), secret


def _secret_again(key: KeyView, seed: bytes, *, at: datetime) -> str:
    secret = secrets.remake(key.mode, seed, key.id)
    if at - key.created_at > timedelta(seconds=REPEAT_SECONDS) or secrets.fingerprint(secret) not in {each.fingerprint for each in key.secrets}:
        message = f"This idempotency key has made the key {key.id}. Its secret is told again only to the same credential, and within a day."
        raise InvalidState(message, state=key.status.value, path=("idempotencyKey",))
    return secret


async def update(caller: Caller, key_id: UUID, changes: KeyChanges, *, offered: Collection[str] = ()) -> KeyView:
    """Change what a key is called and may do; models as for `create`.

    Raises NotFound for a key or a model that there is not, InvalidState for a revoked key, WiderThanCaller, InvalidInput.
    """
    workspace_id = caller.require(Scope.KEYS_WRITE)
    key = await _managed(caller, key_id)
    if key.status is ApiKeyStatus.REVOKED:
        raise InvalidState("A revoked key cannot be changed.", state=key.status.value, path=("id",))
    values = {
        "name": changes.name,
        "allowed_models": changes.allowed_models,
        "allowed_origins": changes.allowed_origins,
        "allowed_addresses": changes.allowed_addresses,
        "expires_at": changes.expires_at,
    }
    asked = {column: value for column, value in values.items() if value is not UNSET}
    _check(
        *(
            None if values[column] is UNSET else values[column]  # type: ignore[arg-type]  # UNSET is gone here
            for column in ("name", "allowed_models", "allowed_origins", "allowed_addresses")
        )
    )
    if asked.get("name"):
        asked["name"] = check_name(str(asked["name"]))
    for name, bounds in (("budgets", changes.budgets), ("limits", changes.limits)):
        if not isinstance(bounds, Unset):
            limits.check(bounds, path=name)
    changes = replace(changes, **await _named(changes, offered))
    if not isinstance(changes.allowed_models, Unset):
        asked["allowed_models"] = changes.allowed_models
    minter = await _own_key(caller)
    if minter is not None:
        _refuse_widening(minter, key, changes)
    async with database.transaction():
        before = await _told(workspace_id, key_id)
        if asked:
            assignments = ", ".join(f"{column} = ${index}" for index, column in enumerate(asked, start=3))
            await database.fetch(f"UPDATE api_key SET {assignments} WHERE workspace_id = $1 AND id = $2", workspace_id, key_id, *asked.values())
        if not isinstance(changes.budgets, Unset):
            await limits.replace(workspace_id, SubjectKind.KEY, key_id, (Measure.MONEY,), changes.budgets, at=caller.at)
        if not isinstance(changes.limits, Unset):
            await limits.replace(workspace_id, SubjectKind.KEY, key_id, COUNTS, changes.limits, at=caller.at)
        told = audit.difference(before, await _told(workspace_id, key_id))
        await audit.note(caller.actor, "apiKey.update", ("ApiKey", key_id), told, workspace_id=workspace_id, at=caller.at)
    return await _again(workspace_id, key_id)


async def rotate(caller: Caller, key_id: UUID, grace_seconds: int = 86_400) -> tuple[KeyView, str]:
    """Give a key a new secret and return it; every older one works `grace_seconds` more at most, 0 to 604800.

    Raises NotFound, OutOfRange, WiderThanCaller, and InvalidState for a key that does not work any more.
    """
    workspace_id = caller.require(Scope.KEYS_WRITE)
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise OutOfRange(
            f"The grace is 0 to {LONGEST_GRACE_SECONDS} seconds.",
            minimum=0,
            maximum=LONGEST_GRACE_SECONDS,
            too_large=grace_seconds > 0,
            path=("graceSeconds",),
        )
    key = await _managed(caller, key_id)
    secret = secrets.make(key.mode)
    async with database.transaction():
        alive = await database.fetch_row(
            "SELECT FROM api_key k WHERE k.workspace_id = $1 AND k.id = $2 AND k.revoked_at IS NULL FOR NO KEY UPDATE", workspace_id, key_id
        )
        if alive is None or key.status is not ApiKeyStatus.ACTIVE:
            raise InvalidState("Only a key that works can be rotated.", state=key.status.value, path=("id",))
        until = caller.at + timedelta(seconds=grace_seconds)
        await database.fetch(
            "UPDATE api_key_secret SET works_until = least(coalesce(works_until, $3), $3) WHERE workspace_id = $1 AND key_id = $2",
            workspace_id,
            key_id,
            until,
        )
        await _insert_secret(workspace_id, key_id, secret, at=caller.at)
        told = {"suffix": (key.secrets[0].suffix, secret[-4:])}
        await audit.note(caller.actor, "apiKey.rotate", ("ApiKey", key_id), told, workspace_id=workspace_id, at=caller.at)
    return await _again(workspace_id, key_id), secret


async def revoke(caller: Caller, key_id: UUID) -> KeyView:
    """Revoke a key: its next call fails, streams under way go on. Doing it twice is no error.

    Keys of every kind, mode and lifetime revoke one another, as documents 0 and 4 promise. Raises NotFound, and WiderThanCaller where the calling key
    was narrowed to less than the other: a leaked narrow key stops nobody else's work.
    """
    workspace_id = caller.require(Scope.KEYS_WRITE)
    await _managed(caller, key_id, narrowed=_leaves)
    async with database.transaction():
        row = await database.fetch_row("SELECT revoked_at FROM api_key WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE", workspace_id, key_id)
        if row is None:
            raise NotFound("key", path=("id",))
        if row["revoked_at"] is None:
            at = await database.fetch_value(
                "UPDATE api_key SET revoked_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2 RETURNING revoked_at", workspace_id, key_id
            )
            await audit.note(caller.actor, "apiKey.revoke", ("ApiKey", key_id), {"revokedAt": (None, at)}, workspace_id=workspace_id, at=caller.at)
    return await _again(workspace_id, key_id)


async def _told(workspace_id: UUID, key_id: UUID) -> dict[str, object]:
    """What the audit log tells of a key, by the contract's names: everything that it may do, and no secret."""
    key = await _again(workspace_id, key_id)
    return {
        "name": key.name,
        "kind": key.kind.value,
        "mode": key.mode.value,
        "scopes": sorted(scope.value for scope in key.scopes),
        "allowedModels": key.allowed_models,
        "allowedOrigins": key.allowed_origins,
        "allowedAddresses": key.allowed_addresses,
        "expiresAt": key.expires_at,
        "bounds": await limits.told(workspace_id, key_id),
    }


async def _again(workspace_id: UUID, key_id: UUID) -> KeyView:
    row = await database.fetch_row(f"{_SELECT} WHERE k.workspace_id = $1 AND k.id = $2", workspace_id, key_id)
    assert row is not None, "keys are never deleted"
    return _view(row)


async def _insert_secret(workspace_id: UUID, key_id: UUID, secret: str, *, at: datetime) -> None:
    await database.fetch(
        "INSERT INTO api_key_secret (hash, workspace_id, key_id, prefix, suffix, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        secrets.fingerprint(secret),
        workspace_id,
        key_id,
        secret[:8],
        secret[-4:],
        at,
    )


def _leaves(mine: KeyView, key: KeyView) -> bool:
    """Tell whether the calling key's restrictions leave it all that another's leave that one: models, origins, addresses."""
    restrictions = (
        (mine.allowed_models, key.allowed_models),
        (mine.allowed_origins, key.allowed_origins),
        (mine.allowed_addresses, key.allowed_addresses),
    )
    return all(own is None or (theirs is not None and set(theirs) <= set(own)) for own, theirs in restrictions)


def _covers(mine: KeyView, key: KeyView) -> bool:
    """Tell whether a key may do nothing that the calling key may not."""
    return (
        (mine.kind is ApiKeyKind.PAY_PER_TOKEN or key.kind is ApiKeyKind.SUBSCRIPTION)
        and (mine.mode is ApiKeyMode.LIVE or key.mode is ApiKeyMode.TEST)
        and (mine.expires_at is None or (key.expires_at is not None and key.expires_at <= mine.expires_at))
        and _leaves(mine, key)
    )


async def _managed(caller: Caller, key_id: UUID, *, narrowed: Callable[[KeyView, KeyView], bool] = _covers) -> KeyView:
    """Return a key that the caller may change, get a new secret of or revoke: itself, or one that is no wider than itself, as `narrowed` compares them."""
    row = await database.fetch_row(f"{_SELECT} WHERE k.workspace_id = $1 AND k.id = $2", caller.workspace(), key_id)
    if row is None:
        raise NotFound("key", path=("id",))
    key = _view(row)
    mine = await _own_key(caller) if caller.key_id != key_id else None
    if not key.scopes <= caller.scopes or (mine is not None and not narrowed(mine, key)):
        raise WiderThanCaller("This key may do more than you may.", path=("id",))
    return key


async def own(caller: Caller) -> KeyView | None:
    """Return the calling key; None for a person, and for an operator's key in a workspace that is not its own."""
    if caller.key_id is None:
        return None
    row = await database.fetch_row(f"{_SELECT} WHERE k.workspace_id = $1 AND k.id = $2", caller.workspace(), caller.key_id)
    return None if row is None else _view(row)


async def _own_key(caller: Caller) -> KeyView | None:
    """Return the calling key, when it is one of this workspace; its bounds and restrictions are those of what it makes."""
    key = await own(caller)
    if key is not None and (await limits.of_subjects(caller.workspace(), [key.id])).get(key.id):
        raise WiderThanCaller("A key with budgets or limits can neither make keys nor change their bounds: it would be a way around its own.")
    return key


def _within(minter: KeyView, new: NewKey) -> NewKey:
    """Return the new key inside its minter's restrictions, which it inherits where it names none."""
    if minter.kind is ApiKeyKind.SUBSCRIPTION and new.kind is ApiKeyKind.PAY_PER_TOKEN:
        raise WiderThanCaller("A subscription key makes subscription keys only.", path=("kind",))
    if minter.mode is ApiKeyMode.TEST and new.mode is ApiKeyMode.LIVE:
        raise WiderThanCaller("A test key makes test keys only.", path=("mode",))
    if minter.expires_at is not None and new.expires_at is not None and new.expires_at > minter.expires_at:
        raise WiderThanCaller("A key cannot outlive the one that makes it.", path=("expiresAt",))
    return NewKey(
        name=new.name,
        kind=new.kind,
        mode=new.mode,
        scopes=new.scopes,
        allowed_models=_subset(minter.allowed_models, new.allowed_models, "allowedModels"),
        allowed_origins=_subset(minter.allowed_origins, new.allowed_origins, "allowedOrigins"),
        allowed_addresses=_subset(minter.allowed_addresses, new.allowed_addresses, "allowedAddresses"),
        budgets=new.budgets,
        limits=new.limits,
        expires_at=new.expires_at or minter.expires_at,
    )


def _refuse_widening(minter: KeyView, key: KeyView, changes: KeyChanges) -> None:
    if not isinstance(changes.allowed_models, Unset):
        _subset(minter.allowed_models, changes.allowed_models, "allowedModels", inherit=False)
    if not isinstance(changes.allowed_origins, Unset):
        _subset(minter.allowed_origins, changes.allowed_origins, "allowedOrigins", inherit=False)
    if not isinstance(changes.allowed_addresses, Unset):
        _subset(minter.allowed_addresses, changes.allowed_addresses, "allowedAddresses", inherit=False)
    if minter.expires_at is not None and not isinstance(changes.expires_at, Unset) and (changes.expires_at is None or changes.expires_at > minter.expires_at):
        raise WiderThanCaller("A key cannot outlive the one that changes it.", path=("expiresAt",))


def _subset(mine: tuple[str, ...] | None, theirs: tuple[str, ...] | None, field: str, *, inherit: bool = True) -> tuple[str, ...] | None:
    if mine is None:
        return theirs
    if theirs is None and inherit:
        return mine
    if theirs is None or not set(theirs) <= set(mine):
        raise WiderThanCaller("Wider than what the calling key may use.", path=(field,))
    return theirs


async def _named(wanted: NewKey | KeyChanges, offered: Collection[str]) -> dict[str, Any]:
    """Return what names models with the models' own names; raises NotFound for one that there is not.

    A name that is mistyped would shut a key out, or bound nothing at all; an alias would shut the model's own name out.
    """
    fields = {field: getattr(wanted, field) for field in ("allowed_models", "budgets", "limits") if isinstance(getattr(wanted, field), tuple)}
    models = fields.pop("allowed_models", None)
    named = {*(models or ()), *(bound.model for bounds in fields.values() for bound in bounds if bound.model is not None)}
    if not named:
        return {}
    own = await catalogue.own_names(named) | {name: name for name in offered}

    def find(name: str, *path: str) -> str:
        if name not in own:
            raise NotFound("model", path=path)
        return own[name]

    told: dict[str, Any] = {
        field: tuple(
            bound if bound.model is None else replace(bound, model=find(bound.model, field, str(place), "model")) for place, bound in enumerate(bounds)
        )
        for field, bounds in fields.items()
    }
    if models is not None:
        told["allowed_models"] = tuple(dict.fromkeys(find(name, "allowedModels", str(place)) for place, name in enumerate(models)))
    return told


def check_restrictions(*, models: tuple[str, ...] | None, origins: tuple[str, ...] | None) -> None:
    """Raise InvalidInput or OutOfRange, naming the entry, for models or origins that nothing can be held to."""
    _check(None, models, origins, None)


def _check(
    name: str | None, models: tuple[str, ...] | None, origins: tuple[str, ...] | None, addresses: tuple[str, ...] | None
) -> None:
    if name:
        check_name(name)
    for field, values in (("allowedModels", models), ("allowedOrigins", origins), ("allowedAddresses", addresses)):
        if values is not None and len(values) > MOST_ENTRIES:
            raise OutOfRange(f"At most {MOST_ENTRIES} entries.", minimum=0, maximum=MOST_ENTRIES, too_large=True, path=(field,))
        for index, value in enumerate(values or ()):
            if not 1 <= len(value) <= 200 or not value.isprintable():
                raise InvalidInput("An entry has 1 to 200 printable characters.", path=(field, str(index)))
    for index, origin in enumerate(origins or ()):
        scheme, separator, rest = origin.partition("://")
        if scheme not in ("http", "https") or not separator or not rest or "/" in rest or rest != rest.lower():
            raise InvalidInput("An origin is like https://example.com, in lower case and without a path.", path=("allowedOrigins", str(index)))
    for index, address in enumerate(addresses or ()):
        try:
            ipaddress.ip_network(address)
        except ValueError:
            raise InvalidInput("An address is like 203.0.113.0/24 or 2001:db8::/32.", path=("allowedAddresses", str(index))) from None


def _input(new: NewKey) -> list[object]:
    """What an idempotency key remembers of the request."""
    return [
        new.name,
        new.kind,
        new.mode,
        None if new.scopes is None else sorted(new.scopes),
        new.allowed_models,
        new.allowed_origins,
        new.allowed_addresses,
        [[bound.measure, bound.window, bound.most, bound.per, bound.model] for bound in (*new.budgets, *new.limits)],
        new.expires_at,
    ]
