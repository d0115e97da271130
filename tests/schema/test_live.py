"""The live tail over both transports, until its credential ends."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.access import keys
from models.enums import Scope
from tests.schema.serving import Owner, Served
from tests.schema.test_socket import hear, opened
from tests.schema.test_usage_records import operation
from tests.usage.events import Event, write

pytestmark = pytest.mark.anyio

DOCUMENT = "subscription S($filter: UsageRecordFilter) { usageRecordCreated(filter: $filter) { requestId cost { microUsd } model { name } apiKey { name } } }"


async def write_until(workspace_id: Any, heard: "asyncio.Future[Any]") -> set[str]:
    """Write records until something was heard: a subscription has no acknowledgement."""
    written = set()
    while not heard.done():
        event = Event(datetime.now(UTC), charge_microusd=7)
        await write(workspace_id, [event])
        written.add(str(event.id))
        await asyncio.wait({heard}, timeout=0.2)
    return written


async def test_over_a_websocket(served: Served) -> None:
    """The operation of the contract runs; each record is one message; a stranger's records are none of them."""
    owner, stranger = await served.owner(), await served.owner()
    async with opened(served, {"authorization": f"Bearer {owner.session}"}) as socket:
        await hear(socket)
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": operation("Console_LiveTail")}}))
        await write(stranger.workspace.id, [Event(datetime.now(UTC))])
        heard = asyncio.ensure_future(hear(socket))
        written = await write_until(owner.workspace.id, heard)
        message = heard.result()
        assert (message["type"], message["payload"].get("errors")) == ("next", None)
        record = message["payload"]["data"]["usageRecordCreated"]
        assert record["cost"] == {"usd": "0.000007"}
        listed = await served.ask("{ usageRecords(first: 100) { nodes { id requestId } } }", credential=owner.session)
        assert record["id"] in {node["id"] for node in listed.data["usageRecords"]["nodes"] if node["requestId"] in written}
        await socket.send(json.dumps({"type": "complete", "id": "a"}))


async def test_over_server_sent_events(served: Served) -> None:
    """The same stream as `text/event-stream`: narrowed by a filter, and Console_LiveTail as it is written, every field of it."""
    owner = await served.owner()
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {owner.session}"}
    body = {"query": DOCUMENT, "variables": {"filter": {"minimumCost": 7}}}
    record, written = await first_over_events(served, owner, headers, body)
    assert record["requestId"] in written
    assert record["cost"] == {"microUsd": 7}
    record, _ = await first_over_events(served, owner, headers, {"query": operation("Console_LiveTail")})
    assert abs(datetime.fromisoformat(record.pop("createdAt")) - datetime.now(UTC)) < timedelta(minutes=5)
    assert record.pop("id")
    assert record == {
        "requestedModel": "atlas",
        "model": None,
        "apiKey": None,
        "app": None,
        "outcome": "SUCCEEDED",
        "httpStatus": 200,
        "tokens": None,
        "cost": {"usd": "0.000007"},
        "latencyMs": None,
        "timeToFirstTokenMs": None,
    }


async def first_over_events(served: Served, owner: Owner, headers: dict[str, str], body: dict[str, Any]) -> tuple[Any, set[str]]:
    """Follow records as server-sent events; return the first that was heard, and the ids of those that were written meanwhile."""
    async with served.http.stream("POST", "/graphql", json=body, headers=headers, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()

        async def first() -> Any:
            async for line in lines:
                if line.startswith("data:") and "usageRecordCreated" in line:
                    return json.loads(line.removeprefix("data:"))
            return None

        heard = asyncio.ensure_future(first())
        written = await write_until(owner.workspace.id, heard)
        return heard.result()["data"]["usageRecordCreated"], written


async def test_without_the_scope(served: Served) -> None:
    """A key that may not read usage gets FORBIDDEN, and a stranger UNAUTHENTICATED; the connection goes on."""
    owner = await served.owner()
    _, secret = await keys.create(owner.caller, keys.NewKey(scopes=frozenset({Scope.INFERENCE})))
    for credential, code in ((secret, "FORBIDDEN"), (None, "UNAUTHENTICATED")):
        async with opened(served, {"authorization": f"Bearer {credential}"} if credential else {}) as socket:
            await hear(socket)
            await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": DOCUMENT}}))
            message = await hear(socket)
            errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
            assert errors[0]["extensions"]["code"] == code


async def test_it_ends_with_its_credential(served: Served) -> None:
    """A key that is revoked hears an error within seconds, even when nothing is written, and then the end."""
    owner = await served.owner()
    key, secret = await keys.create(owner.caller, keys.NewKey(name="watcher"))
    async with opened(served, {"authorization": f"Bearer {secret}"}) as socket:
        await hear(socket)
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": DOCUMENT}}))
        heard = asyncio.ensure_future(hear(socket))
        await write_until(owner.workspace.id, heard)
        await keys.revoke(owner.caller, key.id)
        while (message := await hear(socket))["type"] == "next" and "errors" not in message["payload"]:
            pass
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        assert errors[0]["extensions"]["code"] == "UNAUTHENTICATED"
