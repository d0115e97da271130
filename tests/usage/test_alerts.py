"""Alerts: told once in each window, by whatever process looks first, and never for another's usage."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import anthropic
import asyncpg
import pytest

from domain import webhooks
from domain.access.limits import BoundInput
from domain.errors import InvalidInput, NotFound, OutOfRange, Refusal
from domain.money import ledger
from domain.usage import alerts
from domain.usage.alerts import NewRule, RuleChanges, RuleView, Threshold
from models import database
from models.enums import AlertMetric, Measure, Scope, SubjectKind
from models.ids import uuid7
from tests.conftest import SECRET
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.receiver import Receiver, receiving
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CHARGE = 3
"""`echo` counts one token in and one out, and costs 1 and 2 microdollars."""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on the loopback."""
    async with receiving() as started:
        yield started


def writer(of: Tenant) -> Any:
    """The owner, who may change alerts."""
    return of.caller(Scope.ALERTS_READ, Scope.ALERTS_WRITE)


async def watch(of: Tenant, metric: AlertMetric, value: int, **more: Any) -> RuleView:
    """Make a rule that mails to one address."""
    return await alerts.create(writer(of), NewRule("mine", Threshold(metric, value), **{"emails": ["ops@example.com"]} | more))


async def call(gateway: Gateway, secret: str) -> None:
    """Make one call of `echo`."""
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=secret, max_retries=0) as client:
        await client.messages.create(model="echo", max_tokens=10, messages=[{"role": "user", "content": "four"}])


async def look(rule: RuleView) -> None:
    """Let a rule be looked at now, by whoever comes first; one that is quiet is not looked at."""
    await database.fetch("UPDATE alert_rule SET checked_at = NULL WHERE id = $1", rule.id)
    await alerts.look()

    async def looked() -> bool:
        return bool(await database.fetch_value("SELECT checked_at IS NOT NULL OR quiet_until > clock_timestamp() FROM alert_rule WHERE id = $1", rule.id))

    await until(looked, "the look")


async def mails(of: Tenant) -> list[dict[str, Any]]:
    """The mails that are owed to a workspace's alerts, oldest first."""
    rows = await database.fetch("SELECT payload FROM job WHERE workspace_id = $1 AND kind = $2 ORDER BY id", of.workspace_id, alerts.MAIL)
    return [json.loads(row["payload"]) for row in rows]


async def fired(of: Tenant, times: int) -> None:
    """Wait until a workspace's alerts have fired that often."""

    async def look() -> bool:
        return len(await mails(of)) == times

    await until(look, f"{times} alerts")


async def test_spend_is_told_once_by_webhook_and_by_mail(gateway: Gateway, receiver: Receiver) -> None:
    """A call that brings the day's charge to the threshold sends one signed event and one mail; the next calls of the day send none."""
    mine = await tenant(credit_microusd=1_000_000)
    to, _ = await webhooks.create(writer(mine), receiver.url, None, installation_secret=SECRET, private_allowed=True)
    rule = await watch(mine, AlertMetric.SPEND, 2 * CHARGE, endpoint_id=to.id)
    await call(gateway, mine.secret)
    await look(rule)
    assert (await mails(mine), receiver.received) == ([], [])
    await call(gateway, mine.secret)
    await fired(mine, 1)

    async def arrived() -> bool:
        return len(receiver.received) == 1

    await until(arrived, "the event")
    data = json.loads(receiver.received[0].body)["data"]
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert data == {
        "rule": {"id": str(rule.id), "name": "mine"},
        "workspace_id": str(mine.workspace_id),
        "subject": {"kind": "workspace", "id": str(mine.workspace_id)},
        "metric": "spend",
        "threshold": 2 * CHARGE,
        "value": 2 * CHARGE,
        "window": "day",
        "window_started_at": data["window_started_at"],
    }
    assert abs((datetime.fromisoformat(data["window_started_at"]) - midnight).total_seconds()) in (0, 86_400)  # midnight may pass during the test
    (mail,) = await mails(mine)
    assert mail["text"].startswith("The charge has reached $0.000006 in the window `day`, for the workspace: it is $0.000006 now.")
    await call(gateway, mine.secret)
    await look(rule)
    assert len(await mails(mine)) == 1
    assert (await alerts.find(writer(mine), rule.id)).last_fired_at is not None


