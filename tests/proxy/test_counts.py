"""Counting tokens: free for any key that works, of no trace, as parallel as a tool likes."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic as sdk
import pytest
import uvicorn

from domain.access import keys
from models import database
from models.enums import ApiKeyKind, ApiKeyMode, Scope
from proxy.counts import CountTokens, counted
from proxy.dialects import anthropic, openai
from proxy.dialects.base import BadRequest
from proxy.presets.insertion import apply
from proxy.presets.registry import load
from proxy.requests import LARGEST_BODY_BYTES
from tests.conftest import Suite
from tests.proxy.presets.conversations import MESSAGES_API, OPENAI, claude_code
from tests.support.books import calls_of, quiet
from tests.support.calling import bearer, session
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

PRESETS = load()
PATH = "/v1/messages/count_tokens"
TOOL_PATHS = {
    "/claudecode/v1/messages/count_tokens": "claudecode@1",
    "/claudecode/v1/v1/messages/count_tokens": "claudecode@1",
    "/cline/v1/messages/count_tokens": "cline@1",
    "/cline/messages/count_tokens": "cline@1",
    "/cursor/v1/messages/count_tokens": "cursor@1",
    "/roocode/v1/messages/count_tokens": "roocode@1",
}
HI: dict[str, Any] = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "Hi"}]}
# [{"role":"user","content":"Hi"}] has 32 bytes.
HI_TOKENS = 8


def written(**fields: Any) -> bytes:
    """Write a body as clients do."""
    return json.dumps(HI | fields, separators=(",", ":")).encode()


# The number.


@pytest.mark.parametrize("name", MESSAGES_API)
@pytest.mark.parametrize("slug", PRESETS)
def test_a_count_is_what_admission_counts(name: str, slug: str) -> None:
    """For a body of any tool and any preset, the count is the one that the call itself would be admitted with."""
    body = MESSAGES_API[name](2)
    version = PRESETS[slug].current
    ask = anthropic.parse(body)
    assert counted(anthropic, body, None) == ask.input_tokens
    served, told = apply(version, "anthropic", body, ask)
    assert counted(anthropic, body, version) == told.input_tokens == ask.input_tokens + version.tokens
    assert counted(anthropic, served, version) == anthropic.count(served)


def test_a_chat_is_counted_by_the_same_rule() -> None:
    """The other dialect's count is its own heuristic and the preset's tokens."""
    body = OPENAI["chat"](1)
    version = PRESETS["cursor"].current
    assert counted(openai, body, version) == openai.parse(body).input_tokens + version.tokens


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":7}', b"{}", b'{"messages":[],"messages":[]}'])
def test_what_cannot_be_counted_is_a_bad_request(body: bytes) -> None:
    """Whatever else may be wrong, BadRequest is what is raised, with a preset as without one."""
    for version in (None, PRESETS["cline"].current):
        with pytest.raises(BadRequest):
            counted(anthropic, body, version)


# The door.


@pytest.fixture(scope="module")
async def door(books: Suite) -> AsyncIterator[str]:
    """The address of a real server that answers nothing but counts, on the run's database."""
    config = uvicorn.Config(CountTokens(PRESETS), host="127.0.0.1", port=0, lifespan="off", http="httptools", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


async def ask(door: str, path: str, body: bytes, headers: dict[str, str], *, method: str = "POST") -> tuple[int, dict[str, str], dict[str, Any]]:
    """Ask for a count; return status, header fields and the JSON of the answer."""
    async with session() as client, client.request(method, door + path, data=io.BytesIO(body), headers=headers) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}, json.loads(await response.read())


async def refused(door: str, body: bytes, headers: dict[str, str], *, path: str = PATH, method: str = "POST") -> tuple[int, str, dict[str, str]]:
    """Ask for a count that is refused; return status, the error's type and the header fields."""
    status, fields, told = await ask(door, path, body, headers, method=method)
    assert told == {"type": "error", "error": {"type": told["error"]["type"], "message": told["error"]["message"]}, "request_id": fields["x-request-id"]}
    assert fields["request-id"] == fields["x-request-id"]
    assert fields["content-type"] == "application/json"
    return status, told["error"]["type"], fields


