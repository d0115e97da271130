"""Auto top-up: credit bought without asking, from a saved card: one at a time, at most so much a day, and not again at once after a try."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

import structlog

from domain import audit, duties
from domain.access.callers import Actor, Caller
from domain.errors import InvalidInput, OutOfRange, Required, Unavailable
from domain.money import payments, topups
from domain.money.payments import AUTO_TOP_UP_FAILED
from domain.money.processor import Processor, ProcessorFailed
from domain.money.topups import LARGEST_USD
from models import database
from models.enums import ActorKind, Scope, TopUpStatus
from models.ids import uuid7

DEFAULT_COOLDOWN_SECONDS = 300
SHORTEST_COOLDOWN_SECONDS, LONGEST_COOLDOWN_SECONDS = 60, 30 * 86400
LARGEST_MICROUSD = 1_000_000 * 1_000_000
DUE: Final = "auto_top_up"
"""The duty that `watch_balance_2` owes when a settlement leaves too little."""
AUTOMATIC = Actor(ActorKind.SYSTEM, None, "auto top-up")
MOST_AT_ONCE = 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AutoTopUpView:
    """The settings, in microdollars, None until set; what is under way, and why the last try failed, None after a success."""

    workspace_id: UUID
    enabled: bool
    threshold: int | None
    amount: int | None
    daily_cap: int | None
    cooldown_seconds: int
    pending_id: UUID | None
    failure_code: str | None
    failure_message: str | None


@dataclass(frozen=True, slots=True)
class AutoTopUpChanges:
    """What to change; None leaves a setting as it is."""

    enabled: bool | None = None
    threshold: int | None = None
    amount: int | None = None
    daily_cap: int | None = None
    cooldown_seconds: int | None = None


async def settings_of(workspace_id: UUID) -> AutoTopUpView:
    """Return a workspace's settings; the caller has been let in to see them."""
    row = await database.fetch_row("SELECT * FROM auto_top_up WHERE workspace_id = $1", workspace_id)
    if row is None:
        return AutoTopUpView(workspace_id, False, None, None, None, DEFAULT_COOLDOWN_SECONDS, None, None, None)
    return AutoTopUpView(
        workspace_id,
        row["enabled"],
        row["threshold_microusd"],
        row["amount_microusd"],
        row["daily_cap_microusd"],
        row["cooldown_seconds"],
        row["pending_id"],
        row["failure_code"],
        row["failure_message"],
    )


