"""Records made by hand, and corrections of any record: the first event is never touched, what changes is added."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from domain import audit, idempotency
from domain.access import secrets
from domain.access.callers import Caller
from domain.errors import Forbidden, InvalidInput, InvalidState, NotFound, OutOfRange, Required
from domain.money import ledger
from domain.money.ledger import check_reason
from domain.usage import records
from domain.usage.records import RecordView
from domain.usage.windows import FIRST_YEAR
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, Scope
from models.ids import uuid7

LARGEST_UNITS = 2**53 - 1
LARGEST_CHARGE_MICROUSD = 1_000_000_000_000
LONGEST_API_NAME, LONGEST_ENDPOINT, LONGEST_KEY = 64, 100, 512
_KIND = re.compile(r"[a-z]{2,4}[_-](?:(?:live|test)[_-])?")
FUTURE = timedelta(minutes=5)
"""A client's clock may be ahead by this much; the record then counts as made now."""


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to make by hand: what was called, how much of it was used, and what it costs.

    `key_text` is the key as the client names it: kept masked, never usable. Without `key_id` the record is the calling key's, without
    `user_id` the caller's own or the key's maker's, without `at` of now.
    """

    api_name: str
    endpoint: str
    units: int
    charge_microusd: int
    key_text: str | None = None
    key_id: UUID | None = None
    app_id: UUID | None = None
    user_id: UUID | None = None
    at: datetime | None = None
    idempotency_key: str | None = None


def masked(key: str) -> str:
    """Return a key that cannot be used any more: the prefix that names its kind, and the last four characters of a long one."""
    head = _KIND.match(key)
    start = head[0] if head else ""
    return f"{start}…{key[-4:] if len(key) - len(start) >= 16 else ''}"


async def create(caller: Caller, new: NewRecord) -> RecordView:
    """Make a record and charge it to the caller's workspace, both or neither; a repeat with the same idempotency key returns the first.

    Grants pay before cash, unless the calling key is a subscription's. A test key's record costs nothing. Raises InsufficientCredit when the
    workspace cannot pay, InvalidInput and its kin, NotFound for a key or app of another workspace, Forbidden for another person, IdempotencyConflict.
    """
    workspace_id = caller.require(Scope.USAGE_WRITE)
    _check(new)
    at = _instant(caller, new.at)
    live = caller.key_mode is not ApiKeyMode.TEST
    charge = new.charge_microusd if live else 0
    if new.app_id is not None and not await database.fetch_value("SELECT EXISTS (SELECT FROM app WHERE workspace_id = $1 AND id = $2)", workspace_id, new.app_id):
        raise NotFound("app", path=("appId",))
    key_id = await _key(workspace_id, new) or caller.key_id
    user_id = await _person(caller, workspace_id, new.user_id)
    record_id = uuid7(int(at.timestamp() * 1000))
    async with database.transaction():
        if new.idempotency_key is not None:
            input_ = [new.api_name, new.endpoint, new.units, new.charge_microusd, new.key_text, *(str(each) for each in (new.key_id, new.app_id, new.user_id, new.at))]
            first = await idempotency.claim(workspace_id, "usageRecordCreate", new.idempotency_key, input_, record_id)
            if first is not None:
                return await records.of_workspace(workspace_id, first)
        if charge:
            granted = caller.key_kind is not ApiKeyKind.SUBSCRIPTION
            await ledger.charge(workspace_id, record_id, charge, app_id=new.app_id, granted=granted, actor=caller.actor)
        await database.fetch(
            """
            INSERT INTO usage_event (workspace_id, id, record_id, kind, mode, at, created_at, key_id, user_id, app_id, api_name, endpoint, streamed, outcome,
                requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens,
                characters, lines, charge_microusd, list_microusd, charge_picousd, list_picousd, upstream_cost_picousd, token_source, needs_review,
                api_key_used, actor_kind, actor_id, actor_name)
            VALUES ($1, $2, $2, 'manual', $3, $4, clock_timestamp(), $5, $6, $7, $8, $9, false, 'succeeded', 1, 0, $10, 0, 0, 0, 0, 0, 0, 0, 0,
                    $11, $11, $11 * 1000000::bigint, $11 * 1000000::bigint, 0, 'manual', false, $12, $13, $14, $15)
            """,
            workspace_id,
            record_id,
            "live" if live else "test",
            at,
            key_id,
            user_id,
            new.app_id,
            new.api_name,
            new.endpoint,
            new.units,
            charge,
            None if new.key_text is None else masked(new.key_text),
            caller.actor.kind.value,
            caller.actor.id,
            caller.actor.name[:200],
        )
        told = {"apiName": (None, new.api_name), "units": (None, new.units), "chargeMicroUsd": (None, charge)}
        await audit.note(caller.actor, "usageRecord.create", ("UsageRecord", record_id), told, workspace_id=workspace_id, at=caller.at)
        if live:
            await database.fetch("INSERT INTO usage_pending (workspace_id, event_id) VALUES ($1, $2)", workspace_id, record_id)
    return await records.of_workspace(workspace_id, record_id)


async def adjust(caller: Caller, record_id: UUID, *, units: int | None, charge_microusd: int | None, reason: str) -> RecordView:
    """Set what a record used and what it costs, None for as it is; the balance moves by the difference, below zero if need be.

    Operators only, in any workspace. Raises NotFound, InvalidState for a record that is voided, InvalidInput and its kin.
    """
    caller.require(Scope.OPERATOR)
    reason = check_reason(reason)
    if units is None and charge_microusd is None:
        raise Required("What to correct: units, cost, or both.", path=("units",))
    _check_numbers(units, charge_microusd)
    return await _correct(caller, record_id, units, charge_microusd, reason, void=False)


async def void(caller: Caller, record_id: UUID, reason: str) -> RecordView:
    """Take a record out of every total and give back its whole charge; it stays listed, as voided. Doing it twice does it once.

    Operators only, in any workspace. Raises NotFound, InvalidInput for a bad reason.
    """
    caller.require(Scope.OPERATOR)
    return await _correct(caller, record_id, None, None, check_reason(reason), void=True)


async def _correct(caller: Caller, record_id: UUID, units: int | None, charge: int | None, reason: str, *, void: bool) -> RecordView:
    workspace_id = await records.workspace_of(caller, record_id)
    actor = caller.actor
    async with database.transaction():
        result = await database.fetch_value(
            "SELECT correct_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            workspace_id,
            record_id,
            uuid7(),
            units,
            charge,
            void,
            reason,
            actor.kind.value,
            actor.id,
            actor.name[:200],
        )
        if result == "unknown":
            raise NotFound("usage record", path=("id",))
        if result == "voided" and not void:
            raise InvalidState("The record is voided.", state="VOIDED", path=("id",))
        if result != "voided":
            action = "usageRecord.void" if void else "usageRecord.adjust"
            told = {"units": (None, units), "chargeMicroUsd": (None, charge)}
            told = {name: each for name, each in told.items() if each[1] is not None}
            await audit.note(actor, action, ("UsageRecord", record_id), told, workspace_id=workspace_id, at=caller.at, reason=reason)
    return await records.of_workspace(workspace_id, record_id)


def _check(new: NewRecord) -> None:
    for text, longest, name in ((new.api_name, LONGEST_API_NAME, "apiName"), (new.endpoint, LONGEST_ENDPOINT, "endpoint"), (new.key_text, LONGEST_KEY, "apiKeyUsed")):
        if text is None:
            continue
        if not 1 <= len(text) <= longest:
            raise OutOfRange(f"1 to {longest} characters.", minimum=1, maximum=longest, too_large=bool(text), path=(name,))
        if not text.isprintable():
            raise InvalidInput("Printable characters only.", path=(name,))
    _check_numbers(new.units, new.charge_microusd)


def _check_numbers(units: int | None, charge_microusd: int | None) -> None:
    for number, largest, name in ((units, LARGEST_UNITS, "units"), (charge_microusd, LARGEST_CHARGE_MICROUSD, "cost")):
        if number is not None and not 0 <= number <= largest:
            raise OutOfRange(f"At least 0 and at most {largest}.", minimum=0, maximum=largest, too_large=number > 0, path=(name,))


def _instant(caller: Caller, at: datetime | None) -> datetime:
    if at is None:
        return caller.at
    if at.year < FIRST_YEAR or at > caller.at + FUTURE:
        raise InvalidInput(f"A call began in {FIRST_YEAR} or later, and not in the future.", path=("createdAt",))
    return min(at, caller.at)


async def _key(workspace_id: UUID, new: NewRecord) -> UUID | None:
    if new.key_id is not None:
        if not await database.fetch_value("SELECT EXISTS (SELECT FROM api_key WHERE workspace_id = $1 AND id = $2)", workspace_id, new.key_id):
            raise NotFound("key", path=("apiKeyId",))
        return new.key_id
    if new.key_text is None or not secrets.well_formed(new.key_text):
        return None
    found: UUID | None = await database.fetch_value(
        "SELECT key_id FROM api_key_secret WHERE hash = $1 AND workspace_id = $2", secrets.fingerprint(new.key_text), workspace_id
    )
    return found


async def _person(caller: Caller, workspace_id: UUID, user_id: UUID | None) -> UUID | None:
    own = await records.person_of(caller)
    if user_id is None or user_id == own:
        return own
    if Scope.OPERATOR not in caller.scopes:
        raise Forbidden("A record for another person is the operator's to make.")
    if not await database.fetch_value("SELECT EXISTS (SELECT FROM member WHERE workspace_id = $1 AND user_id = $2)", workspace_id, user_id):
        raise NotFound("user", path=("userId",))
    return user_id
