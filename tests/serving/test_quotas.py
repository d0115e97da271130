"""Quotas: a subscription key spends what its workspace's subscriptions allow, in every window at once; synchronous, because it turns the clock."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from domain import errors
from domain.money import subscriptions, tiers
from domain.money.subscriptions import QuotaView
from domain.money.tiers import tiers_of
from domain.serving.calls import Admitted, Opening
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, Scope
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.support.world import Tenant, tenant


def tier(slug: str, *limits: tuple[str, str, int | str], **more: Any) -> dict[str, Any]:
    """A tier of the file, by its limits."""
    return {"slug": slug, "name": slug, "price_cents": 0, "limits": [{"resource": r, "window": w, "limit": most} for r, w, most in limits]} | more


async def subscriber(*of: dict[str, Any], credit_microusd: int = 0) -> tuple[Tenant, str]:
    """Make a workspace that has these tiers, and a subscription key of it."""
    known = [each["slug"] for each in of]
    every = [*(found for found in await tiers.listed() if found.slug not in known), *tiers_of({"tier": list(of)})]
    await tiers.keep(every, at=datetime.now(UTC))
    mine = await tenant(credit_microusd=credit_microusd)
    for slug in known:
        await subscriptions.grant(mine.caller(Scope.OPERATOR), mine.workspace_id, slug, "for the test", idempotency_key=slug)
    _, secret = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION)
    return mine, secret


def tool(own: OwnBooks, secret: str, *, input_tokens: int, max_output: int, model: str = "echo", **more: Any) -> Opening:
    """Make a call of a tool's road."""
    price = listed(own.book, model)
    values: dict[str, Any] = {"road": "tool", "endpoint": "/cursor/v1/messages"} | more
    return opening(secret, price, input_tokens=input_tokens, max_output=max_output, **values)


async def stands(mine: Tenant) -> dict[str, tuple[int | None, int | None]]:
    """Return used and limit of each quota, by resource and window."""
    found: Sequence[QuotaView] = await subscriptions.quotas(mine.workspace_id, at=datetime.now(UTC))
    return {f"{quota.resource.value} {quota.window}": (quota.used, quota.limit) for quota in found}


def test_a_quota_pays_and_the_charge_is_nothing(own: OwnBooks) -> None:
    """A call of 10 and 20 tokens takes 30 of the quota and no money, keeps its list value of 50 micros, and holds its worst case while it runs."""

    async def work() -> None:
        mine, secret = await subscriber(tier("plain", ("tokens", "24h", 1000), ("api_calls", "5h", 10), ("credits", "month", 1)), credit_microusd=500)
        process = calls(own.book)
        admitted = await process.admit(tool(own, secret, input_tokens=10, max_output=100))
        assert (admitted.hold_microusd, admitted.output_tokens, admitted.payer) == (0, 100, "quota")
        assert await stands(mine) == {"tokens 24h": (110, 1000), "api_calls 5h": (1, 10), "credits month": (0, 1)}
        listed_price = "SELECT w.held FROM bound_window w JOIN bound b USING (workspace_id) WHERE b.id = w.bound_id AND b.measure = 'list' AND w.workspace_id = $1"
        held = await database.fetch_value(listed_price, mine.workspace_id)
        assert held == 210
        settled = await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 20)))
        assert settled.charge_microusd == 0
        assert await stands(mine) == {"tokens 24h": (30, 1000), "api_calls 5h": (1, 10), "credits month": (0, 1)}
        event = await database.fetch_row("SELECT charge_microusd, list_microusd FROM usage_event WHERE id = $1", admitted.call_id)
        assert tuple(event or ()) == (0, 50)
        balance = await mine.balance()
        assert (balance.balance, balance.held) == (500, 0)
        await own.sound()

    own.run(work())


