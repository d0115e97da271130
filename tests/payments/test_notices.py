"""What owners are told by mail though nobody asked: little credit, a budget nearly spent, a card that would not pay; once each, and armed anew."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from domain import duties
from domain.access import members
from domain.access.limits import BoundInput
from domain.money import autotopup, ledger, payments
from domain.usage import alerts, notices
from domain.usage.alerts import NewRule, Threshold
from embedded.stripe import payments as bank
from models import database
from models.enums import AlertMetric, LedgerAccountKind, LimitPer, Measure, Role, TransferKind
from tests.payments.lives import Till
from tests.payments.test_autotopup import ON, ago, switched_on
from tests.support.world import TESTS, Tenant, tenant

pytestmark = pytest.mark.anyio

USD = 1_000_000
PUBLIC = "https://gateway.example"
KINDS = (notices.LOW_BALANCE, notices.BUDGET_REACHED, payments.AUTO_TOP_UP_FAILED)


async def move(of: Tenant, microusd: int) -> None:
    """Give credit, or take it as a charge would."""
    adjust = (LedgerAccountKind.ADJUSTMENTS, LedgerAccountKind.CASH)
    debit, credit = adjust if microusd > 0 else adjust[::-1]
    ref = str(datetime.now(UTC).timestamp())
    await ledger.post(
        of.workspace_id, TransferKind.ADJUSTMENT, ref, debit=debit, credit=credit, amount_microusd=abs(microusd), reason="moved", actor=TESTS
    )


async def owed(of: Tenant, *kinds: str) -> list[tuple[UUID, str]]:
    """The duties of a workspace that wait."""
    rows = await database.fetch(
        "SELECT id, kind FROM job WHERE workspace_id = $1 AND kind = ANY ($2) AND status IN ('queued', 'running') ORDER BY id", of.workspace_id, list(kinds)
    )
    return [(row["id"], row["kind"]) for row in rows]


async def mails(of: Tenant, till: Till) -> list[tuple[str, str, str]]:
    """Work off what is owed to a workspace's owners, and return the mails that come of it: to whom, subject, text; each is taken once."""
    for job_id, kind in await owed(of, *KINDS):
        duty = await duties.claim(job_id)
        assert duty is not None
        if kind == notices.LOW_BALANCE:
            await notices.low_balance(duty, PUBLIC)
        elif kind == notices.BUDGET_REACHED:
            await notices.budget_reached(duty, PUBLIC)
        else:
            await notices.auto_top_up_failed(duty, till.client, PUBLIC)
    assert await owed(of, *KINDS) == []
    rows = await database.fetch(
        "UPDATE job SET status = 'succeeded' WHERE workspace_id = $1 AND kind = $2 AND status = 'queued' RETURNING id, payload", of.workspace_id, notices.MAIL
    )
    told = [msgspec.json.decode(row["payload"]) for row in sorted(rows, key=lambda row: row["id"])]
    return [(each["to"], each["subject"], each["text"]) for each in told]