async def test_a_window_that_is_over_fires_again(gateway: Gateway) -> None:
    """After the window in which it fired, a rule fires again; a threshold that was changed may do so at once."""
    mine = await tenant(credit_microusd=1_000_000)
    rule = await watch(mine, AlertMetric.TOKENS, 2, window="24h")
    await call(gateway, mine.secret)
    await fired(mine, 1)
    quiet = await database.fetch_value("SELECT quiet_until - last_fired_at FROM alert_rule WHERE id = $1", rule.id)
    assert quiet.total_seconds() == 86_400
    await database.fetch("UPDATE alert_rule SET quiet_until = clock_timestamp() WHERE id = $1", rule.id)
    await look(rule)
    await fired(mine, 2)
    await alerts.update(writer(mine), rule.id, RuleChanges(threshold=Threshold(AlertMetric.TOKENS, 1)))
    await look(rule)
    await fired(mine, 3)
    await alerts.update(writer(mine), rule.id, RuleChanges(name="another name"))
    await look(rule)
    assert len(await mails(mine)) == 3


async def test_a_key_s_rule_counts_that_key_alone(gateway: Gateway) -> None:
    """A rule on one key is not reached by another key's calls."""
    mine = await tenant(credit_microusd=1_000_000)
    key, secret = await mine.mint(name="watched")
    rule = await watch(mine, AlertMetric.SPEND, CHARGE, subject=(SubjectKind.KEY, key.id), window="7d")
    await call(gateway, mine.secret)
    await look(rule)
    assert await mails(mine) == []
    await call(gateway, secret)
    await fired(mine, 1)


async def test_a_low_balance_is_told_each_time_that_it_falls(gateway: Gateway) -> None:
    """BALANCE fires when what can be spent falls below the threshold, not again while it stays there, and again after it was above."""
    mine = await tenant(credit_microusd=500)
    rule = await watch(mine, AlertMetric.BALANCE, 400)
    await look(rule)
    assert await mails(mine) == []
    operator = mine.caller(Scope.OPERATOR)
    await ledger.adjust(operator, None, -200, "down", "down")
    await fired(mine, 1)
    await look(rule)
    assert len(await mails(mine)) == 1
    await ledger.adjust(operator, None, 200, "up", "up")
    await look(rule)
    await ledger.adjust(operator, None, -200, "down", "down again")
    await fired(mine, 2)
    assert [mail["text"].partition(",")[0] for mail in await mails(mine)] == ["What can be spent has fallen below $0.0004"] * 2


async def test_a_budget_s_share_is_told_once_in_its_window(gateway: Gateway) -> None:
    """BUDGET_PERCENT fires when any budget of the subject is used to that percentage, once in that budget's window."""
    mine = await tenant(credit_microusd=1_000_000)
    budgets = [BoundInput(Measure.MONEY, "24h", 1000), BoundInput(Measure.MONEY, "lifetime", 1_000_000)]
    key, secret = await mine.mint(name="bounded", budgets=budgets)
    await call(gateway, secret)
    await database.fetch("UPDATE bound_window SET spent = 997 WHERE workspace_id = $1", mine.workspace_id)  # of the smaller one: 99.7 percent
    rule = await watch(mine, AlertMetric.BUDGET_PERCENT, 100, subject=(SubjectKind.KEY, key.id))
    await look(rule)
    assert await mails(mine) == []
    await database.fetch("UPDATE bound_window SET spent = 1000 WHERE workspace_id = $1", mine.workspace_id)
    await look(rule)
    await fired(mine, 1)
    await look(rule)
    assert len(await mails(mine)) == 1
    await database.fetch("UPDATE bound_window SET started_at = started_at + interval '1 second' WHERE workspace_id = $1", mine.workspace_id)
    await look(rule)
    await fired(mine, 2)


