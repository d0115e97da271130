"""How Postgres plans the statements of the hot path."""

import pytest

from models import database
from tests.conftest import Suite

pytestmark = pytest.mark.anyio


async def test_the_hot_path_is_planned_once_for_a_session(books: Suite) -> None:
    """Every installed version of admission, settlement and sign of life keeps generic plans: planned anew for every call, a settlement costs up to twice as much."""
    rows = await database.fetch("SELECT proname, coalesce(proconfig, '{}') AS settings FROM pg_proc WHERE proname ~ '^(admit|settle|progress)_[0-9]+$' ORDER BY proname")
    assert {"admit_6", "progress_3", "settle_4"} <= {row["proname"] for row in rows}
    assert [row["proname"] for row in rows if "plan_cache_mode=force_generic_plan" not in row["settings"]] == []
