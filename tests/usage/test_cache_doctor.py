"""The cache doctor: what a prompt missed of the prompt cache, why, where it parted from the one before, and what that cost."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import redis.asyncio

from domain.access.callers import Caller
from domain.errors import MissingScope, OutOfRange
from domain.usage import cache_misses
from domain.usage.metrics import UsageFilter
from domain.usage.prompts import FIRST_MARKS, LAST_MARKS, Finding, Prompt, Reply, Strand, compare, strand_of, woven
from domain.usage.windows import Between, resolve
from models import database
from models.enums import CacheMissReason, PromptPart, Scope
from models.ids import uuid7
from proxy.dialects import anthropic, openai, responses
from proxy.prompts import read
from tests.conftest import Suite
from tests.schema.test_operations import documents
from tests.support import upstream as scripted
from tests.support.calling import CLAUDE, bearer, session, until
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream
from tests.support.world import Tenant, tenant
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SALT = b"s" * 32
HOUR = {"type": "ephemeral"}
SYSTEM = [{"type": "text", "text": "You are terse. " * 200, "cache_control": HOUR}]
TOOLS = [
    {"name": "look", "description": "Looks. " * 100, "input_schema": {"type": "object"}},
    {"name": "act", "description": "Acts. " * 50, "input_schema": {"type": "object"}},
]
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "First, read the file."},
    {"role": "assistant", "content": "I did."},
    {"role": "user", "content": "Now the other."},
]


def _body(talk: list[dict[str, Any]], **changed: Any) -> bytes:
    said = [*talk[:-1], {**talk[-1], "content": [{"type": "text", "text": talk[-1]["content"], "cache_control": HOUR}]}]
    return json.dumps({"model": "claude-opus-5-5", "max_tokens": 50, "stream": True, "system": SYSTEM, "tools": TOOLS, "messages": said} | changed).encode()


def _prompt(body: bytes, form: str = "messages", salt: bytes = SALT) -> Prompt:
    dialect = {"messages": anthropic, "chat": openai, "responses": responses}[form]
    prompt = read(form, body, dialect.parse(body), salt)
    assert prompt is not None
    return prompt


def _reply(*, fresh: int = 10, read: int = 0, written: int = 0, minutes: int = 0, automatic: bool = False) -> Reply:
    return Reply(uuid7(), NOW + timedelta(minutes=minutes), NOW + timedelta(minutes=minutes, seconds=5), "m", "u", automatic, fresh, read, written)


def _strand(prompt: Prompt, reply: Reply) -> Strand:
    return woven([], None, prompt, reply)[0]


BEFORE = _strand(_prompt(_body(TALK[:1])), _reply(written=8000))


def _found(body: bytes, reply: Reply, before: Strand = BEFORE) -> Finding | None:
    return compare(before, _prompt(body), reply)


def test_a_turn_that_goes_on_reads_what_the_last_one_wrote() -> None:
    """Nothing is missed by a prompt that begins with the one before, though the breakpoint moved and a text was written as a list of one."""
    assert _found(_body(TALK), _reply(read=8000, written=300, minutes=1)) is None


@pytest.mark.parametrize(
    ("changed", "part", "index"),
    [
        ({"system": [{"type": "text", "text": "You are chatty. " * 200, "cache_control": HOUR}]}, PromptPart.SYSTEM, None),
        ({"system": "You are terse. " * 201}, PromptPart.SYSTEM, None),
        ({"tools": [*TOOLS, {"name": "third", "input_schema": {"type": "object"}}]}, PromptPart.TOOLS, None),
        ({"tools": TOOLS[::-1]}, PromptPart.TOOLS, None),
        ({"tool_choice": {"type": "any"}}, PromptPart.MESSAGES, 0),
    ],
)
def test_a_change_of_the_prefix_is_found_where_it_is(changed: dict[str, Any], part: PromptPart, index: int | None) -> None:
    """A changed system text, tool list or order of tools, or a switch that makes the messages others: the part that changed is named."""
    found = _found(_body(TALK, **changed), _reply(written=8300, minutes=1))
    assert found is not None
    assert (found.reason, found.part, found.message_index, found.missed_tokens) == (CacheMissReason.PREFIX_CHANGED, part, index, 8000)


def test_a_changed_message_is_counted_from_the_first() -> None:
    """An earlier answer that was edited is the second message; what stands before it is shared, in tokens by its part of the bytes."""
    before = _strand(_prompt(_body(TALK)), _reply(written=9000))
    edited = [TALK[0], {"role": "assistant", "content": "I did not."}, TALK[2]]
    found = _found(_body(edited), _reply(read=6000, written=3100, minutes=1), before)
    marks = before.prompt.marks
    shared = marks[3].end_bytes * 9010 // marks[-1].end_bytes
    assert found == Finding(CacheMissReason.PREFIX_CHANGED, PromptPart.MESSAGES, 1, shared, 3000)


def test_another_model_another_upstream_and_time() -> None:
    """An unchanged prompt that read nothing: another model, another upstream, or an entry whose time had run out; the prompts do not part."""
    body, cold = _body(TALK), _reply(written=8300, minutes=9)
    assert _found(body, replace(cold, model="n")) == Finding(CacheMissReason.MODEL_CHANGED, None, None, 8010, 8000)
    assert _found(body, replace(cold, upstream="v")) == Finding(CacheMissReason.UPSTREAM_CHANGED, None, None, 8010, 8000)
    assert _found(body, cold) == Finding(CacheMissReason.EXPIRED, None, None, 8010, 8000)


def test_prompts_without_breakpoints() -> None:
    """Two prompts in a row that say nowhere what to cache pay for all they share; where the provider caches by itself, none needs to."""
    bare = {"model": "m", "max_tokens": 9, "system": "You are terse. " * 200, "messages": TALK}
    before, body = _strand(_prompt(json.dumps(bare | {"messages": TALK[:1]}).encode()), _reply(fresh=8000)), json.dumps(bare).encode()
    assert _found(body, _reply(fresh=8200, minutes=1), before) == Finding(CacheMissReason.NOT_MARKED, None, None, 8000, 8000)
    chat = json.dumps({"model": "m", "messages": [{"role": "system", "content": "You are terse." * 200}, *TALK]}).encode()
    shorter = _strand(_prompt(json.dumps({"model": "m", "messages": json.loads(chat)["messages"][:2]}).encode(), "chat"), _reply(fresh=8010, automatic=True))
    assert compare(shorter, _prompt(chat, "chat"), _reply(fresh=400, read=7936, minutes=1, automatic=True)) is None
    missed = compare(shorter, _prompt(chat, "chat"), _reply(fresh=8400, minutes=1, automatic=True))
    assert missed == Finding(CacheMissReason.EXPIRED, None, None, 8010, 7936)


def test_what_nobody_can_tell_is_no_miss() -> None:
    """A prompt sent while the one before was under way, one that begins anew and reads what it can, and short prompts miss nothing."""
    assert _found(_body(TALK), replace(_reply(written=8300), began_at=NOW)) is None
    anew = [{"role": "user", "content": "Something else."}]
    assert strand_of([BEFORE], _prompt(_body(anew))) is BEFORE
    assert _found(_body(anew), _reply(read=7800, written=300, minutes=1)) is None
    small = _strand(BEFORE.prompt, _reply(written=900))
    assert _found(_body(TALK), _reply(written=950, minutes=1), small) is None


def test_strands_of_a_conversation_are_kept_apart() -> None:
    """A helper that speaks under the conversation's name, with tools and a system prompt of its own, is a strand of its own; the last four are kept."""
    helper = _prompt(_body([{"role": "user", "content": "Find it."}], system="You search.", tools=[]))
    assert strand_of([BEFORE], helper) is None
    both = woven([BEFORE], None, helper, _reply(written=2000))
    assert [strand.prompt for strand in both] == [helper, BEFORE.prompt]
    assert strand_of(both, _prompt(_body(TALK))) is BEFORE
    assert len(woven([BEFORE] * 4, None, helper, _reply())) == 4


