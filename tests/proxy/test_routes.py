"""What the inference road refuses before any upstream hears of it: who may not, what is too large, what cannot be read."""

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from domain.access import keys
from domain.access.limits import BoundInput
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, Measure, Scope
from tests.support import upstream as scripted
from tests.support.books import calls_of, only_call, quiet, settled
from tests.support.calling import CLAUDE, WIRES, Wire, bearer, session
from tests.support.gateway import Gateway
from tests.support.upstream import Exchange, Upstream
from tests.support.world import Tenant, tenant

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])]

UNKNOWN = "tg_live_" + "0" * 36
UNAUTHENTICATED = {"anthropic": "authentication_error", "openai": "invalid_request_error"}
FORBIDDEN = {"anthropic": "permission_error", "openai": "permission_error"}
BAD_REQUEST = {"anthropic": "invalid_request_error", "openai": "invalid_request_error"}
NOT_FOUND = {"anthropic": "not_found_error", "openai": "invalid_request_error"}


async def _refused(gateway: Gateway, wire: Wire, body: bytes, headers: dict[str, str], *, method: str = "POST") -> tuple[int, str, str, dict[str, str]]:
    async with session() as client, client.request(method, gateway.url + wire.path, data=body, headers=headers) as response:
        fields = {name.lower(): value for name, value in response.headers.items()}
        kind, message = wire.refusal(await response.read())
        assert fields["content-type"] == "application/json"
        assert fields["x-request-id"]
        return response.status, kind, message, fields


async def _works_no_more(wire: Wire, mine: Tenant) -> list[dict[str, str]]:
    revoked, revoked_secret = await mine.mint(name="revoked")
    await keys.revoke(mine.caller(), revoked.id)
    expired, expired_secret = await mine.mint(name="expired", expires_at=datetime.now(UTC) + timedelta(days=1))
    await database.fetch("UPDATE api_key SET expires_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2", mine.workspace_id, expired.id)
    return [{}, bearer("sk-not-ours"), bearer(UNKNOWN), {"x-api-key": UNKNOWN}, bearer(revoked_secret), bearer(expired_secret)]


