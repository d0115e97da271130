"""A gateway that is killed with -9 while a fallback answers: the sweep charges what that one costs, and shows the try that failed before it (F5, F17)."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from domain.money.catalogue import Book
from domain.serving import receipts
from models import database
from tests.conftest import PROVIDER_KEY
from tests.support import upstream as scripted
from tests.support.books import books_of, only_call, progress_of, quiet, settled
from tests.support.calling import CLAUDE, bearer, session, until
from tests.support.installation import installation
from tests.support.servers import Servers
from tests.support.upstream import Exchange
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
ROUTERS = """
[upstreams.scripted]
dialect = "anthropic"
url = "{url}"
key_env = "SCRIPTED_KEY"
models = ["claude-haiku-5-5", "claude-opus-5-5"]

[[routers]]
name = "cheap-first"
targets = [{{ model = "claude-haiku-5-5" }}, {{ model = "claude-opus-5-5" }}]
"""


async def _haiku_fails_and_opus_begins(exchange: Exchange) -> None:
    if json.loads(exchange.request.body)["model"] == "claude-haiku-5-5":
        await scripted.status(404)(exchange)
    else:
        await scripted.stream(CLAUDE.begin(), then=scripted.hang)(exchange)


async def test_a_fallback_that_is_killed_in_mid_stream_is_charged_at_its_own_price(servers: Servers, template: str, tmp_path: Path) -> None:
    """Haiku refuses, Opus streams two pieces, the process dies: Opus's model, upstream and price stand in the books, as an estimate, after Haiku's try."""
    servers.create_database("crash_fallback", template=template)
    configuration = tmp_path / "routers.toml"
    async with installation(servers, "crash_fallback", tmp_path) as over, books_of(over.dsn), session() as client:
        configuration.write_text(ROUTERS.format(url=over.upstream.url))
        over.upstream.script(_haiku_fails_and_opus_begins)
        own = {"TALLYGATE_CONFIG": str(configuration), "SCRIPTED_KEY": PROVIDER_KEY}
        first = await over.gateway(**own)
        mine = await tenant(credit_microusd=CREDIT)

        async def read() -> None:
            try:
                async with client.post(first.url + CLAUDE.path, data=CLAUDE.body(model="cheap-first"), headers=bearer(mine.secret)) as response:
                    await response.read()
            except aiohttp.ClientError:
                pass

        reading = asyncio.create_task(read())
        call_id = await only_call(mine)

        async def kept() -> bool:
            progress = await progress_of(call_id)
            return progress is not None and progress["quantities"].get("output") == 3

        await until(kept, "progress of the two pieces kept")
        assert await database.fetch_value('SELECT model FROM "call" WHERE id = $1', call_id) == "claude-haiku-5-5"
        first.kill()
        await reading
        await over.gateway(**own)
        booked = await settled(call_id)
        assert (booked.model, booked.charge_microusd, booked.input_tokens, booked.output_tokens) == ("claude-opus-5-5", CLAUDE.price(25, 3), 25, 3)
        assert (booked.token_source, booked.outcome, booked.error_code, booked.events) == ("estimate", "failed", "interrupted", 1)
        assert await quiet(mine) == CREDIT - CLAUDE.price(25, 3)
        book = Book()
        await book.refresh()
        receipt = await receipts.find(mine.caller(), call_id, book)
        assert receipt.price is not None
        assert (receipt.model, receipt.price.model, receipt.upstream_cost_microusd) == ("claude-opus-5-5", "claude-opus-5-5", CLAUDE.price(25, 3))
        assert sum(each.line.picousd for each in receipt.lines) == CLAUDE.price(25, 3) * 10**6
        tried = [(made.number, made.model, made.http_status, made.error_code, made.charged, made.cost_picousd) for made in receipt.attempts]
        assert tried == [
            (1, "claude-haiku-5-5", 404, "upstream_404", False, 0),
            (2, "claude-opus-5-5", None, "interrupted", False, CLAUDE.price(25, 3) * 10**6),
        ]