async def test_little_credit_is_told_once_for_each_fall(till: Till) -> None:
    """Below $5 every owner gets one mail, however often something is charged; a top-up arms it again; a workspace that never had credit is told nothing."""
    mine = await tenant()
    invited = await members.invite(mine.caller(), "second@owner.example", Role.OWNER)
    await database.fetch("UPDATE member SET joined_at = invited_at WHERE id = $1", invited.id)
    await members.invite(mine.caller(), "invited@owner.example", Role.OWNER)
    await members.invite(mine.caller(), "dev@owner.example", Role.DEVELOPER)
    await move(mine, 3 * USD)
    await move(mine, -1 * USD)
    assert await mails(mine, till) == []
    await move(mine, 8 * USD)
    await move(mine, -5 * USD)
    assert await mails(mine, till) == [], "five dollars are enough"
    await move(mine, -1)
    await asyncio.gather(*(move(mine, -USD // 10) for _ in range(5)))
    told = await mails(mine, till)
    assert sorted(to for to, _, _ in told) == sorted([mine.owner_email, "second@owner.example"])
    assert told[0][1].startswith("Little credit left: Workspace ")
    assert "has $4.499999 of credit left, less than $5.00" in told[0][2]
    assert f"Buy credit: {PUBLIC}/billing\n" in told[0][2]
    await move(mine, -USD)
    await move(mine, USD)
    await move(mine, -USD)
    assert await mails(mine, till) == [], "it never rose to five dollars"
    await move(mine, 10 * USD)
    await move(mine, -10 * USD)
    assert len(await mails(mine, till)) == 2


async def test_credit_that_comes_before_the_mail_stops_it(till: Till) -> None:
    """The balance is looked at when the mail is written: what was bought meanwhile makes it needless."""
    mine = await tenant()
    await move(mine, 6 * USD)
    await move(mine, -3 * USD)
    await move(mine, 6 * USD)
    assert await mails(mine, till) == []


async def test_a_rule_of_one_s_own_takes_its_place(till: Till) -> None:
    """A workspace with an alert rule on its balance, even one that is switched off, gets no mail besides."""
    mine = await tenant()
    await alerts.create(mine.caller(), NewRule(name="mine", threshold=Threshold(AlertMetric.BALANCE, 2 * USD)))
    await move(mine, 6 * USD)
    await move(mine, -3 * USD)
    assert await mails(mine, till) == []


async def test_a_budget_is_told_at_80_and_100_percent(till: Till) -> None:
    """Each budget of the workspace, a member, a key or an app once at 80 percent and once when it is used up, in each window; not those of end users."""
    mine = await tenant()
    key, _ = await mine.mint(
        name="bounded",
        budgets=[
            BoundInput(Measure.MONEY, "day", 10 * USD, LimitPer.TOGETHER, None),
            BoundInput(Measure.MONEY, "month", 100 * USD, LimitPer.END_USER, None),
        ],
    )
    bounds = await database.fetch('SELECT id, "window" FROM bound WHERE workspace_id = $1 ORDER BY "window"', mine.workspace_id)
    assert [row["window"] for row in bounds] == ["day", "month"]
    for row in bounds:
        await database.fetch("INSERT INTO bound_window (workspace_id, bound_id, scope, spent, held) VALUES ($1, $2, '', 0, 0)", mine.workspace_id, row["id"])

    async def spend(microusd: int) -> None:
        await database.fetch("UPDATE bound_window SET spent = spent + $2 WHERE workspace_id = $1", mine.workspace_id, microusd)

    await spend(8 * USD - 1)
    assert await mails(mine, till) == []
    await spend(1)
    ((to, subject, text),) = await mails(mine, till)
    assert (to, subject.split(":")[0]) == (mine.owner_email, "Budget at 80 percent")
    assert f"The budget of $10.00 in the window `day`, of the key {key.id} in Workspace" in text
    assert "is used to 80 percent. Spent: $8.00." in text
    await spend(USD)
    assert await mails(mine, till) == []
    await spend(2 * USD)
    ((_, subject, text),) = await mails(mine, till)
    assert subject.startswith("Budget used up: ")
    assert "is used up: calls that it bounds are refused. Spent: $11.00." in text
    await spend(50 * USD)
    assert await mails(mine, till) == []
    await database.fetch("UPDATE bound_window SET spent = 0 WHERE workspace_id = $1", mine.workspace_id)
    await spend(20 * USD)
    assert [subject.split(":")[0] for _, subject, _ in await mails(mine, till)] == ["Budget used up"]


async def test_a_settlement_owes_the_top_up(till: Till) -> None:
    """What leaves too little owes auto top-up in the same transaction, once in half a minute; done, one payment is begun, and nothing is owed for it again."""
    customer = await switched_on(till)
    await asyncio.gather(*(move(customer, -1) for _ in range(5)))
    ((job_id, _),) = await owed(customer, autotopup.DUE)
    duty = await duties.claim(job_id)
    assert duty is not None
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    await duties.done(duty)
    await till.hear()
    await database.fetch("UPDATE auto_top_up SET owed_at = NULL WHERE workspace_id = $1", customer.workspace_id)
    await move(customer, -16 * 1_000_000)
    assert await owed(customer, autotopup.DUE) == [], "it waits for its cool-off"
    await ago(customer, 301)
    await move(customer, -1)
    assert len(await owed(customer, autotopup.DUE)) == 1


async def test_a_movement_that_is_rolled_back_owes_nothing(till: Till) -> None:
    """The duty stands and falls with the transaction of what caused it."""
    customer = await switched_on(till)

    class Gone(Exception):
        """The process is."""

    async def dying() -> None:
        async with database.transaction():
            await move(customer, -16 * USD)
            assert [kind for _, kind in await owed(customer, autotopup.DUE, notices.LOW_BALANCE)] == [autotopup.DUE, notices.LOW_BALANCE]
            raise Gone

    with pytest.raises(Gone):
        await dying()
    assert await owed(customer, autotopup.DUE, notices.LOW_BALANCE) == []


@pytest.mark.parametrize(("last4", "code"), [("3155", "authentication_required"), ("0341", "card_declined")])
async def test_a_card_that_would_not_pay_is_told_with_a_page_to_pay_at(till: Till, last4: str, code: str) -> None:
    """Once, to the owners, with a page over the same amount; the next failure is silent until a payment has arrived, which that page's is."""
    customer = await switched_on(till, last4)
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    ((to, subject, text),) = await mails(customer, till)
    assert (to, subject.split(":")[0]) == (customer.owner_email, "Automatic top-up failed")
    assert f"({code})" in text
    assert ("Your bank wants you to confirm it yourself." in text) == (code == "authentication_required")
    page = next(till.account.all("checkout.session"))
    assert (page["amount_total"], page["status"]) == (2_500, "open")
    assert f"Pay by hand: {page['url']}\n" in text
    await ago(customer, 301)
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    assert await mails(customer, till) == []
    bank.pay(till.account, page["id"])
    await till.hear()
    assert (await customer.balance()).cash == 45 * USD
    assert (await autotopup.settings_of(customer.workspace_id)).failure_code is None
    await move(customer, -20 * USD)
    card = next(till.account.all("payment_method"))
    card["card"]["last4"] = last4
    await ago(customer, 301)
    assert await autotopup.trigger(till.client, customer.workspace_id) is not None
    assert len(await mails(customer, till)) == 1


async def test_a_missing_card_is_told(till: Till) -> None:
    """No card is saved: told once, with the page of the service to buy at."""
    customer = await tenant()
    await autotopup.update(customer.caller(), ON)
    for _ in range(2):
        assert await autotopup.trigger(till.client, customer.workspace_id) is None
        await ago(customer, 301)
    ((_, _, text),) = await mails(customer, till)
    assert "No card is saved at Stripe" in text
    assert f"Pay by hand: {PUBLIC}/billing\n" in text


async def test_a_page_is_made_once_whatever_dies(till: Till) -> None:
    """The page in place of a failed payment is the same one however often it is asked for, and none when it was paid."""
    customer = await switched_on(till, "0341")
    failed = await autotopup.trigger(till.client, customer.workspace_id)
    assert failed is not None
    pages = {await autotopup.page_instead(till.client, customer.workspace_id, failed, return_url=PUBLIC) for _ in range(3)}
    assert len(pages) == 1
    bank.pay(till.account, next(till.account.all("checkout.session"))["id"])
    await till.hear()
    assert await autotopup.page_instead(till.client, customer.workspace_id, failed, return_url=PUBLIC) is None


def test_the_database_says_the_same_amount() -> None:
    """What counts as little is one number in two languages."""
    from domain.sql.install import statements

    assert f"c_low CONSTANT bigint := {notices.LOW_MICROUSD};" in dict(statements())["watch_2"]


