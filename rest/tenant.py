"""Document 4's tenant routes: a workspace's keys and credit, in snake_case and micros."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator

from domain.access import keys
from domain.access.keys import KeyView
from domain.money import ledger
from models.enums import ApiKeyKind, ApiKeyStatus, Scope
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Instant, Nothing, Told, choice
from rest.keys import every_key, make_key, parse_key_id
from rest.shapes import TYPED, TypedError


def _underscored(kind: str) -> str:
    """Mend the hyphen of the document's prose, `pay-per-token`."""
    return kind.replace("-", "_")


class TenantKey(Told):
    """A key, without its secret."""

    id: UUID
    name: str | None
    kind: ApiKeyKind
    prefix: str
    suffix: str
    status: ApiKeyStatus
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


class MintedKey(TenantKey):
    """A key that was made; `key` is its secret, shown this once."""

    key: str


class TenantKeys(Told):
    """The workspace's keys, newest first."""

    data: list[TenantKey]


class TenantKeyBody(Asked):
    """A key to make: of the caller's own kind, and for ever, where nothing is said."""

    name: str | None = None
    kind: Annotated[ApiKeyKind | None, BeforeValidator(choice(ApiKeyKind, _underscored))] = None
    expires_at: Instant | None = None


class TenantCredits(Told):
    """Prepaid credit in micros of a US dollar: `available_micros` is what can be spent, after what calls under way hold."""

    balance_micros: int
    available_micros: int
    held_micros: int
    currency: str


def _told(key: KeyView) -> TenantKey:
    return TenantKey(
        id=key.id,
        name=key.name,
        kind=key.kind,
        prefix=key.secrets[0].prefix,
        suffix=key.secrets[0].suffix,
        status=key.status,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
    )


async def _list_keys(ask: Ask[Nothing]) -> TenantKeys:
    return TenantKeys(data=[_told(key) for key in await every_key(ask.caller)])


async def _make_key(ask: Ask[TenantKeyBody]) -> MintedKey:
    key, secret = await make_key(ask.caller, ask.given.name, ask.given.kind, ask.given.expires_at)
    return MintedKey(**dict(_told(key)), key=secret)


async def _find_key(ask: Ask[Nothing]) -> TenantKey:
    return _told(await keys.find(ask.caller, parse_key_id(ask.path["id"])))


async def _revoke_key(ask: Ask[Nothing]) -> None:
    ask.caller.require(Scope.KEYS_WRITE)
    await keys.revoke(ask.caller, parse_key_id(ask.path["id"]))


async def _credits(ask: Ask[Nothing]) -> TenantCredits:
    balance = await ledger.balance(ask.caller.require(Scope.BILLING_READ))
    return TenantCredits(balance_micros=balance.balance, available_micros=balance.available, held_micros=balance.held, currency="USD")


DOCUMENT = Document(
    name="Gateway: tenant",
    shape=lambda headers: TYPED,
    errors=TypedError,
    operations=(
        Operation("GET", "/tenant/keys", "The workspace's keys, newest first.", Nothing, TenantKeys, _list_keys),
        Operation("POST", "/tenant/keys", "Mint a key; its secret is shown this once.", TenantKeyBody, MintedKey, _make_key, status=201, refusals=(400, 413)),
        Operation("GET", "/tenant/keys/{id}", "One key's metadata.", Nothing, TenantKey, _find_key, refusals=(404,)),
        Operation(
            "DELETE", "/tenant/keys/{id}", "Revoke a key: its next request fails, streams under way go on.", Nothing, None, _revoke_key, status=204, refusals=(404,)
        ),
        Operation("GET", "/tenant/credits", "Prepaid credit.", Nothing, TenantCredits, _credits),
    ),
)
