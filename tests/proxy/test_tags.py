"""Tags that callers put on calls, to split usage by."""

import json
from datetime import UTC, datetime

import pytest

from domain.usage import measure, windows
from domain.usage.metrics import Dimension, Question
from domain.usage.windows import RelativeRange
from models import database
from tests.support import upstream as scripted
from tests.support.books import quiet
from tests.support.calling import WIRES, Wire, bearer, session
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import tenant

pytestmark = pytest.mark.anyio


@pytest.fixture(params=WIRES, ids=lambda wire: wire.name)
def wire(request: pytest.FixtureRequest) -> Wire:
    """Each dialect."""
    found: Wire = request.param
    return found


async def test_tags_are_kept_and_split_usage(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """`x-tallygate-tags` is recorded as far as it is sound, harms no call, never reaches the provider, and usage is split by it."""
    mine = await tenant(credit_microusd=1_000_000)
    provider.script(scripted.stream(wire.stream()))
    many = ",".join(f"t{number}=x" for number in range(20))
    sent = ["team=core, env = prod", "team=,=x,no,caf\u00e9=1,ok=yes;team=2,team=edge,team=late", many, f"long={'v' * 129},a b=c"]
    for tags in sent:
        async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret) | {"x-tallygate-tags": tags}) as response:
            assert response.status == 200
            await response.read()
    await quiet(mine)
    rows = await database.fetch('SELECT tags FROM "call" WHERE workspace_id = $1 ORDER BY id', mine.workspace_id)
    assert [row["tags"] and json.loads(row["tags"]) for row in rows] == [
        {"team": "core", "env": "prod"},
        {"ok": "yes;team=2", "team": "edge"},
        {f"t{number}": "x" for number in range(16)},
        None,
    ]
    assert all("x-tallygate-tags" not in {name.lower() for name, _ in request.headers} for request in provider.requests)
    window = windows.resolve(RelativeRange.LAST_24_HOURS, "UTC", datetime.now(UTC))
    groups = await measure.groups(mine.caller(), window, Question(by=(Dimension.TAG,), tag="team"))
    assert {(group.values.get(Dimension.TAG), group.metrics.requests) for group in groups} == {("core", 1), ("edge", 1), (None, 2)}