async def untouched(mine: Tenant) -> None:
    """Fail unless a workspace's books are as on its first day."""
    assert await calls_of(mine) == []
    assert await quiet(mine) == 0
    assert await database.fetch("SELECT 1 FROM hold WHERE workspace_id = $1", mine.workspace_id) == []


async def test_a_burst_of_25(door: str) -> None:
    """25 counts at once, as Claude Code's /context sends them, some with `tools: []` and "foo" for a message, all answered, with no credit at all."""
    mine = await tenant()
    tools = [{"name": f"t{number}", "description": "d" * number, "input_schema": {"type": "object"}} for number in range(12)]
    bodies = [
        written(messages=[{"role": "user", "content": "foo"}], tools=[]),
        written(messages=[{"role": "user", "content": "foo"}], tools=tools),
        *(written(messages=[{"role": "user", "content": "foo"}], tools=[tool]) for tool in tools),
        *(written(system=[{"type": "text", "text": "s" * 4 * number}], tools=[]) for number in range(10)),
        claude_code(3),
    ]
    assert len(bodies) == 25
    version = PRESETS["claudecode"].current
    answers = await asyncio.gather(*(ask(door, "/claudecode" + PATH, body, bearer(mine.secret)) for body in bodies))
    assert [status for status, _, _ in answers] == [200] * 25
    assert [told for _, _, told in answers] == [{"input_tokens": anthropic.count(body) + version.tokens} for body in bodies]
    assert len({fields["x-request-id"] for _, fields, _ in answers}) == 25
    await untouched(mine)


async def test_every_road_has_its_preset(door: str) -> None:
    """The generic path counts the body alone; a tool's path, in every form that its client uses, counts and names its preset."""
    mine = await tenant()
    status, fields, told = await ask(door, PATH + "?beta=true", written(), bearer(mine.secret))
    assert (status, told, "x-preset" in fields) == (200, {"input_tokens": HI_TOKENS}, False)
    for path, name in TOOL_PATHS.items():
        status, fields, told = await ask(door, path + "?beta=true", written(), bearer(mine.secret))
        assert (status, fields["x-preset"]) == (200, name)
        assert told == {"input_tokens": HI_TOKENS + PRESETS[path.split("/")[1]].current.tokens}


async def test_a_client_may_do_without(door: str) -> None:
    """With `x-tallygate-preset: none` nothing is added and none is named; a version that there is not is a 400."""
    mine = await tenant()
    path = "/cline" + PATH
    status, fields, told = await ask(door, path, written(), bearer(mine.secret) | {"X-Tallygate-Preset": "none"})
    assert (status, told, "x-preset" in fields) == (200, {"input_tokens": HI_TOKENS}, False)
    status, fields, told = await ask(door, path, written(), bearer(mine.secret) | {"X-Tallygate-Preset": "cline@1"})
    assert (status, fields["x-preset"]) == (200, "cline@1")
    assert (await refused(door, written(), bearer(mine.secret) | {"X-Tallygate-Preset": "cline@9"}, path=path))[:2] == (400, "invalid_request_error")


async def test_any_key_that_works_may_count(door: str) -> None:
    """Subscription keys, test keys, keys without the scope or model of a call, and either header: 200, and no row."""
    mine = await tenant()
    minted = [
        await mine.mint(name="subscription", kind=ApiKeyKind.SUBSCRIPTION),
        await mine.mint(name="test", mode=ApiKeyMode.TEST),
        await mine.mint(name="no scope", scopes=frozenset({Scope.USAGE_READ})),
        await mine.mint(name="other model", allowed_models=("echo",)),
    ]
    for _, secret in minted:
        assert (await ask(door, PATH, written(), bearer(secret)))[2] == {"input_tokens": HI_TOKENS}
        assert (await ask(door, PATH, written(), {"x-api-key": secret}))[2] == {"input_tokens": HI_TOKENS}
    assert (await ask(door, PATH, written(), bearer("sk-somebody-elses") | {"x-api-key": mine.secret}))[0] == 200
    await untouched(mine)