async def update(caller: Caller, changes: AutoTopUpChanges) -> AutoTopUpView:
    """Change the settings; one that is switched on has a threshold, an amount and a daily cap that is not below it.

    Raises Required, OutOfRange, InvalidInput.
    """
    workspace_id = caller.require(Scope.BILLING_WRITE)
    async with database.transaction():
        await database.fetch(
            "INSERT INTO auto_top_up (workspace_id, enabled, cooldown_seconds, failure_retryable, updated_at) VALUES ($1, false, $2, false, $3) ON CONFLICT DO NOTHING",
            workspace_id,
            DEFAULT_COOLDOWN_SECONDS,
            caller.at,
        )
        await database.fetch("SELECT FROM auto_top_up WHERE workspace_id = $1 FOR NO KEY UPDATE", workspace_id)
        before = await settings_of(workspace_id)
        enabled = before.enabled if changes.enabled is None else changes.enabled
        threshold = _amount(before.threshold if changes.threshold is None else changes.threshold, "threshold")
        amount = before.amount if changes.amount is None else changes.amount
        daily_cap = _amount(before.daily_cap if changes.daily_cap is None else changes.daily_cap, "dailyCap")
        cooldown = before.cooldown_seconds if changes.cooldown_seconds is None else changes.cooldown_seconds
        if amount is not None:
            topups.check_amount(amount, path="amount")
        if not SHORTEST_COOLDOWN_SECONDS <= cooldown <= LONGEST_COOLDOWN_SECONDS:
            raise OutOfRange(
                f"It waits at least {SHORTEST_COOLDOWN_SECONDS} seconds, and at most 30 days.",
                minimum=SHORTEST_COOLDOWN_SECONDS,
                maximum=LONGEST_COOLDOWN_SECONDS,
                too_large=cooldown > LONGEST_COOLDOWN_SECONDS,
                path=("cooldownSeconds",),
            )
        for name, value in (("threshold", threshold), ("amount", amount), ("dailyCap", daily_cap)):
            if enabled and value is None:
                raise Required(f"Switched on, it needs `{name}`.", path=(name,))
        if amount is not None and daily_cap is not None and daily_cap < amount:
            raise InvalidInput("A daily cap below the amount would never let it buy.", path=("dailyCap",))
        await database.fetch(
            """
            UPDATE auto_top_up SET enabled = $2, threshold_microusd = $3, amount_microusd = $4, daily_cap_microusd = $5, cooldown_seconds = $6, updated_at = $7,
                   tried_at = CASE WHEN $2 AND NOT enabled THEN NULL ELSE tried_at END
             WHERE workspace_id = $1
            """,
            workspace_id,
            enabled,
            threshold,
            amount,
            daily_cap,
            cooldown,
            caller.at,
        )
        told = audit.difference(_told(before), _told(await settings_of(workspace_id)))
        await audit.note(caller.actor, "autoTopUp.update", ("Workspace", workspace_id), told, workspace_id=workspace_id, at=caller.at)
    return await settings_of(workspace_id)


def _told(settings: AutoTopUpView) -> dict[str, object]:
    return {
        "enabled": settings.enabled,
        "thresholdMicroUsd": settings.threshold,
        "amountMicroUsd": settings.amount,
        "dailyCapMicroUsd": settings.daily_cap,
        "cooldownSeconds": settings.cooldown_seconds,
    }


def _amount(microusd: int | None, path: str) -> int | None:
    if microusd is not None and not 0 <= microusd <= LARGEST_MICROUSD:
        raise OutOfRange("An amount is 0 to a million dollars.", minimum=0, maximum=LARGEST_MICROUSD, too_large=microusd > LARGEST_MICROUSD, path=(path,))
    return microusd


async def paying_method(processor: Processor | None, workspace_id: UUID) -> str | None:
    """Return the card that would be charged, to show; None when none is saved, or Stripe cannot tell now."""
    customer_id = await topups.known_customer(workspace_id)
    if processor is None or customer_id is None:
        return None
    try:
        saved = await processor.saved_method(customer_id)
    except ProcessorFailed:
        return None
    return saved.label if saved else None


_DUE = f"""
    SELECT a.workspace_id FROM auto_top_up a JOIN workspace w ON w.id = a.workspace_id
     WHERE a.enabled AND a.pending_id IS NULL AND w.frozen_at IS NULL AND w.stopped_at IS NULL
       AND (a.tried_at IS NULL OR a.tried_at + make_interval(secs => a.cooldown_seconds) <= clock_timestamp())
       AND a.threshold_microusd > (SELECT CASE WHEN bool_or(c.kind = 'cash' AND c.credits < c.debits) THEN 0
                                                ELSE greatest(coalesce(sum(c.credits - c.debits - c.held), 0), 0) END
                                      FROM account c WHERE c.workspace_id = a.workspace_id AND c.kind IN ('cash', 'grant'))
       AND a.daily_cap_microusd >= a.amount_microusd + (SELECT coalesce(sum(t.amount_microusd), 0) FROM top_up t
             WHERE t.workspace_id = a.workspace_id AND t.automatic AND t.status IN ('open', 'pending', 'fulfilled')
               AND t.created_at >= date_trunc('day', clock_timestamp() AT TIME ZONE w.default_timezone) AT TIME ZONE w.default_timezone)
       AND a.amount_microusd BETWEEN {topups.SMALLEST_USD}::bigint * 1000000 AND {LARGEST_USD}::bigint * 1000000
"""
"""Workspaces that may buy now: on, nothing under way, not stopped, waited long enough, too little left, and under the day's cap in their own zone."""


