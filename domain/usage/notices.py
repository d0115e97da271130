"""What a workspace's owners are told by mail though nobody asked for it: little credit left, a budget nearly spent, a card that would not pay.

An alert rule of the workspace's own on the same thing takes its place: who made one, or switched it off, has decided.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from domain import duties
from domain.duties import Duty, TakenOver
from domain.money import autotopup, ledger
from domain.money.amounts import usd
from domain.money.processor import Processor, ProcessorFailed
from models import database
from models.enums import AlertMetric

LOW_BALANCE: Final = "low_balance"
BUDGET_REACHED: Final = "budget_reached"
"""The duties that `watch_1.sql` and `watch_2.sql` owe in the transaction of what causes them."""
MAIL: Final = "notice_mail"
LOW_MICROUSD: Final = 5_000_000
"""What counts as little: `watch_2.sql` says the same."""
BILLING_PATH: Final = "/billing"


@dataclass(frozen=True, slots=True)
class Notice:
    """A mail to every owner."""

    subject: str
    text: str


async def low_balance(duty: Duty, public_url: str) -> None:
    """Tell that little is left, unless credit came meanwhile, or the workspace watches its balance itself."""
    assert duty.workspace_id is not None
    balance = (await ledger.balance(duty.workspace_id)).balance
    if balance >= LOW_MICROUSD or await _watched(duty.workspace_id, AlertMetric.BALANCE, duty.workspace_id):
        await duties.done(duty)
        return
    name = await _name(duty.workspace_id)
    said = (
        f"{name} has ${usd(balance)} of credit left, less than ${usd(LOW_MICROUSD)}. Calls are refused when it is spent.\n\n"
        f"Buy credit: {public_url}{BILLING_PATH}\n\nThis is told once, and again after credit was bought and spent."
        " An alert rule of your own on the balance takes its place.\n"
    )
    await _tell(duty, Notice(f"Little credit left: {name}", said))


async def budget_reached(duty: Duty, public_url: str) -> None:
    """Tell that a budget is nearly spent, or used up, unless the workspace watches it itself or it is gone."""
    assert duty.workspace_id is not None
    bound_id, percent = UUID(duty.payload["bound_id"]), int(duty.payload["percent"])
    bound = await database.fetch_row(
        """
        SELECT b.subject_kind, b.subject_id, b."window", b.model, b.most, w.spent, w.ends_at FROM bound b
          JOIN bound_window w ON w.workspace_id = b.workspace_id AND w.bound_id = b.id WHERE b.workspace_id = $1 AND b.id = $2 AND b.removed_at IS NULL
        """,
        duty.workspace_id,
        bound_id,
    )
    spent_less = bound is not None and bound["spent"] * 100 < bound["most"] * percent
    if bound is None or spent_less or await _watched(duty.workspace_id, AlertMetric.BUDGET_PERCENT, bound["subject_id"]):
        await duties.done(duty)
        return
    name = await _name(duty.workspace_id)
    whose = "the workspace" if bound["subject_kind"] == "workspace" else f"the {bound['subject_kind']} {bound['subject_id']}"
    of_model = f" for {bound['model']}" if bound["model"] else ""
    what = "is used up: calls that it bounds are refused" if percent >= 100 else f"is used to {percent} percent"
    until = f" until {bound['ends_at']:%Y-%m-%d %H:%M} UTC" if bound["ends_at"] else ""
    said = (
        f"The budget of ${usd(bound['most'])} in the window `{bound['window']}`{of_model}, of {whose} in {name}, {what}{until}. Spent: ${usd(bound['spent'])}.\n\n"
        f"Change it or buy credit: {public_url}{BILLING_PATH}\n\nAn alert rule of your own on this budget takes the place of this mail.\n"
    )
    await _tell(duty, Notice(f"Budget {'used up' if percent >= 100 else f'at {percent} percent'}: {name}", said))


async def auto_top_up_failed(duty: Duty, processor: Processor | None, public_url: str) -> None:
    """Tell that credit was not bought, why, and where to pay by hand: a page at Stripe over the same amount, where that can be made."""
    assert duty.workspace_id is not None
    settings = await autotopup.settings_of(duty.workspace_id)
    if settings.failure_code is None:
        await duties.done(duty)
        return
    link, failed_id = None, duty.payload["top_up_id"]
    if failed_id is not None and processor is not None:
        try:
            link = await autotopup.page_instead(processor, duty.workspace_id, UUID(failed_id), return_url=f"{public_url}{BILLING_PATH}")
        except ProcessorFailed as failed:
            if failed.retryable:
                raise
    name = await _name(duty.workspace_id)
    wants = " Your bank wants you to confirm it yourself." if settings.failure_code == "authentication_required" else ""
    said = (
        f"Credit for {name} was not bought: {settings.failure_message}{wants} ({settings.failure_code})\n\n"
        f"Pay by hand: {link or f'{public_url}{BILLING_PATH}'}\n\nThe saved card is tried again while the balance is low."
        " You are told again after a payment has arrived.\n"
    )
    await _tell(duty, Notice(f"Automatic top-up failed: {name}", said))


async def _tell(duty: Duty, notice: Notice) -> None:
    """Owe one mail to each owner, in the transaction that ends the duty."""
    assert duty.workspace_id is not None
    async with database.transaction():
        rows = await database.fetch(
            """
            SELECT u.email, clock_timestamp() AS now FROM member m JOIN users u ON u.id = m.user_id
             WHERE m.workspace_id = $1 AND m.role = 'owner' AND m.joined_at IS NOT NULL AND m.removed_at IS NULL AND u.email IS NOT NULL ORDER BY u.email
            """,
            duty.workspace_id,
        )
        for row in rows:
            await duties.owe(MAIL, {"to": row["email"], "subject": notice.subject, "text": notice.text}, workspace_id=duty.workspace_id, at=row["now"])
        if not await duties.done(duty):
            raise TakenOver


async def _watched(workspace_id: UUID, metric: AlertMetric, subject_id: UUID) -> bool:
    return bool(
        await database.fetch_value(
            "SELECT EXISTS (SELECT FROM alert_rule WHERE workspace_id = $1 AND metric = $2 AND subject_id = $3 AND removed_at IS NULL)",
            workspace_id,
            metric.value,
            subject_id,
        )
    )


async def _name(workspace_id: UUID) -> str:
    name: str = await database.fetch_value("SELECT name FROM workspace WHERE id = $1", workspace_id)
    return " ".join(name.split())
