"""Idempotent calls at the door (F32, M9): one charge, the same bytes again, and every other way that a repeat can go."""

import asyncio
import json
from typing import Any

import pytest

from domain.access import keys
from domain.serving import answers
from models import database
from tests.support import upstream as scripted
from tests.support.books import calls_of, quiet
from tests.support.calling import CLAUDE, GPT, WIRES, Wire, bearer, session, until
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

CREDIT = 1_000_000
EACH = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
Told = tuple[int, dict[str, str], bytes]


async def _ask(gateway: Gateway, wire: Wire, mine: Tenant, body: bytes, key: str, *, secret: str | None = None) -> Told:
    headers = bearer(secret or mine.secret) | {"idempotency-key": key}
    async with session() as client, client.post(gateway.url + wire.path, data=body, headers=headers) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()


async def _row(mine: Tenant) -> dict[str, Any] | None:
    row = await database.fetch_row("SELECT * FROM idempotent_answer WHERE workspace_id = $1", mine.workspace_id)
    return None if row is None else dict(row)


@EACH
@pytest.mark.parametrize("stream", [True, False])
async def test_a_repeat_gets_the_first_answer_byte_for_byte(gateway: Gateway, provider: Upstream, wire: Wire, stream: bool) -> None:
    """F32: status, content type and body are the first ones, streamed or not; one request upstream, one call, one charge; the id is the first call's."""
    mine = await tenant(credit_microusd=CREDIT)
    told = b"".join(wire.stream(("é", "\U0001f600", "x" * 3000))) if stream else wire.whole()
    provider.script(scripted.drip(told, size=11) if stream else scripted.whole(told), scripted.status(500))
    body = wire.body(stream=stream)
    first = await _ask(gateway, wire, mine, body, "order-1")
    again = [await _ask(gateway, wire, mine, body, "order-1") for _ in range(2)]
    assert first[0] == 200
    for status, headers, repeated in again:
        assert (status, repeated) == (200, first[2])
        assert headers["content-type"] == first[1]["content-type"]
        assert (headers["x-request-id"], headers["idempotent-replayed"]) == (first[1]["x-request-id"], "true")
    assert "idempotent-replayed" not in first[1]
    assert (len(provider.requests), len(await calls_of(mine))) == (1, 1)
    assert await quiet(mine) == CREDIT - wire.price()


async def test_a_receipt_counts_the_repeats(gateway: Gateway, provider: Upstream) -> None:
    """Two repeats of one call: its receipt says 2, and 0 before any, over REST as well; another body under the same key is no repeat."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(CLAUDE.whole()))

    async def replays() -> list[Any]:
        call_id = (await calls_of(mine))[0]
        query = f'{{ receipt(callId: "{call_id}") {{ idempotent replays }} }}'
        async with session() as client:
            async with client.post(f"{gateway.url}/graphql", json={"query": query}, headers=bearer(mine.secret)) as response:
                told = (await response.json())["data"]["receipt"]
            async with client.get(f"{gateway.url}/v1/receipts/{call_id}", headers=bearer(mine.secret)) as response:
                rest = await response.json()
        assert (rest["idempotent"], rest["replays"], rest["markup"]) == (told["idempotent"], told["replays"], None)
        return [told["idempotent"], told["replays"]]

    body = CLAUDE.body(stream=False)
    assert (await _ask(gateway, CLAUDE, mine, body, "order-1"))[0] == 200
    assert await replays() == [True, 0]
    for _ in range(2):
        assert (await _ask(gateway, CLAUDE, mine, body, "order-1"))[1]["idempotent-replayed"] == "true"
    assert (await _ask(gateway, CLAUDE, mine, CLAUDE.body("other", stream=False), "order-1"))[0] == 422
    assert await replays() == [True, 2]
    assert await quiet(mine) == CREDIT - CLAUDE.price()


async def test_64_duplicates_at_once_are_one_request_upstream(gateway: Gateway, provider: Upstream) -> None:
    """F32, M9: one is served, the others are told that it is under way and when to come back; then all get its answer; one charge."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()
    provider.script(scripted.held(CLAUDE.begin(), go, CLAUDE.rest()))
    body = CLAUDE.body()
    asking = [asyncio.ensure_future(_ask(gateway, CLAUDE, mine, body, "burst")) for _ in range(64)]
    await provider.arrival()

    async def refused() -> bool:
        return sum(task.done() for task in asking) == 63

    await until(refused, "63 duplicates refused")
    go.set()
    results = await asyncio.gather(*asking)
    assert sorted(status for status, _, _ in results) == [200] + [409] * 63
    for status, headers, told in results:
        if status == 409:
            assert headers["retry-after"] == "1"
            assert CLAUDE.refusal(told)[0] == "conflict_error"
    answer = next(told for status, _, told in results if status == 200)
    assert (await _ask(gateway, CLAUDE, mine, body, "burst"))[2] == answer
    assert (len(provider.requests), len(await calls_of(mine))) == (1, 1)
    assert await quiet(mine) == CREDIT - CLAUDE.price()


