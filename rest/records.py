"""Document 3: usage records, logged by calls and by hand, listed by offset, corrected by the operator."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from domain.errors import Forbidden, NotFound, Required
from domain.money.amounts import MICRO
from domain.usage import corrections, records
from domain.usage.corrections import LARGEST_CHARGE_MICROUSD, LARGEST_UNITS, LONGEST_API_NAME, LONGEST_ENDPOINT, LONGEST_KEY, NewRecord
from domain.usage.records import RecordView
from models.enums import Scope, UsageRecordStatus
from rest.callers import header
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Integer, Microusd, Nothing, Told
from rest.shapes import LISTED, ListedError

DEFAULT_RECORDS, MOST_RECORDS = 50, 200
LARGEST_SKIP = 10**9
CORRECTED, DELETED = "Corrected by PUT /usage.", "Deleted by DELETE /usage."
"""The document gives no reason; the request's actor stands beside it."""

Units = Annotated[int, Field(ge=0, le=LARGEST_UNITS)]
Cost = Annotated[Microusd, Field(ge=0, le=LARGEST_CHARGE_MICROUSD)]


class RecordBody(Asked):
    """What was called, how much of it was used, and what it costs; `api_key_used` is kept as a reference only."""

    api_name: Annotated[str, Field(min_length=1, max_length=LONGEST_API_NAME)]
    endpoint: Annotated[str, Field(min_length=1, max_length=LONGEST_ENDPOINT)]
    units_used: Units
    cost_usd: Cost
    api_key_used: Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]


class CorrectionBody(Asked):
    """The right numbers; what is absent stays as it is."""

    units_used: Units | None = None
    cost_usd: Cost | None = None


class RecordsQuery(Asked):
    """Which part of the list."""

    skip: Integer = Field(default=0, ge=0, le=LARGEST_SKIP)
    limit: Integer = Field(default=DEFAULT_RECORDS, ge=1, le=MOST_RECORDS)


class UsageRecord(Told):
    """One record as it stands after its corrections: the key masked, `status_active` false once it was deleted."""

    usage_id: UUID
    user_id: UUID | None
    api_name: str
    endpoint: str
    units_used: int
    cost_usd: float
    api_key_used: str | None
    status_active: bool
    created_at: datetime


async def _told(found: Sequence[RecordView]) -> list[UsageRecord]:
    keys = await records.keys_used(found)
    return [
        UsageRecord(
            usage_id=record.id,
            user_id=record.user_id,
            api_name=record.api_name,
            endpoint=record.endpoint,
            units_used=record.units,
            cost_usd=record.charge_microusd / MICRO,
            api_key_used=record.api_key_used or (keys.get(record.key_id) if record.key_id else None),
            status_active=record.status is not UsageRecordStatus.VOIDED,
            created_at=record.at,
        )
        for record in found
    ]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("usage record") from None


async def _make(ask: Ask[RecordBody]) -> UsageRecord:
    given = ask.given
    made = await corrections.create(
        ask.caller,
        NewRecord(
            api_name=given.api_name,
            endpoint=given.endpoint,
            units=given.units_used,
            charge_microusd=given.cost_usd,
            key_text=given.api_key_used,
            idempotency_key=header(ask.headers, b"idempotency-key"),
        ),
    )
    return (await _told([made]))[0]


async def _list(ask: Ask[RecordsQuery]) -> list[UsageRecord]:
    return await _told(await records.listed(ask.caller, skip=ask.given.skip, limit=ask.given.limit))


async def _list_of_user(ask: Ask[RecordsQuery]) -> list[UsageRecord]:
    ask.caller.require(Scope.USAGE_READ)
    own = await records.person_of(ask.caller)
    named = ask.path["user_id"]
    if not ask.caller.operator and (own is None or named.lower() != str(own)):
        raise Forbidden("Another person's records are the operator's to read.")
    return await _told(await records.listed(ask.caller, skip=ask.given.skip, limit=ask.given.limit, user_id=_id(named)))


async def _find(ask: Ask[Nothing]) -> UsageRecord:
    ask.caller.require(Scope.USAGE_READ)
    record_id = _id(ask.path["usage_id"])
    if ask.caller.operator:
        found = await records.of_workspace(await records.workspace_of(ask.caller, record_id), record_id)
    else:
        found = await records.find(ask.caller, record_id)
    return (await _told([found]))[0]


async def _correct(ask: Ask[CorrectionBody]) -> UsageRecord:
    ask.caller.require(Scope.OPERATOR)
    record_id = _id(ask.path["usage_id"])
    if ask.given.units_used is None and ask.given.cost_usd is None:
        raise Required("units_used: what to correct is missing", path=("units_used",))
    corrected = await corrections.adjust(ask.caller, record_id, units=ask.given.units_used, charge_microusd=ask.given.cost_usd, reason=CORRECTED)
    return (await _told([corrected]))[0]


async def _delete(ask: Ask[Nothing]) -> None:
    ask.caller.require(Scope.OPERATOR)
    await corrections.void(ask.caller, _id(ask.path["usage_id"]), DELETED)


DOCUMENT = Document(
    name="Usage records",
    shape=lambda headers: LISTED,
    errors=ListedError,
    operations=(
        Operation("POST", "/usage", "Log and charge usage.", RecordBody, UsageRecord, _make, status=201, refusals=(402, 413, 422)),
        Operation("GET", "/usage", "The workspace's records, newest first; all of them for the operator.", RecordsQuery, list[UsageRecord], _list, refusals=(422,)),
        Operation("GET", "/usage/user/{user_id}", "A person's records, newest first.", RecordsQuery, list[UsageRecord], _list_of_user, refusals=(404, 422)),
        Operation("GET", "/usage/{usage_id}", "One record.", Nothing, UsageRecord, _find, refusals=(404,)),
        Operation("PUT", "/usage/{usage_id}", "Correct a record; operators only.", CorrectionBody, UsageRecord, _correct, refusals=(404, 409, 413, 422)),
        Operation("DELETE", "/usage/{usage_id}", "Take a record out of every total; operators only.", Nothing, None, _delete, status=204, refusals=(404,)),
    ),
)
