"""Two gateway processes over one database decide as one: keys, balances, limits and budgets (K1, F1, F7, F8, F28)."""

import asyncio
import math
from collections import Counter
from typing import Any

import aiohttp
import pytest

from domain.access import keys
from domain.access.limits import BoundInput
from models import database
from models.enums import Measure
from tests.scenarios.conftest import INSTALMENT_TOKENS
from tests.support import upstream as scripted
from tests.support.books import only_call, quiet, settled
from tests.support.calling import WIRES, Wire, bearer, by_word, session
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

CREDIT = 1_000_000
QUESTION = "Say this back to me, word for word."
ECHO_MICROUSD = 27
"""`echo` counts 9 tokens in and 9 out of QUESTION, at 1 and 2 microdollars."""


async def _status(client: aiohttp.ClientSession, gateway: Gateway, wire: Wire, secret: str, **more: object) -> int:
    body = wire.body(QUESTION, model="echo", stream=False, **more)
    async with client.post(gateway.url + wire.path, data=body, headers=bearer(secret)) as response:
        await response.read()
        return response.status


async def _control(client: aiohttp.ClientSession, gateway: Gateway, secret: str, document: str, **variables: str) -> dict[str, Any]:
    async with client.post(f"{gateway.url}/graphql", json={"query": document, "variables": variables}, headers=bearer(secret)) as response:
        answer: dict[str, Any] = await response.json()
    assert "errors" not in answer, answer
    payload: dict[str, Any] = next(iter(answer["data"].values()))
    assert payload["userErrors"] == []
    return payload


async def test_a_key_revoked_at_one_fails_at_the_other_on_its_next_request(gateway: Gateway, neighbour: Gateway, wire: Wire) -> None:
    """K1, F28: ten keys, each used at both processes, revoked through one of them, refused by both at once."""
    mine = await tenant(credit_microusd=CREDIT)
    async with session() as client:
        for number in range(10):
            one, other = (gateway, neighbour) if number % 2 else (neighbour, gateway)
            made = await _control(
                client, one, mine.secret, 'mutation { apiKeyCreate(input: { name: "short-lived" }) { apiKey { id } secret userErrors { message } } }'
            )
            assert [await _status(client, each, wire, made["secret"]) for each in (one, other)] == [200, 200]
            await _control(
                client,
                one,
                mine.secret,
                "mutation($id: ID!) { apiKeyRevoke(input: { id: $id }) { apiKey { status } userErrors { message } } }",
                id=made["apiKey"]["id"],
            )
            assert [await _status(client, each, wire, made["secret"]) for each in (other, one)] == [401, 401]
    assert await quiet(mine) == CREDIT - 20 * ECHO_MICROUSD


async def test_a_stream_opened_before_the_revocation_goes_on_and_is_charged(gateway: Gateway, neighbour: Gateway, provider: Upstream, wire: Wire) -> None:
    """K1: the revocation stops the next request and not the answer that is under way, which is charged in full."""
    mine = await tenant(credit_microusd=CREDIT)
    key, secret = await mine.mint(name="short-lived")
    go = asyncio.Event()
    provider.script(scripted.held(wire.begin(), go, wire.rest()))
    async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(secret)) as response:
        await response.content.readuntil(b"world")
        await keys.revoke(mine.caller(), key.id)
        assert await _status(client, neighbour, wire, secret) == 401
        assert await _status(client, gateway, wire, secret) == 401
        go.set()
        assert wire.end in await response.read()
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome) == (wire.price(), "succeeded")
    assert await quiet(mine) == CREDIT - wire.price()


async def _both(gateway: Gateway, neighbour: Gateway, wire: Wire, secret: str, count: int) -> Counter[int]:
    async with session() as client:
        return Counter(await asyncio.gather(*(_status(client, (gateway, neighbour)[number % 2], wire, secret) for number in range(count))))


