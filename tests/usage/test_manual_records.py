"""What pays for a record that is made by hand: as for a call, grants before cash, and everything or nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from domain.access.callers import Caller
from domain.errors import InsufficientCredit
from domain.money import grants
from domain.money.grants import GrantView, NewGrant
from domain.pages import Page
from domain.usage import corrections
from domain.usage.corrections import NewRecord
from domain.usage.records import RecordView
from models.enums import ApiKeyKind, Scope
from tests.conftest import Suite
from tests.support.world import Tenant, broken, tenant

pytestmark = pytest.mark.anyio


async def _given(of: Tenant, amount: int, **more: Any) -> GrantView:
    return await grants.create(of.caller(Scope.OPERATOR), of.workspace_id, NewGrant(amount, "launch", idempotency_key=uuid4().hex, **more))


async def _made(by: Caller, charge_microusd: int) -> RecordView:
    return await corrections.create(by, NewRecord("llm_query", "/chat", 3, charge_microusd))


async def _stand(of: Tenant) -> tuple[int, dict[str, int]]:
    """Return the cash, and what is left of each grant by its reason."""
    found = await grants.page(of.caller(), Page(100), None)
    return (await of.balance()).cash, {str(grant.id): grant.remaining for grant in found.items}


async def test_grants_pay_before_cash_and_get_theirs_back(books: Suite) -> None:
    """A record of 100 takes 20 and 30 of two grants, the one that expires first before the other, and 50 of cash; voided, all have theirs again."""
    mine = await tenant(credit_microusd=1000)
    later = await _given(mine, 30)
    soon = await _given(mine, 20, expires_at=datetime.now(UTC) + timedelta(days=1))
    first = await _made(mine.caller(), 15)
    assert await _stand(mine) == (1000, {str(soon.id): 5, str(later.id): 30})
    second = await _made(mine.caller(), 85)
    assert await _stand(mine) == (950, {str(soon.id): 0, str(later.id): 0})
    for record in (second, first):
        await corrections.void(mine.caller(Scope.OPERATOR), record.id, "for the test")
    assert await _stand(mine) == (1000, {str(soon.id): 20, str(later.id): 30})
    assert await broken(mine) == []


async def test_grants_for_something_else_do_not_pay(books: Suite) -> None:
    """A grant for a model or for another app pays for no such record; a subscription's key spends cash, as beyond its quota."""
    mine = await tenant(credit_microusd=1000)
    await _given(mine, 30, models=("echo",))
    await _made(mine.caller(), 10)
    assert (await mine.balance()).cash == 990
    await _given(mine, 30)
    await _made(replace(mine.caller(), key_kind=ApiKeyKind.SUBSCRIPTION), 10)
    assert (await mine.balance()).cash == 980
    await _made(mine.caller(), 10)
    assert (await mine.balance()).cash == 980


async def test_what_cannot_be_paid_moves_nothing(books: Suite) -> None:
    """With 30 of grants and 40 of cash, a record of 71 is refused with what there is, and leaves both as they were."""
    mine = await tenant(credit_microusd=40)
    grant = await _given(mine, 30)
    with pytest.raises(InsufficientCredit) as refused:
        await _made(mine.caller(), 71)
    assert (refused.value.available_microusd, refused.value.required_microusd) == (70, 71)
    assert await _stand(mine) == (40, {str(grant.id): 30})
    await _made(mine.caller(), 70)
    assert await _stand(mine) == (0, {str(grant.id): 0})
    assert await broken(mine) == []