@EACH
async def test_another_body_is_refused(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """422 in the dialect's error body, not to be tried again; the first answer stays."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(wire.whole()))
    first = await _ask(gateway, wire, mine, wire.body(stream=False), "k")
    status, headers, told = await _ask(gateway, wire, mine, wire.body("other", stream=False), "k")
    assert (status, headers["x-should-retry"]) == (422, "false")
    assert wire.refusal(told)[0] == "invalid_request_error"
    assert (await _ask(gateway, wire, mine, wire.body(stream=False), "k"))[2] == first[2]
    assert len(provider.requests) == 1


@pytest.mark.parametrize("code", [400, 429, 500, 529])
async def test_a_key_whose_call_failed_before_its_first_byte_is_free(gateway: Gateway, provider: Upstream, code: int) -> None:
    """The next request with it is a new call, which may even be another body."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.status(code), scripted.whole(CLAUDE.whole()))
    assert (await _ask(gateway, CLAUDE, mine, CLAUDE.body(stream=False), "k"))[0] in (code, 502)
    assert await _row(mine) is None
    assert (await _ask(gateway, CLAUDE, mine, CLAUDE.body("other", stream=False), "k"))[0] == 200
    assert await quiet(mine) == CREDIT - CLAUDE.price()


async def test_a_key_whose_call_was_refused_is_free(gateway: Gateway, provider: Upstream) -> None:
    """No credit, an unknown model, a body that cannot be read: the key is not used up."""
    mine = await tenant()
    for body, status in ((CLAUDE.body(stream=False), 402), (CLAUDE.body(model="nothing"), 404), (b"{", 400)):
        assert (await _ask(gateway, CLAUDE, mine, body, "k"))[0] == status
        assert await _row(mine) is None
    assert (await _ask(gateway, CLAUDE, mine, CLAUDE.body(), "k", secret="tg_live_" + "0" * 36))[0] == 401
    assert provider.requests == []


@pytest.mark.parametrize("key", ["x" * 256, "caf\xe9", "a\tb"])
async def test_a_key_that_is_none_is_refused(gateway: Gateway, key: str) -> None:
    """1 to 255 printable characters; anything else is 400 and makes no call."""
    mine = await tenant(credit_microusd=CREDIT)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = CLAUDE.body(stream=False)
    fields = f"host: 127.0.0.1:{gateway.port}\r\nauthorization: Bearer {mine.secret}\r\nidempotency-key: {key}\r\ncontent-length: {len(body)}"
    head = f"POST {CLAUDE.path} HTTP/1.1\r\n{fields}\r\n\r\n"
    writer.write(head.encode("latin-1") + body)
    try:
        assert (await reader.readline()).split()[1] == b"400"
    finally:
        writer.close()
        await writer.wait_closed()
    assert await calls_of(mine) == []


async def test_a_client_that_leaves_finds_its_answer_when_it_comes_back(gateway: Gateway, provider: Upstream) -> None:
    """F16, F32: the gateway cancels for clients that leave, and reads this one to its end; the repeat is the whole stream, and charged once."""
    mine = await tenant(credit_microusd=CREDIT)
    go = asyncio.Event()
    provider.script(scripted.held(CLAUDE.begin(), go, CLAUDE.rest()))
    body = CLAUDE.body()
    named = bearer(mine.secret) | {"idempotency-key": "left"}
    async with session() as client, client.post(gateway.url + CLAUDE.path, data=body, headers=named) as response:
        await response.content.readany()
    status, headers, _ = await _ask(gateway, CLAUDE, mine, body, "left")
    assert (status, headers["retry-after"]) == (409, "1")
    go.set()
    await provider.requests[0].finished.wait()

    async def answered() -> Told | None:
        found = await _ask(gateway, CLAUDE, mine, body, "left")
        return found if found[0] == 200 else None

    found = await until(answered, "the answer")
    assert found is not None
    assert b"message_stop" in found[2]
    assert b"Hello" in found[2]
    assert len(provider.requests) == 1
    assert await quiet(mine) == CREDIT - CLAUDE.price()


async def test_a_stream_that_broke_is_told_again_as_it_was(gateway: Gateway, provider: Upstream) -> None:
    """Cut after a word that was charged: the repeat ends with the same error event, and nothing is charged again."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.stream(CLAUDE.begin(), then=scripted.cut))
    body = CLAUDE.body()
    first = await _ask(gateway, CLAUDE, mine, body, "k")
    CLAUDE.error_event(first[2])
    assert (await _ask(gateway, CLAUDE, mine, body, "k"))[2] == first[2]
    assert await quiet(mine) == CREDIT - CLAUDE.price(25, 3)


async def test_a_large_answer_is_charged_once_and_not_kept(gateway: Gateway, provider: Upstream) -> None:
    """Over 4 MiB: the repeat is 409, names the receipt, and is not to be tried again."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(CLAUDE.whole()[:-1] + b" " * answers.LARGEST_ANSWER_BYTES + b"}"))
    body = CLAUDE.body(stream=False)
    first = await _ask(gateway, CLAUDE, mine, body, "k")
    assert first[0] == 200
    status, headers, told = await _ask(gateway, CLAUDE, mine, body, "k")
    assert (status, headers["x-should-retry"]) == (409, "false")
    assert f"/v1/receipts/{first[1]['x-request-id']}" in CLAUDE.refusal(told)[1]
    assert await quiet(mine) == CREDIT - CLAUDE.price()