def test_three_processes_share_one_quota_exactly(own: OwnBooks) -> None:
    """F1, F2, F8: 64 first calls at once, of 7 tokens each, over three processes, on a quota of 100: exactly 14 pass, 2 are left, and a window began once."""

    async def work() -> None:
        mine, secret = await subscriber(tier("small", ("tokens", "24h", 100)))
        processes = [calls(own.book), calls(own.book, batch=3), calls(own.book, batch=1)]
        asked = [tool(own, secret, input_tokens=7, max_output=0) for _ in range(64)]
        heard: list[Any] = await asyncio.gather(*(processes[n % 3].admit(one) for n, one in enumerate(asked)), return_exceptions=True)
        admitted = [answer for answer in heard if isinstance(answer, Admitted)]
        assert len(admitted) == 14
        assert all(isinstance(answer, errors.BoundReached) and answer.passes for answer in heard if answer not in admitted)
        await asyncio.gather(*(processes[0].settle(ending(one, listed(own.book, "echo"), used(7, 0))) for one in admitted))
        assert await stands(mine) == {"tokens 24h": (98, 100)}
        with pytest.raises(errors.BoundReached) as refused:
            await processes[1].admit(tool(own, secret, input_tokens=7, max_output=0))
        assert refused.value.bound == "tokens in 24h"
        assert refused.value.resets_at is not None
        assert timedelta(hours=23, minutes=55) < refused.value.resets_at - datetime.now(UTC) <= timedelta(hours=24)
        assert f"The limit on tokens of the subscription for 24h does not cover this call; it begins anew at {refused.value.resets_at:%Y-%m-%d}" in refused.value.message
        await own.end_windows(mine.workspace_id)
        assert await stands(mine) == {"tokens 24h": (0, 100)}
        await processes[2].admit(tool(own, secret, input_tokens=7, max_output=0))
        assert await stands(mine) == {"tokens 24h": (7, 100)}
        await own.sound()

    own.run(work())


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        ((("tokens", "5h", 99), ("tokens", "7d", 1000)), "tokens in 5h"),
        ((("tokens", "5h", 1000), ("tokens", "7d", 99)), "tokens in 7d"),
        ((("tokens", "5h", 1000), ("api_calls", "billing_period", 1)), "calls in billing_period"),
        ((("tokens", "5h", 1000), ("credits", "day", 0)), "list in day"),
    ],
)
def test_every_window_of_the_tier_is_checked(own: OwnBooks, limits: tuple[tuple[str, str, int], ...], bound: str) -> None:
    """All windows hold together: the second call of 50 tokens is refused by whichever does not cover it, with that one's name."""

    async def work() -> None:
        mine, secret = await subscriber(tier(f"windows-{uuid7()}", *limits))
        process = calls(own.book)
        asked = [tool(own, secret, input_tokens=50, max_output=0) for _ in range(2)]
        if bound != "list in day":
            await process.settle(ending(await process.admit(asked[0]), listed(own.book, "echo"), used(50, 0)))
        with pytest.raises(errors.BoundReached) as refused:
            await process.admit(asked[1])
        assert refused.value.bound == bound
        if bound.endswith("billing_period"):
            (view,) = await subscriptions.of_workspace(mine.workspace_id, at=datetime.now(UTC))
            assert refused.value.resets_at == view.current_period_end
        await own.sound()

    own.run(work())


def test_limits_of_two_subscriptions_add_up_for_calls(own: OwnBooks) -> None:
    """60 and 40 tokens let in 100, and when one of the two ends, what is used of both counts against the other."""

    async def work() -> None:
        mine, secret = await subscriber(tier("sixty", ("tokens", "24h", 60)), tier("forty", ("tokens", "24h", 40)))
        process = calls(own.book)
        admitted = await process.admit(tool(own, secret, input_tokens=70, max_output=0))
        await process.settle(ending(admitted, listed(own.book, "echo"), used(70, 0)))
        await process.admit(tool(own, secret, input_tokens=20, max_output=0))
        second = (await subscriptions.of_workspace(mine.workspace_id, at=datetime.now(UTC)))[1]
        await subscriptions.end(mine.caller(Scope.OPERATOR), second.id)
        assert await stands(mine) == {"tokens 24h": (90, 60)}
        with pytest.raises(errors.BoundReached):
            await process.admit(tool(own, secret, input_tokens=1, max_output=0))
        await own.sound()

    own.run(work())