def test_digests_are_salted_bounded_and_say_nothing_of_the_text() -> None:
    """Another salt gives other digests throughout; a prompt of 400 messages keeps 192 marks, and a change in the gap is told at its beginning."""
    body = _body([{"role": "user", "content": f"message {n}"} for n in range(400)])
    prompt, other = _prompt(body), _prompt(body, salt=b"t" * 32)
    assert not {mark.digest for mark in prompt.marks} & {mark.digest for mark in other.marks}
    kept = prompt.thinned()
    assert len(kept.marks) == FIRST_MARKS + LAST_MARKS
    edited = json.loads(body)
    edited["messages"][200]["content"] = "changed"
    found = compare(_strand(prompt, _reply(written=50_000)), _prompt(json.dumps(edited).encode()), _reply(written=50_000, minutes=1))
    assert found is not None
    assert (found.part, found.message_index) == (PromptPart.MESSAGES, FIRST_MARKS - 3)  # after two tools and the system prompt


def test_the_dialects_name_their_parts() -> None:
    """In Chat Completions and Responses the leading system and developer messages are the system prompt, as `instructions` are."""
    chat = _prompt(json.dumps({"model": "m", "messages": [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, TALK[0]]}).encode(), "chat")
    assert [(mark.part, mark.index) for mark in chat.marks] == [(PromptPart.SYSTEM, 0), (PromptPart.SYSTEM, 1), (PromptPart.MESSAGES, 0)]
    told = _prompt(json.dumps({"model": "m", "instructions": "a", "input": "hello"}).encode(), "responses")
    assert [(mark.part, mark.index) for mark in told.marks] == [(PromptPart.SYSTEM, 0), (PromptPart.MESSAGES, 0)]