async def sweep(processor: Processor) -> int:
    """Buy for every workspace that is due; any process may do so at any time. Returns how many payments were begun."""
    begun = 0
    for row in await database.fetch(f"{_DUE} ORDER BY a.tried_at NULLS FIRST LIMIT $1", MOST_AT_ONCE):
        try:
            begun += await trigger(processor, row["workspace_id"]) is not None
        except (ProcessorFailed, Unavailable) as refusal:
            log.warning("auto top-up put off", workspace=str(row["workspace_id"]), reason=refusal.message)
    return begun


async def trigger(processor: Processor, workspace_id: UUID) -> UUID | None:
    """Buy when it is due, and return the top-up; however often it is called at once, one payment is begun (F24).

    Raises ProcessorFailed when Stripe is away; what was begun is gone on with by the sweep of top-ups.
    """
    if not await database.fetch_value(f"SELECT EXISTS ({_DUE} AND a.workspace_id = $1)", workspace_id):
        return None
    customer_id = await topups.known_customer(workspace_id)
    saved = await processor.saved_method(customer_id) if customer_id else None
    top_up_id = uuid7()
    async with database.transaction():
        await database.fetch("SELECT FROM auto_top_up WHERE workspace_id = $1 FOR NO KEY UPDATE", workspace_id)
        if not await database.fetch_value(f"SELECT EXISTS ({_DUE} AND a.workspace_id = $1)", workspace_id):
            return None
        if saved is None:
            await _note_without_card(workspace_id)
            return None
        amount = await database.fetch_value(
            "UPDATE auto_top_up SET pending_id = $2, tried_at = clock_timestamp(), updated_at = clock_timestamp() WHERE workspace_id = $1 RETURNING amount_microusd",
            workspace_id,
            top_up_id,
        )
        await topups.insert(workspace_id, top_up_id, amount, AUTOMATIC, return_url=None, method_id=saved.id)
    await payments.look(processor, workspace_id, top_up_id)
    return top_up_id


async def _note_without_card(workspace_id: UUID) -> None:
    row = await database.fetch_row(
        """
        UPDATE auto_top_up a SET tried_at = clock_timestamp(), updated_at = clock_timestamp(), failure_code = 'no_payment_method',
               failure_message = 'No card is saved at Stripe: buy credit once by hand.'
          FROM (SELECT failure_code FROM auto_top_up WHERE workspace_id = $1) before WHERE a.workspace_id = $1
        RETURNING before.failure_code AS before, a.updated_at
        """,
        workspace_id,
    )
    if row is not None and row["before"] is None:
        await duties.owe(AUTO_TOP_UP_FAILED, {"top_up_id": None}, workspace_id=workspace_id, at=row["updated_at"])


async def page_instead(processor: Processor, workspace_id: UUID, failed_id: UUID, *, return_url: str) -> str | None:
    """Return a page where a person pays what the saved card would not, made once for each failed top-up; None when it is over, or paid.

    Raises ProcessorFailed.
    """
    page_id = uuid5(failed_id, "page")
    async with database.transaction():
        await database.fetch("SELECT FROM auto_top_up WHERE workspace_id = $1 FOR NO KEY UPDATE", workspace_id)
        if not await topups.find_many(workspace_id, [page_id]):
            failed = await topups.find(workspace_id, failed_id)
            await topups.insert(workspace_id, page_id, failed.amount, AUTOMATIC, return_url=return_url)
    page = await topups.find(workspace_id, page_id)
    if page.status is not TopUpStatus.OPEN:
        return None
    return page.session_url or (await topups.open_session(processor, page)).url