async def test_failed_calls_are_counted(gateway: Gateway) -> None:
    """ERRORS counts calls that failed, and not those that succeeded."""
    mine = await tenant(credit_microusd=1_000_000)
    rule = await watch(mine, AlertMetric.ERRORS, 1)
    await call(gateway, mine.secret)
    await look(rule)
    assert await mails(mine) == []
    await database.fetch(
        """
        WITH event AS (
          INSERT INTO usage_event SELECT (jsonb_populate_record(e, jsonb_build_object('id', $2::uuid, 'record_id', $2::uuid, 'outcome', 'failed', 'errors', 1))).*
            FROM usage_event e WHERE e.workspace_id = $1 RETURNING workspace_id, id)
        INSERT INTO usage_pending (workspace_id, event_id) SELECT workspace_id, id FROM event
        """,
        mine.workspace_id,
        uuid7(),
    )
    await look(rule)
    await fired(mine, 1)


async def test_a_rule_that_is_off_or_gone_is_silent(gateway: Gateway) -> None:
    """A rule that was switched off or deleted does not fire; switched on again, it does."""
    mine = await tenant(credit_microusd=1_000_000)
    off, gone = await watch(mine, AlertMetric.SPEND, 1), await watch(mine, AlertMetric.SPEND, 1)
    await alerts.update(writer(mine), off.id, RuleChanges(enabled=False))
    await alerts.remove(writer(mine), gone.id)
    await call(gateway, mine.secret)
    await asyncio.gather(*(alerts.look() for _ in range(3)))
    assert await mails(mine) == []
    await alerts.update(writer(mine), off.id, RuleChanges(enabled=True))
    await fired(mine, 1)


async def test_processes_that_look_at_once_fire_once(gateway: Gateway) -> None:
    """Many looks at the same time, in many transactions, tell one alert."""
    mine = await tenant(credit_microusd=1_000_000)
    rule = await watch(mine, AlertMetric.SPEND, 1)
    await call(gateway, mine.secret)
    for _ in range(5):
        await database.fetch("UPDATE alert_rule SET checked_at = NULL WHERE id = $1", rule.id)
        await asyncio.gather(*(alerts.look() for _ in range(6)))
    await fired(mine, 1)


async def test_a_look_that_died_is_made_up_for(gateway: Gateway) -> None:
    """A process that took a rule and died before it fired loses nothing: the next look finds the threshold reached."""
    mine = await tenant(credit_microusd=1_000_000)
    rule = await watch(mine, AlertMetric.SPEND, 1)
    await database.fetch("UPDATE alert_rule SET checked_at = clock_timestamp() + interval '1 hour' WHERE id = $1", rule.id)  # taken; nobody else looks
    await call(gateway, mine.secret)
    await alerts.look()
    assert await mails(mine) == []
    await database.fetch("UPDATE alert_rule SET checked_at = clock_timestamp() - interval '61 seconds' WHERE id = $1", rule.id)
    await alerts.look()
    await fired(mine, 1)


async def _refused(attempt: Any) -> tuple[type[Refusal], tuple[str, ...] | None]:
    try:
        await attempt
    except Refusal as refusal:
        return type(refusal), refusal.path
    raise AssertionError("not refused")