def test_overage_lets_cash_pay_what_the_quota_does_not_cover(own: OwnBooks) -> None:
    """With overage a call that the quota does not cover whole is cash's, wholly; without, it is refused; and the quota is not touched by it."""

    async def work() -> None:
        mine, secret = await subscriber(tier("over", ("tokens", "24h", 100)), credit_microusd=1000)
        process, price = calls(own.book), listed(own.book, "echo")
        first = await process.admit(tool(own, secret, input_tokens=80, max_output=0))
        await process.settle(ending(first, price, used(80, 0)))
        with pytest.raises(errors.BoundReached):
            await process.admit(tool(own, secret, input_tokens=30, max_output=10))
        await subscriptions.allow_overage(mine.caller(), True)
        second = await process.admit(tool(own, secret, input_tokens=30, max_output=10))
        assert (second.payer, second.hold_microusd, second.output_tokens) == ("cash", 50, 10)
        assert await stands(mine) == {"tokens 24h": (80, 100)}
        settled = await process.settle(ending(second, price, used(30, 5)))
        assert (settled.charge_microusd, (await mine.balance()).balance) == (40, 960)
        third = await process.admit(tool(own, secret, input_tokens=20, max_output=0))
        assert third.payer == "quota"
        since = datetime.now(UTC) - timedelta(minutes=5)
        assert await subscriptions.overage(mine.workspace_id, since) == 40
        await subscriptions.allow_overage(mine.caller(), False)
        with pytest.raises(errors.BoundReached):
            await process.admit(tool(own, secret, input_tokens=30, max_output=10))
        await own.sound()

    own.run(work())


def test_overage_is_bounded_by_the_balance_and_by_budgets(own: OwnBooks) -> None:
    """What the quota does not cover is refused when there is no cash, and by a budget, as any other call."""

    async def work() -> None:
        mine, secret = await subscriber(tier("broke", ("tokens", "24h", 10)), credit_microusd=5)
        await subscriptions.allow_overage(mine.caller(), True)
        with pytest.raises(errors.InsufficientCredit) as refused:
            await calls(own.book).admit(tool(own, secret, input_tokens=20, max_output=0))
        assert (refused.value.available_microusd, refused.value.required_microusd) == (5, 20)
        await own.sound()

    own.run(work())


def test_a_stream_ends_with_the_quota_and_goes_on_with_overage(own: OwnBooks) -> None:
    """F35: a stream's hold grows as far as the quota reaches, 10 + 40 of 50 tokens; with overage a call that the quota let in stays the quota's to its end."""

    async def work() -> None:
        mine, secret = await subscriber(tier("stream", ("tokens", "24h", 50), ("credits", "24h", 1)))
        process = calls(own.book)
        asked = tool(own, secret, input_tokens=10, max_output=1000, instalment=20)
        admitted = await process.admit(asked)
        assert admitted.output_tokens == 20
        assert await process.keep(sign(asked, mine.workspace_id, used(10, 20), output_tokens=35)) == 35
        assert await process.keep(sign(asked, mine.workspace_id, used(10, 30), output_tokens=500)) == 40
        assert await stands(mine) == {"tokens 24h": (50, 50), "credits 24h": (0, 1)}
        await subscriptions.allow_overage(mine.caller(), True)
        assert await process.keep(sign(asked, mine.workspace_id, used(10, 40), output_tokens=500)) == 500
        settled = await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 300)))
        assert settled.charge_microusd == 0
        assert await stands(mine) == {"tokens 24h": (310, 50), "credits 24h": (0, 1)}
        await own.sound()

    own.run(work())


def test_entitlement_goes_with_the_clock(own: OwnBooks) -> None:
    """F25: the call after a trial's last instant is refused, whatever its status says, and a call under way is the quota's to its end."""

    async def work() -> None:
        mine, secret = await subscriber(tier("brief", ("tokens", "24h", 1000)))
        process = calls(own.book)
        running = await process.admit(tool(own, secret, input_tokens=10, max_output=0))
        past = datetime.now(UTC) - timedelta(seconds=1)
        await own.admin.execute("UPDATE subscription SET source = 'stripe', status = 'trialing', trial_ends_at = $2 WHERE workspace_id = $1", mine.workspace_id, past)
        with pytest.raises(errors.BoundReached) as refused:
            await process.admit(tool(own, secret, input_tokens=10, max_output=0))
        assert (refused.value.bound, refused.value.passes) == ("subscription", False)
        assert (await process.settle(ending(running, listed(own.book, "echo"), used(10, 0)))).charge_microusd == 0
        await own.sound()

    own.run(work())


def test_a_tier_opens_the_routes_of_its_presets(own: OwnBooks) -> None:
    """A key whose tier names cursor alone is let in there, and is told of the tool that its subscription does not open."""

    async def work() -> None:
        _, secret = await subscriber(tier("narrow", ("tokens", "24h", 1000), presets=["cursor"]))
        process = calls(own.book)
        await process.admit(tool(own, secret, input_tokens=1, max_output=0))
        with pytest.raises(errors.Forbidden, match="does not open this tool's route"):
            await process.admit(tool(own, secret, input_tokens=1, max_output=0, endpoint="/cline/v1/messages"))
        with pytest.raises(errors.NotOnThisRoute):
            await process.admit(tool(own, secret, input_tokens=1, max_output=0, road="generic"))

    own.run(work())