async def test_an_answer_is_kept_for_a_day_and_its_key_remembered(gateway: Gateway, provider: Upstream) -> None:
    """Past its time the repeat is 409 with the receipt, before and after the sweep has removed the bytes; much later the key is new."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(CLAUDE.whole()))
    body = CLAUDE.body(stream=False)
    await _ask(gateway, CLAUDE, mine, body, "k")
    await database.fetch("UPDATE idempotent_answer SET expires_at = clock_timestamp() WHERE workspace_id = $1", mine.workspace_id)
    assert (await _ask(gateway, CLAUDE, mine, body, "k"))[0] == 409
    await answers.sweep()
    row = await _row(mine)
    assert row is not None
    assert (row["state"], row["sealed"]) == ("expired", None)
    assert (await _ask(gateway, CLAUDE, mine, body, "k"))[0] == 409
    await database.fetch("UPDATE idempotent_answer SET created_at = created_at - interval '31 days' WHERE workspace_id = $1", mine.workspace_id)
    await answers.sweep()
    assert (await _ask(gateway, CLAUDE, mine, body, "k"))[0] == 200
    assert await quiet(mine) == CREDIT - 2 * CLAUDE.price()


async def test_nothing_of_it_is_stored_in_clear_or_opens_for_another_key(gateway: Gateway, provider: Upstream) -> None:
    """Neither secret, key nor answer stands in the row; another API key with the same idempotency key is another call; a rotated secret opens nothing."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(CLAUDE.whole()))
    body = CLAUDE.body("canary question", stream=False)
    await _ask(gateway, CLAUDE, mine, body, "canary-key")
    row = await _row(mine)
    assert row is not None
    stored = repr(row).encode() + bytes(row["sealed"])
    assert not any(word in stored for word in (b"canary", mine.secret.encode(), b"Hello world", b"msg_1"))
    _, other = await mine.mint(name="other")
    assert (await _ask(gateway, CLAUDE, mine, body, "canary-key", secret=other))[1].get("idempotent-replayed") is None
    _, rotated = await keys.rotate(mine.caller(), mine.key.id, grace_seconds=0)
    assert rotated is not None
    status, _, told = await _ask(gateway, CLAUDE, mine, body, "canary-key", secret=rotated)
    assert (status, "/v1/receipts/" in CLAUDE.refusal(told)[1]) == (409, True)
    assert (await _ask(gateway, CLAUDE, mine, body, "canary-key"))[0] == 401
    assert await quiet(mine) == CREDIT - 2 * CLAUDE.price()


async def test_a_claim_without_a_call_is_free_when_its_lease_is_over(gateway: Gateway, provider: Upstream) -> None:
    """M9: a process that died between claim and admission has spent nothing: 409 for the lease, then the key is free."""
    mine = await tenant(credit_microusd=CREDIT)
    provider.script(scripted.whole(GPT.whole()))
    body = GPT.body(stream=False)
    await _ask(gateway, GPT, mine, body, "k")
    await database.fetch(
        """
        UPDATE idempotent_answer SET state = 'claimed', sealed = NULL, call_id = uuidv7(), leased_until = clock_timestamp() + interval '1 hour'
         WHERE workspace_id = $1
        """,
        mine.workspace_id,
    )
    assert (await _ask(gateway, GPT, mine, body, "k"))[0] == 409
    await database.fetch("UPDATE idempotent_answer SET leased_until = clock_timestamp() WHERE workspace_id = $1", mine.workspace_id)
    status, headers, told = await _ask(gateway, GPT, mine, body, "k")
    assert (status, headers.get("idempotent-replayed")) == (200, None)
    assert json.loads(told)["object"] == "chat.completion"