async def test_a_limit_of_calls_is_one_for_all_processes(gateway: Gateway, neighbour: Gateway, wire: Wire) -> None:
    """F8: of forty calls at once at two processes, a limit of ten lets ten through; the others are 429."""
    mine = await tenant(credit_microusd=CREDIT)
    _, secret = await mine.mint(name="bounded", limits=(BoundInput(Measure.CALLS, "day", 10),))
    assert await _both(gateway, neighbour, wire, secret, 40) == {200: 10, 429: 30}
    assert await quiet(mine) == CREDIT - 10 * ECHO_MICROUSD


async def test_a_budget_is_one_for_all_processes(gateway: Gateway, neighbour: Gateway, wire: Wire) -> None:
    """F8: a budget of 300 microdollars is never overspent by two processes, and what is spent is what its calls cost."""
    mine = await tenant(credit_microusd=CREDIT)
    _, secret = await mine.mint(name="bounded", budgets=(BoundInput(Measure.MONEY, "day", 300),))
    statuses = await _both(gateway, neighbour, wire, secret, 40)
    assert set(statuses) <= {200, 429}
    assert 1 <= statuses[200] <= 11
    spent = CREDIT - await quiet(mine)
    assert spent <= 300
    counted = await database.fetch_row(
        "SELECT sum(spent)::bigint AS spent, sum(held)::bigint AS held FROM bound_window WHERE workspace_id = $1", mine.workspace_id
    )
    assert counted is not None
    assert (counted["spent"], counted["held"]) == (spent, 0)


async def test_a_balance_is_one_for_all_processes(gateway: Gateway, neighbour: Gateway, wire: Wire) -> None:
    """F1: forty calls at once against a balance for a few: two processes never take it below zero, and books and answers agree."""
    mine = await tenant(credit_microusd=5 * ECHO_MICROUSD)
    statuses = await _both(gateway, neighbour, wire, mine.secret, 40)
    assert 200 in statuses
    assert set(statuses) - {200} <= {402, 429}  # the balance is gone, or held by calls under way
    left = await quiet(mine)
    assert 0 <= left < 5 * ECHO_MICROUSD
    charged = await database.fetch_value("SELECT sum(charge_microusd)::bigint FROM usage_event WHERE workspace_id = $1", mine.workspace_id)
    assert charged == 5 * ECHO_MICROUSD - left


async def test_a_long_stream_ends_at_the_last_token_that_is_covered(neighbour: Gateway, provider: Upstream, wire: Wire) -> None:
    """F35: the hold grows by instalments until the balance is used up; then the stream has a proper end, and nothing is written off."""
    body = wire.body("<long>", max_tokens=10_000)
    dearest_input, dearest_output = {"anthropic": (8, 20), "openai": (12.5, 75)}[wire.name]
    tokens = 10 * INSTALMENT_TOKENS + 7
    credit = math.ceil(wire.counted(body) * dearest_input + tokens * dearest_output)
    mine = await tenant(credit_microusd=credit)
    provider.script(by_word({"long": scripted.stream(wire.begin(("four",) * 10_000), then=scripted.hang)}))
    async with session() as client, client.post(neighbour.url + wire.path, data=body, headers=bearer(mine.secret)) as response:
        told = await response.read()
    assert "x-max-tokens-clamped" not in response.headers
    assert wire.end in told
    assert (b'"stop_reason":"max_tokens"' if wire.name == "anthropic" else b'"finish_reason":"length"') in told
    assert told.count(b"four") == tokens
    booked = await settled(await only_call(mine))
    assert (booked.output_tokens, booked.outcome, booked.error_code) == (tokens, "succeeded", "credit_exhausted")
    # what may be missing is what the provider counts of the input beyond our own count of it, times its price
    assert await quiet(mine) == max(0, credit - wire.price(booked.input_tokens, tokens))
    beyond = await database.fetch_value("SELECT coalesce(sum(amount), 0)::bigint FROM transfer WHERE workspace_id = $1 AND kind = 'write_off'", mine.workspace_id)
    assert beyond <= max(0, booked.input_tokens - wire.counted(body)) * wire.input_microusd