def test_conversations_are_counted_once_in_a_window(own: OwnBooks) -> None:
    """Two conversations fit a limit of two however often they call; a third is refused until the window is over, and a call without any takes none."""

    async def work() -> None:
        mine, secret = await subscriber(tier("talk", ("conversations", "24h", 2), ("tokens", "24h", 1000)))
        process = calls(own.book)
        asked = [tool(own, secret, input_tokens=1, max_output=0, conversation=name) for name in ("a", "b", "a", "b", None, "a")]
        await asyncio.gather(*(process.admit(one) for one in asked))
        assert (await stands(mine))["conversations 24h"] == (2, 2)
        with pytest.raises(errors.BoundReached) as refused:
            await process.admit(tool(own, secret, input_tokens=1, max_output=0, conversation="c"))
        assert refused.value.bound == "conversations in 24h"
        await own.end_windows(mine.workspace_id)
        await process.admit(tool(own, secret, input_tokens=1, max_output=0, conversation="c"))
        await process.admit(tool(own, secret, input_tokens=1, max_output=0, conversation="a"))
        assert (await stands(mine))["conversations 24h"] == (2, 2)
        await own.sound()

    own.run(work())


def test_test_keys_use_up_nothing(own: OwnBooks) -> None:
    """A test key of kind subscription reaches echo and leaves every quota as it was."""

    async def work() -> None:
        mine, _ = await subscriber(tier("tested", ("tokens", "24h", 100)))
        _, secret = await mine.mint(kind=ApiKeyKind.SUBSCRIPTION, mode=ApiKeyMode.TEST)
        process = calls(own.book)
        admitted = await process.admit(tool(own, secret, input_tokens=500, max_output=500))
        await process.settle(ending(admitted, listed(own.book, "echo"), used(500, 500)))
        assert await stands(mine) == {"tokens 24h": (0, 100)}
        await own.sound()

    own.run(work())


def test_a_swept_call_of_a_quota_counts_what_it_had_used_and_its_late_end_the_rest(own: OwnBooks) -> None:
    """F4, F5: a process that dies leaves its last sign of life in the quota, nothing held; the real end, come late, corrects it; no money moves."""

    async def work() -> None:
        mine, secret = await subscriber(tier("swept", ("tokens", "24h", 1000), ("credits", "24h", 5)))
        process = calls(own.book)
        asked = tool(own, secret, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(10, 5)))
        await own.expire(asked.id)
        await calls(own.book).sweep()
        assert (await stands(mine))["tokens 24h"] == (15, 1000)
        settled = await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 90)))
        assert settled.charge_microusd == 0
        assert (await stands(mine))["tokens 24h"] == (100, 1000)
        assert (await mine.balance()).balance == 0
        await own.sound()

    own.run(work())


def test_short_windows_of_many_keys_need_no_timer(own: OwnBooks) -> None:
    """F38: a window of a second is over when its second is, because the next call says so: nothing ticks."""

    async def work() -> None:
        mine, secret = await subscriber(tier("quick", ("api_calls", "1s", 1)))
        process = calls(own.book)
        for _ in range(3):
            await process.admit(tool(own, secret, input_tokens=1, max_output=0))
            await own.end_windows(mine.workspace_id)
        assert await stands(mine) == {"api_calls 1s": (0, 1)}

    own.run(work())


def test_a_frozen_workspace_spends_nothing(own: OwnBooks) -> None:
    """While a payment is disputed no key of the workspace is let in, to free models neither; a test key is."""

    async def work() -> None:
        mine, secret = await subscriber(tier("frost", ("tokens", "24h", 100)), credit_microusd=100)
        _, testing = await mine.mint(mode=ApiKeyMode.TEST)
        await database.fetch("UPDATE workspace SET frozen_at = now() WHERE id = $1", mine.workspace_id)
        process = calls(own.book)
        for refused in (tool(own, secret, input_tokens=1, max_output=0), replace(tool(own, mine.secret, input_tokens=0, max_output=0), road="generic")):
            with pytest.raises(errors.InsufficientCredit, match="disputed"):
                await process.admit(refused)
        await process.admit(tool(own, testing, input_tokens=1, max_output=0, road="generic"))

    own.run(work())
