"""What is bounded or given by model, where a router may come to several: it holds for every candidate, and counts what the answering one used."""

from datetime import UTC, datetime
from typing import Any

import pytest

from domain import errors
from domain.access import limits
from domain.access.limits import BoundInput
from domain.serving.calls import Opening
from models.enums import LimitPer, Measure, SubjectKind
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, used
from tests.serving.test_bounds import bounds
from tests.serving.test_grants import given, left
from tests.support.world import tenant

FIRST, SECOND = "claude-haiku-5-5", "echo"


def routed(own: OwnBooks, secret: str, **more: Any) -> Opening:
    """A call to `auto`, which tries FIRST and may fall back to SECOND."""
    values: dict[str, Any] = {"requested_model": "auto", "fallbacks": (listed(own.book, SECOND),), "input_tokens": 100, "max_output": 0} | more
    return opening(secret, listed(own.book, FIRST), **values)


@pytest.mark.parametrize("measure", [Measure.MONEY, Measure.TOKENS, Measure.CALLS])
def test_a_bound_of_a_fallback_refuses_before_anything_is_asked(own: OwnBooks, measure: Measure) -> None:
    """A bound of 0 on the second candidate's model refuses a routed call, though the first would have answered; a call of the first alone passes."""

    async def work() -> None:
        mine, process = await tenant(credit_microusd=1000), calls(own.book)
        _, secret = await mine.mint(**{"budgets" if measure is Measure.MONEY else "limits": (BoundInput(measure, "day", 0, model=SECOND),)})
        with pytest.raises(errors.BoundReached) as refused:
            await process.admit(routed(own, secret))
        assert refused.value.bound == f"{measure.value} in day"
        await process.admit(routed(own, secret, fallbacks=()))
        await own.sound()

    own.run(work())


def test_a_bound_counts_the_model_that_answered(own: OwnBooks) -> None:
    """While a routed call is under way each candidate's bound holds it; once it has ended only the answering model's counts it, in every measure."""

    async def work() -> None:
        mine, process = await tenant(credit_microusd=1000), calls(own.book)
        both = [BoundInput(measure, "day", 1000, model=model) for model in (FIRST, SECOND) for measure in (Measure.CALLS, Measure.TOKENS)]
        key, secret = await mine.mint()
        of_router = BoundInput(Measure.TOKENS, "day", 1000, LimitPer.TOGETHER, "auto")
        await limits.replace(mine.workspace_id, SubjectKind.KEY, key.id, limits.COUNTS, (*both, of_router), at=datetime.now(UTC))

        async def stand() -> list[tuple[int | None, int | None]]:
            return [(bound.spent, bound.held) for bound in await bounds(mine, key.id)]

        admitted = await process.admit(routed(own, secret))
        assert await stand() == [(1, 0), (0, 100), (1, 0), (0, 100), (0, 100)]
        await process.settle(ending(admitted, listed(own.book, SECOND), used(60, 0)))
        assert await stand() == [(0, 0), (0, 0), (1, 0), (60, 0), (60, 0)]
        admitted = await process.admit(routed(own, secret))
        await process.settle(ending(admitted, listed(own.book, FIRST), used(7, 0)))
        assert await stand() == [(1, 0), (7, 0), (1, 0), (60, 0), (67, 0)]
        await own.sound()

    own.run(work())


@pytest.mark.parametrize(("models", "pays"), [((FIRST,), False), ((SECOND,), False), ((FIRST, SECOND), True), (("auto",), True)])
def test_a_grant_pays_only_where_every_candidate_is_its_own(own: OwnBooks, models: tuple[str, ...], pays: bool) -> None:
    """A grant for one model does not pay for a call that may come to another; one for all of them, or for the router's name, does."""

    async def work() -> None:
        mine, process = await tenant(credit_microusd=1000), calls(own.book)
        grant = await given(mine, 500, models=models)
        for answers in (FIRST, SECOND):
            admitted = await process.admit(routed(own, mine.secret))
            await process.settle(ending(admitted, listed(own.book, answers), used(100, 0)))
        spent = 110  # 10 at the first, 100 at the second
        assert (await left(mine))[grant.id] == (500 - spent if pays else 500, "active")
        assert (await mine.balance()).cash == (1000 if pays else 1000 - spent)
        await own.sound()

    own.run(work())


def test_a_key_for_one_model_is_not_led_to_another(own: OwnBooks) -> None:
    """A key that was narrowed while its call was routed is refused, unless each candidate, or the router's name, is among its models."""

    async def work() -> None:
        mine, process = await tenant(credit_microusd=1000), calls(own.book)
        for models, passes in (((FIRST,), False), ((FIRST, SECOND), True)):
            _, secret = await mine.mint(allowed_models=models)
            if passes:
                await process.admit(routed(own, secret))
            else:
                with pytest.raises(errors.Forbidden):
                    await process.admit(routed(own, secret))

    own.run(work())