# ── through the gateway ──

CANARY = "heron-on-the-marsh-7741"


async def _say(gateway: Gateway, client: aiohttp.ClientSession, mine: Tenant, provider: Upstream, body: bytes, **usage: int) -> str:
    nothing = {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    provider.script(scripted.stream(CLAUDE.stream(start_usage=nothing | usage)))
    async with client.post(gateway.url + "/claudecode" + CLAUDE.path, data=body, headers=bearer(mine.secret)) as response:
        await response.read()
        assert response.status == 200
        return response.headers["x-request-id"]


async def _doctor(gateway: Gateway, client: aiohttp.ClientSession, mine: Tenant) -> dict[str, Any]:
    document = documents()["CacheDoctor"]
    async with client.post(f"{gateway.url}/graphql", json={"query": document}, headers=bearer(mine.secret)) as response:
        answer = await response.json()
    assert "errors" not in answer, answer
    (key,) = answer["data"]["apiKeys"]["nodes"]
    found: dict[str, Any] = key["usage"]
    return found


async def test_cache_doctor_answers_with_what_calls_missed(gateway: Gateway, provider: Upstream, books: Suite) -> None:
    """CacheDoctor: a hit, then a changed system text, tool list, model and message and an entry that is gone: each with its reason, place and cost.

    Nothing of the prompts is kept, neither their text nor a digest that anybody without the secret could make.
    """
    mine = await tenant(credit_microusd=10_000_000)
    system = [{"type": "text", "text": f"{CANARY} " * 100, "cache_control": HOUR}]
    more = [*TALK, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "And the last."}]
    edited = [more[0], {"role": "assistant", "content": "I did not."}, *more[2:]]
    haiku = {"model": "claude-haiku-5-5", "system": "Be kind. " * 200, "tools": TOOLS[:1]}
    async with session() as client:

        async def say(body: bytes, **usage: int) -> str:
            return await _say(gateway, client, mine, provider, body, **usage)

        async def known(count: int) -> dict[str, Any]:
            async def look() -> dict[str, Any] | None:
                report = await _doctor(gateway, client, mine)
                return report if len(report["cacheMisses"]) >= count else None

            found = await until(look, f"{count} misses")
            assert found is not None
            return found

        await say(_body(TALK[:1], system=system), cache_creation_input_tokens=8000)
        second = await say(_body(TALK, system=system), cache_read_input_tokens=8000, cache_creation_input_tokens=400)
        third = await say(_body(TALK, system="Be kind. " * 200), cache_creation_input_tokens=8400)
        await known(1)
        fourth = await say(_body(TALK, system="Be kind. " * 200, tools=TOOLS[:1]), cache_creation_input_tokens=8300)
        await known(2)
        fifth = await say(_body(more, **haiku), cache_creation_input_tokens=8500)
        await known(3)
        sixth = await say(_body(edited, **haiku), cache_read_input_tokens=6000, cache_creation_input_tokens=2600)
        await known(4)
        seventh = await say(_body(edited, **haiku), cache_creation_input_tokens=8600)
        report = await known(5)

    misses = {miss["usageRecord"]["requestId"]: miss for miss in report["cacheMisses"]}
    told = {name: (miss["previous"]["requestId"], miss["reason"], miss["part"], miss["messageIndex"], miss["missedTokens"]) for name, miss in misses.items()}
    assert told == {
        third: (second, "PREFIX_CHANGED", "SYSTEM", None, 8400),
        fourth: (third, "PREFIX_CHANGED", "TOOLS", None, 8310),
        fifth: (fourth, "MODEL_CHANGED", None, None, 8300),
        sixth: (fifth, "PREFIX_CHANGED", "MESSAGES", 1, 2500),
        seventh: (sixth, "EXPIRED", None, None, 8600),
    }
    # opus writes at 5 and reads at 0.20 a million tokens; haiku at 0.125 and 0.01
    costs = {third: 8400 * 480 // 100, fourth: (8300 * 480 + 10 * 380) // 100, fifth: 8300 * 115 // 1000, sixth: 2500 * 115 // 1000, seventh: 8600 * 115 // 1000}
    assert {name: round(float(miss["cost"]["usd"]) * 1e6) for name, miss in misses.items()} == costs
    assert [miss["usageRecord"]["requestId"] for miss in report["cacheMisses"]] == sorted(misses, key=lambda name: -costs[name])
    assert 0 < misses[fourth]["sharedTokens"] < 8300
    read, all_input = 14_000, 7 * 10 + 8000 + 8400 + 8400 + 8300 + 8500 + 8600 + 8600
    assert report["totals"]["cacheHitRate"] == pytest.approx(read / all_input)
    assert round(float(report["totals"]["cacheMissCost"]["usd"]) * 1e6) == sum(costs.values())
    (tool,) = report["groups"]
    assert tool["dimensions"]["preset"]["name"] == "Claude Code"
    assert tool["metrics"] == report["totals"]

    rows = await database.fetch("SELECT m::text AS told FROM cache_miss m WHERE workspace_id = $1", mine.workspace_id)
    kept = redis.asyncio.Redis.from_url(books.environment["REDIS_URL"])
    values = [await kept.get(name) async for name in kept.scan_iter("tallygate:prompt:*")]
    await kept.aclose()
    everything = b"".join(values) + "".join(row["told"] for row in rows).encode()
    assert values
    assert CANARY.encode() not in everything
    for text in (json.dumps(system[0]).encode(), json.dumps(TALK[0]).encode(), TALK[0]["content"].encode()):
        for digest in (hashlib.sha256(text).digest(), hashlib.blake2b(text, digest_size=8).digest(), hashlib.sha256(b"\1%d:" % len(text) + text).digest()):
            assert digest[:8] not in everything


async def test_who_sees_which_misses(books: Suite) -> None:
    """A workspace its own, narrowed as any report is; an operator all of them, dearest first; a member without the scope only those of the own keys."""
    mine, other = await tenant(), await tenant()
    provider, now = f"p-{uuid4().hex}", datetime.now(UTC)
    calls = {of: [Event(at=now, provider=provider, model="atlas"), Event(at=now, provider=provider, model="boreas")] for of in (mine, other)}
    for place, (of, events) in enumerate(calls.items()):
        await write(of.workspace_id, events)
        found = Finding(CacheMissReason.EXPIRED, None, None, 5, 5)
        await cache_misses.keep(of.workspace_id, events[1].id, events[0].id, now, found, 10 + place)
    window = resolve(Between(now - timedelta(minutes=1), now + timedelta(minutes=1)), "UTC", now)

    async def seen(by: Caller, **narrowed: Any) -> list[tuple[UUID, int]]:
        misses = await cache_misses.dearest(by, window, UsageFilter(providers=(provider,), **narrowed), 5)
        return [(miss.record.id, miss.cost_microusd) for miss in misses]

    (_, my_miss), (_, their_miss) = calls.values()
    assert await seen(mine.caller()) == [(my_miss.id, 10)]
    assert await seen(mine.caller(), models=("boreas",)) == [(my_miss.id, 10)]
    assert await seen(mine.caller(), models=("atlas",)) == []
    assert await seen(mine.caller(Scope.OPERATOR), everywhere=True) == [(their_miss.id, 11), (my_miss.id, 10)]
    narrow = replace(mine.caller(), scopes=frozenset({Scope.USAGE_READ}))
    assert await seen(narrow) == []
    with pytest.raises(MissingScope):
        await seen(mine.caller(), everywhere=True)
    for first in (0, 101):
        with pytest.raises(OutOfRange):
            await cache_misses.dearest(mine.caller(), window, UsageFilter(), first)


async def test_misses_are_forgotten_with_their_calls(books: Suite) -> None:
    """A miss older than its workspace keeps calls is deleted; one of a workspace that keeps all stays for 400 days."""
    short, long = await tenant(), await tenant()
    await database.fetch("UPDATE workspace SET retention_days = 30 WHERE id = $1", short.workspace_id)
    for of, days in ((short, 31), (short, 29), (long, 31), (long, 401)):
        found = Finding(CacheMissReason.EXPIRED, None, None, days, days)
        await cache_misses.keep(of.workspace_id, uuid7(), uuid7(), datetime.now(UTC) - timedelta(days=days), found, 1)
    await cache_misses.forget()
    rows = await database.fetch("SELECT missed_tokens FROM cache_miss WHERE workspace_id = ANY ($1) ORDER BY 1", [short.workspace_id, long.workspace_id])
    assert [row["missed_tokens"] for row in rows] == [29, 31]