async def test_bad_rules_are_refused_and_change_nothing(books: object) -> None:
    """Every bad field is named, and neither a rule is made nor one changed; another workspace's rule, key and endpoint do not exist."""
    mine, other = await tenant(), await tenant()
    foreign, _ = await webhooks.create(writer(other), "https://example.com/", None, installation_secret=SECRET, private_allowed=False)
    theirs = await watch(other, AlertMetric.SPEND, 1)
    spend = Threshold(AlertMetric.SPEND, 5)
    cases: list[tuple[NewRule, type[Refusal], tuple[str, ...]]] = [
        (NewRule("", spend), InvalidInput, ("name",)),
        (NewRule("a" * 201, spend), InvalidInput, ("name",)),
        (NewRule("a", Threshold(AlertMetric.SPEND, 0)), OutOfRange, ("threshold",)),
        (NewRule("a", Threshold(AlertMetric.SPEND, 2**53)), OutOfRange, ("threshold",)),
        (NewRule("a", Threshold(AlertMetric.BUDGET_PERCENT, 1001)), OutOfRange, ("threshold",)),
        (NewRule("a", spend, window="fortnight"), InvalidInput, ("window",)),
        (NewRule("a", spend, window="concurrent"), InvalidInput, ("window",)),
        (NewRule("a", Threshold(AlertMetric.BALANCE, 5), window="day"), InvalidInput, ("window",)),
        (NewRule("a", Threshold(AlertMetric.BALANCE, 5), subject=(SubjectKind.KEY, mine.key.id)), InvalidInput, ("threshold", "balance")),
        (NewRule("a", spend, emails=["ops@example.com", "nobody"]), InvalidInput, ("emails", "1")),
        (NewRule("a", spend, emails=[f"{number}@example.com" for number in range(21)]), OutOfRange, ("emails",)),
        (NewRule("a", spend, endpoint_id=foreign.id), NotFound, ("webhookEndpointId",)),
        (NewRule("a", spend, subject=(SubjectKind.KEY, other.key.id)), NotFound, ("subjectId",)),
    ]
    for new, kind, path in cases:
        assert await _refused(alerts.create(writer(mine), new)) == (kind, path)
    assert await alerts.every(writer(mine)) == []
    assert await _refused(alerts.update(writer(mine), theirs.id, RuleChanges(enabled=False))) == (NotFound, ("id",))
    assert await _refused(alerts.remove(writer(mine), theirs.id)) == (NotFound, ("id",))
    assert await _refused(alerts.update(writer(other), theirs.id, RuleChanges(name=""))) == (InvalidInput, ("name",))
    assert await _refused(alerts.update(writer(other), theirs.id, RuleChanges(emails=["x"]))) == (InvalidInput, ("emails", "0"))
    assert await alerts.every(writer(other)) == [theirs]


async def test_a_workspace_has_a_bounded_number_of_rules(books: object) -> None:
    """The fifty-first rule is refused; after one is deleted there is room again."""
    mine = await tenant()
    rules = [await watch(mine, AlertMetric.SPEND, 10**9) for _ in range(alerts.MOST_RULES)]
    assert (await _refused(alerts.create(writer(mine), NewRule("more", Threshold(AlertMetric.SPEND, 5)))))[0] is OutOfRange
    await alerts.remove(writer(mine), rules[0].id)
    await watch(mine, AlertMetric.SPEND, 5)
    for rule in await alerts.every(writer(mine)):
        await alerts.remove(writer(mine), rule.id)


async def test_the_mail_arrives(gateway: Gateway, books: Any) -> None:
    """The worker writes the mail: to the address, with the rule's name on one line of the subject."""
    mine = await tenant(credit_microusd=1_000_000)
    name = f"spend {uuid4().hex}"
    await alerts.create(writer(mine), NewRule(name, Threshold(AlertMetric.SPEND, 1), emails=["ops@example.com"]))
    await call(gateway, mine.secret)

    async def written() -> str:
        for path in (books.folder / "mail").glob("*.eml"):
            text = path.read_text()
            if name in text:
                return str(text)
        return ""

    text = await until(written, "the mail")
    assert f"Subject: Alert: {name}" in text
    assert "To: ops@example.com" in text
    row: asyncpg.Record | None = await database.fetch_row("SELECT status FROM job WHERE workspace_id = $1 AND kind = $2", mine.workspace_id, alerts.MAIL)
    assert row is not None
