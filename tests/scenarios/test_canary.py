"""What may never be kept is kept nowhere: a key, a prompt, an answer, the provider's key and a session, after calls that went well and ill.

Collected last: it searches what the whole run left behind in logs, tables and Valkey.
"""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
import redis.asyncio

from clients.issuers import local_session
from models.enums import Scope
from tests.conftest import PROVIDER_KEY, SECRET, Suite
from tests.support import upstream as scripted
from tests.support.books import quiet
from tests.support.calling import WIRES, bearer, session
from tests.support.gateway import Gateway
from tests.support.servers import Servers
from tests.support.upstream import Script, Upstream
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

PROMPT = "canary-prompt-7d41c9"
ANSWER = "canary-answer-93ab02"
SYSTEM = "canary-system-5e8f17"
UPSTREAM_WORDS = "canary-upstream-words-c61d"
FOREIGN_KEY = "sk-canary-foreign-2f77aa10b4"


def _found(canaries: dict[str, str], text: str) -> list[str]:
    """Return the names of the canaries that stand in a text, as they are or in a URL's spelling; never the canaries themselves."""
    return [name for name, canary in canaries.items() if canary in text or quote(canary, safe="") in text]


async def _tables(servers: Servers) -> dict[str, str]:
    """Return every row of every table as text, by table."""
    admin = await asyncpg.connect(servers.admin_dsn("suite"))
    try:
        names = await admin.fetch(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        told = {}
        for row in names:
            told[row["name"]] = "\n".join(line["text"] for line in await admin.fetch(f"SELECT t::text AS text FROM {row['name']} t"))
        return told
    finally:
        await admin.close()


async def _valkey(servers: Servers) -> str:
    """Return every key of the Valkey with what it holds, and its append-only files."""
    told = []
    async with redis.asyncio.Redis(unix_socket_path=str(servers.valkey.socket_path)) as valkey:
        async for key in valkey.scan_iter():
            told.append(repr(key) + repr(await valkey.dump(key)))
    files = [path for path in servers.valkey.folder.rglob("*") if path.is_file()]
    return "\n".join([*told, *(path.read_bytes().decode("latin-1") for path in files)])


def _logs(folders: list[Path]) -> dict[str, str]:
    return {str(path): path.read_bytes().decode("latin-1") for folder in folders for path in folder.rglob("*.log")}


async def test_no_canary_is_found_anywhere(
    gateway: Gateway, books: Suite, provider: Upstream, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After calls in both dialects, whole, streamed, cut, refused and garbled: no log, table, Valkey file or error body holds a canary."""
    mine = await tenant(credit_microusd=10_000_000)
    now = datetime.now(UTC)
    person = local_session(SECRET, mine.owner_email, "Olga Owner", at=now)
    _, unscoped = await mine.mint(name="canary without scope", scopes=frozenset({Scope.USAGE_READ}))
    invitee = "canary-session@example.com"
    stranger = local_session(SECRET, invitee, None, at=now)
    canaries = {
        "key": mine.secret,
        "key without scope": unscoped,
        "prompt": PROMPT,
        "answer": ANSWER,
        "system prompt": SYSTEM,
        "upstream's words": UPSTREAM_WORDS,
        "provider's key": PROVIDER_KEY,
        "foreign key": FOREIGN_KEY,
        "session": person.rsplit(".", 1)[1],
        "stranger's session": stranger.rsplit(".", 1)[1],
        "signing secret": SECRET,
    }
    errors: list[str] = []
    told = {"type": "error", "error": {"type": "authentication_error", "message": f"{UPSTREAM_WORDS} {PROVIDER_KEY}"}}
    async with session() as client:
        for wire in WIRES:
            more = {"system": SYSTEM} if wire.name == "anthropic" else {}
            whole = wire.whole().replace(b"Hello world", ANSWER.encode())
            pieces = (ANSWER, ANSWER)
            scripts: list[tuple[bool, Script]] = [
                (False, scripted.whole(whole)),
                (True, scripted.stream(wire.stream(pieces))),
                (True, scripted.stream(wire.begin(pieces), then=scripted.cut)),
                (True, scripted.stream(wire.begin(pieces), then=scripted.reset)),
                (True, scripted.whole(whole)),
                (False, scripted.whole(whole[:-30])),
                (False, scripted.garbage(f"{UPSTREAM_WORDS}\r\n\r\n".encode())),
                (True, scripted.status(401, told)),
                (False, scripted.status(403, told)),
                (True, scripted.status(500, told)),
            ]
            for stream, script in scripts:
                provider.script(script)
                body = wire.body(PROMPT, stream=stream, **more)
                async with client.post(gateway.url + wire.path, data=body, headers=bearer(mine.secret) | {"x-api-key": FOREIGN_KEY}) as response:
                    answer = (await response.read()).decode()
                    errors += [json.dumps(dict(response.headers)), *([answer] if response.status != 200 else [])]
            broken = wire.body(PROMPT)[:-20]
            refused = [
                (broken, mine.secret),
                (wire.body(PROMPT), unscoped),
                (wire.body(PROMPT), FOREIGN_KEY),
                (wire.body(PROMPT), mine.secret[:-1] + ("0" if mine.secret[-1] != "0" else "1")),
                (wire.body(PROMPT, model="no-such-model"), mine.secret),
                (wire.body(PROMPT, stream_options=PROMPT, n=PROMPT, max_tokens=None), mine.secret),
            ]
            for body, secret in refused:
                async with client.post(gateway.url + wire.path, data=body, headers=bearer(secret)) as response:
                    assert response.status >= 400
                    errors.append(await response.text())
        document = "query { viewer { __typename } }"
        for credential in (person, stranger, mine.secret, FOREIGN_KEY, person[:-3]):
            for query in (document, f"query {{ viewer {{ {PROMPT.replace('-', '_')} }} }}", "{"):
                async with client.post(f"{gateway.url}/graphql", json={"query": query}, headers=bearer(credential)) as response:
                    errors.append(await response.text())
    await quiet(mine)
    base = tmp_path_factory.getbasetemp()
    assert [_found(canaries, text) for text in errors if _found(canaries, text)] == []
    tables = await _tables(servers)
    assert any(mine.secret[-4:] in text for text in tables.values()), "the search reads what is there"
    assert {name: found for name, text in tables.items() if (found := _found(canaries, text))} == {}
    logs = await asyncio.to_thread(_logs, [base, servers.folder])
    assert str(gateway.log) in logs
    assert {name: found for name, text in logs.items() if (found := _found(canaries, text))} == {}
    assert _found(canaries, await _valkey(servers)) == []