async def test_a_key_that_does_not_work_is_401_and_not_to_be_tried_again(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """Without a key, and with one that is foreign, unknown, revoked or expired: 401 in the dialect's shape with `x-should-retry: false`."""
    mine = await tenant(credit_microusd=1_000_000)
    for headers in await _works_no_more(wire, mine):
        status, kind, message, fields = await _refused(gateway, wire, wire.body(), headers)
        assert (status, kind, fields["x-should-retry"]) == (401, UNAUTHENTICATED[wire.name], "false")
        assert "tg_live_0" not in message
    assert provider.requests == []
    assert await calls_of(mine) == []


async def test_who_is_not_known_learns_nothing_of_models(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """An unknown key gets 401 whatever else is wrong with its request: an unknown model, bad JSON, no body at all."""
    for body in (wire.body(model="no-such-model"), b"{", b"", b"[]"):
        assert (await _refused(gateway, wire, body, bearer(UNKNOWN)))[0] == 401


async def test_what_cannot_be_read_is_400_in_the_dialects_shape(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """Bad JSON, another type than an object, bad UTF-8, deep nesting, a missing field and a wrong one: 400, no call, nothing held."""
    mine = await tenant(credit_microusd=1_000_000)
    deep = b'{"model":"x","messages":' + b"[" * 100_000
    bad = [b"", b"{", b"[]", b"null", b'"text"', b'{"model":"\xff"}', deep, b"{}", wire.body().replace(b"true", b"1"), wire.body(max_tokens=-1), b"\x1f\x8b\x08\x00"]
    for body in bad:
        status, kind, _, _ = await _refused(gateway, wire, body, bearer(mine.secret))
        assert (status, kind) == (400, BAD_REQUEST[wire.name]), body[:60]
    assert await calls_of(mine) == []
    assert await quiet(mine) == 1_000_000


async def test_a_character_that_the_database_cannot_keep_harms_nobody(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """NUL and lone surrogates in an end user's name are no 500: the call is served, or refused with 400."""
    mine = await tenant(credit_microusd=1_000_000)
    provider.script(scripted.stream(wire.stream()))
    for name in ("a\\u0000b", "a\\ud800b"):
        field = f'"metadata":{{"user_id":"{name}"}}' if wire is CLAUDE else f'"user":"{name}"'
        body = wire.body()[:-1] + b"," + field.encode() + b"}"
        async with session() as client, client.post(gateway.url + wire.path, data=body, headers=bearer(mine.secret) | {"x-language": "de"}) as response:
            assert response.status in (200, 400)
            await response.read()
    await quiet(mine)


async def test_a_language_is_kept_when_it_is_one(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """The header `x-language` is recorded when it is a language tag, and harms no call when it is anything else."""
    mine = await tenant(credit_microusd=1_000_000)
    provider.script(scripted.stream(wire.stream()))
    for language in ("pt-BR", "x" * 36, "caf\u00e9", "de; q=1"):
        async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(mine.secret) | {"x-language": language}) as response:
            assert response.status == 200
            await response.read()
    await quiet(mine)
    rows = await database.fetch('SELECT language FROM "call" WHERE workspace_id = $1 ORDER BY id', mine.workspace_id)
    assert [row["language"] for row in rows] == ["pt-BR", None, None, None]


async def test_an_unknown_model_is_404(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A model that nobody serves, whether the catalogue knows it or not, is 404 and names itself."""
    mine = await tenant(credit_microusd=1_000_000)
    for name in ("no-such-model", "claude-sonnet-5-5"):
        status, kind, message, _ = await _refused(gateway, wire, wire.body(model=name), bearer(mine.secret))
        assert (status, kind) == (404, NOT_FOUND[wire.name])
        assert name in message
    assert await calls_of(mine) == []
    assert provider.requests == []


async def test_only_post_is_answered(gateway: Gateway, wire: Wire) -> None:
    """Another method is refused in the dialect's shape."""
    for method in ("GET", "PUT", "DELETE"):
        status, kind, message, fields = await _refused(gateway, wire, b"", {}, method=method)
        assert (status, kind, fields["allow"]) == (405, BAD_REQUEST[wire.name], "POST")
        assert message == f"{method} is not answered here; send POST."


async def test_a_key_that_may_not_is_403(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """Without scope INFERENCE, for another model, from another origin or address, or of kind subscription: 403, never retried, nothing held."""
    mine = await tenant(credit_microusd=1_000_000)
    minted = [
        await mine.mint(name="no scope", scopes=frozenset({Scope.USAGE_READ})),
        await mine.mint(name="other model", allowed_models=("echo",)),
        await mine.mint(name="other origin", allowed_origins=("https://app.example.com",)),
        await mine.mint(name="other address", allowed_addresses=("203.0.113.0/24",)),
        await mine.mint(name="subscription", kind=ApiKeyKind.SUBSCRIPTION),
    ]
    for _, secret in minted:
        status, kind, _, fields = await _refused(gateway, wire, wire.body(), bearer(secret))
        assert (status, kind, fields["x-should-retry"]) == (403, FORBIDDEN[wire.name], "false")
    assert provider.requests == []
    assert await calls_of(mine) == []


async def test_a_test_key_reaches_only_echo_and_costs_nothing(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """`tg_test_` keys get answers of `echo` without credit; every other model is 403 and no upstream hears of it."""
    mine = await tenant(mode=ApiKeyMode.TEST)
    assert mine.secret.startswith("tg_test_")
    status, kind, _, _ = await _refused(gateway, wire, wire.body(), bearer(mine.secret))
    assert (status, kind, provider.requests) == (403, FORBIDDEN[wire.name], [])
    async with session() as client, client.post(gateway.url + wire.path, data=wire.body(model="echo"), headers=bearer(mine.secret)) as response:
        assert response.status == 200
        assert wire.end in await response.read()
    booked = await settled(await only_call(mine))
    assert (booked.charge_microusd, booked.outcome, booked.output_tokens) == (0, "succeeded", 1)
    assert await quiet(mine) == 0


async def _head(gateway: Gateway, wire: Wire, fields: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Send a head and the beginning of a body, nothing more, and read the answer's status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    lines = [f"POST {wire.path} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
    answer = await reader.readexactly(length)
    writer.close()
    return int(head.split(" ")[1]), answer


async def test_a_large_body_without_a_key_is_refused_before_it_is_read(gateway: Gateway, wire: Wire) -> None:
    """Nobody fills our memory without a key: the answer comes while the body is still to be sent, with and without its length announced."""
    length = {"content-length": str(20 * 1024 * 1024)}
    for credential in ({}, {"authorization": f"Bearer {UNKNOWN}"}):
        status, body = await _head(gateway, wire, length | credential, b"{")
        assert (status, wire.refusal(body)[0]) == (401, UNAUTHENTICATED[wire.name])
    part = b" " * (64 * 1024 + 1)
    chunk = b"%x\r\n%b\r\n" % (len(part), part)
    status, body = await _head(gateway, wire, {"transfer-encoding": "chunked", "authorization": f"Bearer {UNKNOWN}"}, chunk)
    assert (status, wire.refusal(body)[0]) == (401, UNAUTHENTICATED[wire.name])


async def test_a_body_over_32_mib_is_413(gateway: Gateway, wire: Wire) -> None:
    """A body that announces more than 32 MiB is refused unread, with a key too; one that is longer than it may be, when it is."""
    mine = await tenant(credit_microusd=1_000_000)
    status, body = await _head(gateway, wire, {"content-length": str(32 * 1024 * 1024 + 1), "authorization": f"Bearer {mine.secret}"}, b"{")
    assert (status, wire.refusal(body)[0]) == (413, {"anthropic": "request_too_large", "openai": "invalid_request_error"}[wire.name])
    assert await calls_of(mine) == []


async def test_a_body_of_several_mib_passes_whole(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """A large body with a key reaches the upstream byte for byte, and its input is held before."""
    mine = await tenant(credit_microusd=100_000_000)
    provider.script(scripted.whole(wire.whole()))
    body = wire.body("x" * 3_000_000, stream=False)
    async with session() as client, client.post(gateway.url + wire.path, data=io.BytesIO(body), headers=bearer(mine.secret)) as response:
        assert response.status == 200
    assert provider.requests[0].body == body
    assert await quiet(mine) == 100_000_000 - wire.price()


async def test_both_credentials_may_be_shown_and_one_must_work(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """Tools send `authorization` and `x-api-key` with different values: the one that is ours counts, in any order."""
    mine = await tenant(credit_microusd=1_000_000)
    provider.script(scripted.whole(wire.whole()))
    for headers in ({"authorization": "Bearer sk-ant-other", "x-api-key": mine.secret}, {"authorization": f"Bearer {mine.secret}", "x-api-key": "sk-other"}):
        async with session() as client, client.post(gateway.url + wire.path, data=wire.body(stream=False), headers=headers) as response:
            assert response.status == 200
            assert json.loads(await response.read())["id"]
    _, fresh = await mine.mint(name="fresh")
    await keys.revoke(mine.caller(), mine.key.id)
    for headers in ({"authorization": f"Bearer {mine.secret}", "x-api-key": fresh}, {"authorization": f"Bearer {fresh}", "x-api-key": mine.secret}):
        async with session() as client, client.post(gateway.url + wire.path, data=wire.body(stream=False), headers=headers) as response:
            assert response.status == 200  # of two of ours, the one that works
            await response.read()
    seen = " ".join(value for request in provider.requests for _, value in request.headers)
    assert mine.secret not in seen
    assert fresh not in seen
    assert "sk-ant-other" not in seen
    assert "sk-other" not in seen


async def test_a_wrong_key_is_called_wrong_and_not_missing(gateway: Gateway, wire: Wire) -> None:
    """Who shows a key that is mistyped is told that it is not known; who shows none is told how to show one."""
    mine = await tenant()
    mistyped = mine.secret[:-1] + ("a" if mine.secret[-1] != "a" else "b")
    for headers in (bearer(mistyped), bearer(mine.secret.replace("live", "test")), {"x-api-key": "sk-other"}):
        assert (await _refused(gateway, wire, wire.body(), headers))[2] == "This API key is unknown, revoked or expired."
    assert (await _refused(gateway, wire, wire.body(), {}))[2] == "Send a Tallygate API key, as `Authorization: Bearer` or `x-api-key`."


async def test_a_body_without_a_type_goes_upstream_as_json(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """The body was read as JSON, so a client that names no content type does not make a provider refuse it."""
    mine = await tenant(credit_microusd=1_000_000)
    provider.script(scripted.whole(wire.whole()))
    async with session() as client:
        asked = client.post(gateway.url + wire.path, data=wire.body(stream=False), headers=bearer(mine.secret), skip_auto_headers=["content-type"])
        async with asked as response:
            assert response.status == 200
            await response.read()
    assert provider.requests[-1].header("content-type") == "application/json"


RATE_LIMITED = {"anthropic": "rate_limit_error", "openai": "rate_limit_error"}
USED_UP = {"anthropic": "billing_error", "openai": "insufficient_quota"}


async def test_a_bound_that_soon_passes_is_tried_again_and_another_is_told(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F3: a limit of a minute is 429 with `retry-after`, which SDKs wait for; one of a day, and one for good, are not to be repeated, and say when."""
    mine = await tenant(credit_microusd=1_000_000)
    provider.script(scripted.whole(wire.whole()))
    for measure, window, kind, words in (
        (Measure.CALLS, "1m", RATE_LIMITED, "The limit on calls for 1m does not cover this call; it begins anew at 20"),
        (Measure.CALLS, "24h", USED_UP, "The limit on calls for 24h does not cover this call; it begins anew at 20"),
        (Measure.TOKENS, "lifetime", USED_UP, "The limit on tokens for good does not cover this call."),
        (Measure.MONEY, "day", USED_UP, "The budget for a day does not cover this call"),
    ):
        most = {Measure.CALLS: 1, Measure.TOKENS: 40, Measure.MONEY: wire.price() + 1}[measure]
        _, secret = await mine.mint(**{"budgets" if measure is Measure.MONEY else "limits": (BoundInput(measure, window, most),)})
        body = wire.body(stream=False, max_tokens=12)
        async with session() as client, client.post(gateway.url + wire.path, data=body, headers=bearer(secret)) as first:
            assert first.status == 200, (measure, window)
            await first.read()
        status, told, message, fields = await _refused(gateway, wire, body, bearer(secret))
        assert (status, told) == (429, kind[wire.name])
        assert message.startswith(words)
        assert ("x-should-retry" in fields) == (kind is USED_UP)
        if kind is RATE_LIMITED:
            assert 1 <= int(fields["retry-after"]) <= 61


async def test_a_call_too_many_at_once_is_tried_again(gateway: Gateway, provider: Upstream, wire: Wire) -> None:
    """F3: beyond the calls that may be under way at once it is 429, to be tried again after a second."""
    mine = await tenant(credit_microusd=1_000_000)
    held = asyncio.Event()

    async def later(exchange: Exchange) -> None:
        await held.wait()
        await exchange.send(b"".join(wire.rest()))
        await exchange.end()

    provider.script(scripted.stream(wire.begin(), then=later))
    _, secret = await mine.mint(limits=(BoundInput(Measure.CONCURRENT, "concurrent", 1),))
    async with session() as client, client.post(gateway.url + wire.path, data=wire.body(), headers=bearer(secret)) as first:
        assert await first.content.readany()
        status, kind, message, fields = await _refused(gateway, wire, wire.body(), bearer(secret))
        assert (status, kind, fields["retry-after"]) == (429, RATE_LIMITED[wire.name], "1")
        assert message == "As many calls are under way as may be at once; try again when one has ended."
        assert "x-should-retry" not in fields
        held.set()
        await first.read()