async def test_a_key_that_does_not_work_is_401_and_not_to_be_tried_again(door: str) -> None:
    """F28: no key, a foreign one, an unknown, a revoked and an expired one: 401 with `x-should-retry: false`, whatever the body is."""
    mine = await tenant()
    revoked, revoked_secret = await mine.mint(name="revoked")
    expired, expired_secret = await mine.mint(name="expired", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert (await ask(door, PATH, written(), bearer(revoked_secret)))[0] == 200
    await keys.revoke(mine.caller(), revoked.id)
    await database.fetch("UPDATE api_key SET expires_at = clock_timestamp() WHERE workspace_id = $1 AND id = $2", mine.workspace_id, expired.id)
    unknown = "tg_live_" + "0" * 36
    for headers in ({}, bearer("sk-not-ours"), bearer(unknown), {"x-api-key": unknown}, bearer(revoked_secret), bearer(expired_secret)):
        for body in (written(), b"{", b"x" * 200_000):
            status, kind, fields = await refused(door, body, headers)
            assert (status, kind, fields["x-should-retry"]) == (401, "authentication_error", "false")


async def test_a_bad_body_is_400(door: str) -> None:
    """Bad JSON, bad UTF-8, no messages, too deep: 400 in the shape of the Messages API."""
    mine = await tenant()
    for body in (b"", b"{", b"[]", b"null", b'{"messages":"\xff"}', b"{}", written(messages="Hi"), b'{"messages":' + b"[" * 100_000, b"\x1f\x8b\x08\x00"):
        assert (await refused(door, body, bearer(mine.secret)))[:2] == (400, "invalid_request_error")


async def test_a_body_over_32_mib_is_413(door: str) -> None:
    """What is announced as too large is refused, and so is what turns out to be."""
    mine = await tenant()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(LARGEST_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    announced = bearer(mine.secret) | {"content-length": str(LARGEST_BODY_BYTES + 1)}
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.rsplit(":", 1)[1]))
    writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\n".encode() + b"".join(f"{name}: {value}\r\n".encode() for name, value in announced.items()) + b"\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")
    async with session() as client, client.post(door + PATH, data=endless(), headers=bearer(mine.secret)) as response:
        assert response.status == 413
        assert json.loads(await response.read())["error"]["type"] == "request_too_large"


async def test_a_large_body_is_counted(door: str) -> None:
    """A body of some megabytes, which is counted aside, has a token for every four bytes of its messages."""
    mine = await tenant()
    body = written(messages=[{"role": "user", "content": "é" * 2**20}])
    wanted = -(-len(json.dumps(json.loads(body)["messages"], separators=(",", ":"))) // 4)
    assert (await ask(door, PATH, body, bearer(mine.secret)))[2] == {"input_tokens": wanted}


async def test_a_client_that_leaves_disturbs_nobody(door: str) -> None:
    """A connection closed in the middle of a body is no error of ours: others go on being answered."""
    mine = await tenant()
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", int(door.rsplit(":", 1)[1]))
        writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {mine.secret}\r\ncontent-length: 1000\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        assert (await ask(door, PATH, written(), bearer(mine.secret)))[0] == 200


async def test_only_post_is_answered(door: str) -> None:
    """Another method is refused in the dialect's shape."""
    for method in ("GET", "PUT", "DELETE"):
        assert (await refused(door, b"", {}, method=method))[:2] == (405, "invalid_request_error")


async def test_the_official_sdk_counts(door: str) -> None:
    """The SDK with a tool's base address, and with the generic one, gets its count."""
    mine = await tenant()
    for base, more in ((door, 0), (f"{door}/claudecode", PRESETS["claudecode"].current.tokens)):
        async with sdk.AsyncAnthropic(base_url=base, api_key=mine.secret, max_retries=0) as client:
            count = await client.messages.count_tokens(model="claude-opus-5-5", messages=[{"role": "user", "content": "Hi"}])
        assert count.input_tokens == HI_TOKENS + more
