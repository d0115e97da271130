"""Exports over GraphQL: the contract's operations against a running gateway, whose worker makes the files."""

import asyncio
import csv
import io
import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from websockets.asyncio.client import connect

from models.enums import Scope
from schema import ids
from tests.schema.test_operations import documents
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio

FINAL = ("SUCCEEDED", "FAILED")


async def ask(gateway: Gateway, of: Tenant, document: str, **variables: Any) -> Any:
    """The data of one operation."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        answer = (await http.post("/graphql", json={"query": document, "variables": variables}, headers=of.bearer)).json()
    assert "errors" not in answer, answer
    return answer["data"]


async def followed(gateway: Gateway, of: Tenant, export: str) -> list[dict[str, Any]]:
    """Every state of an export that `exportChanged` gives over graphql-sse, until the stream ends."""
    body = {"query": documents()["ExportProgress"], "variables": {"id": export}}
    states: list[dict[str, Any]] = []
    async with (
        httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http,
        http.stream("POST", "/graphql", json=body, headers={**of.bearer, "accept": "text/event-stream"}) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data:") and line.removeprefix("data:").strip():
                states.append(json.loads(line.removeprefix("data:"))["data"]["exportChanged"])
    return states


async def call(gateway: Gateway, of: Tenant) -> None:
    """Make one call of `echo`."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        answer = await http.post("/v1/messages", json={"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "four"}]}, headers=of.bearer)
    assert answer.status_code == 200


async def test_an_export_is_asked_followed_listed_and_downloaded(gateway: Gateway) -> None:
    """ExportRecords, ExportProgress and Exports: the stream ends with the final state, whose link gives the file."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine)
    made = (await ask(gateway, mine, documents()["ExportRecords"]))["exportCreate"]
    assert made["userErrors"] == []
    again = (await ask(gateway, mine, documents()["ExportRecords"]))["exportCreate"]
    assert again["export"]["id"] == made["export"]["id"]  # the same idempotency key
    states = await followed(gateway, mine, made["export"]["id"])
    assert states[-1] == {**states[-1], "status": "SUCCEEDED", "progress": 1, "rows": 1, "failure": None}
    assert [state["status"] for state in states[:-1]] == [state["status"] for state in states[:-1] if state["status"] not in FINAL]
    (listed,) = (await ask(gateway, mine, documents()["Exports"]))["exports"]["nodes"]
    assert (listed["dataset"], listed["format"], listed["columns"], listed["rows"]) == ("USAGE_RECORDS", "PARQUET", "FOCUS", 1)
    assert (listed["createdBy"]["name"], listed["failure"]) == ("first", None)
    path = listed["url"].partition("/exports/")[2]
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        file = await http.get(f"/exports/{path}")
    assert (file.status_code, len(file.content)) == (200, listed["bytes"])
    assert file.content[:4] == file.content[-4:] == b"PAR1"


async def test_a_report_is_exported_with_its_dimensions(gateway: Gateway) -> None:
    """ExportReport: a row for each day, app and model that was used."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine)
    made = (await ask(gateway, mine, documents()["ExportReport"]))["exportCreate"]
    assert made["userErrors"] == []
    final = (await followed(gateway, mine, made["export"]["id"]))[-1]
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        text = (await http.get("/exports/" + final["url"].partition("/exports/")[2])).text
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["model"], row["app"], row["requests"]) == ("echo", "", "1")
    assert int(row["costMicroUsd"]) == 1_000_000 - (await mine.balance()).balance


@pytest.mark.parametrize("field", ["exportChanged", "deploymentChanged"])
async def test_what_is_not_there_cannot_be_followed(gateway: Gateway, field: str) -> None:
    """Junk, an id of nobody, and an id of another workspace are one error, in the code of an argument that is wrong, and the stream ends."""
    mine, other = await tenant(credit_microusd=0), await tenant(credit_microusd=0)
    theirs = (await ask(gateway, other, documents()["ExportRecords"]))["exportCreate"]["export"]["id"]
    type_ = "Export" if field == "exportChanged" else "Deployment"
    for foreign in ("junk", ids.encode(type_, uuid4()), theirs):
        body = {"query": f"subscription($id: ID!) {{ {field}(id: $id) {{ id }} }}", "variables": {"id": foreign}}
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
            answer = await http.post("/graphql", json=body, headers={**mine.bearer, "accept": "text/event-stream"})
        told = [json.loads(line.removeprefix("data:")) for line in answer.text.splitlines() if line.startswith("data:") and line.removeprefix("data:").strip()]
        assert [[error["extensions"]["code"] for error in event["errors"]] for event in told] == [["BAD_USER_INPUT"]]


async def test_an_export_is_followed_over_a_websocket(gateway: Gateway) -> None:
    """`exportChanged` over graphql-transport-ws: states, then `complete`."""
    mine = await tenant(credit_microusd=1_000_000)
    made = (await ask(gateway, mine, documents()["ExportReport"]))["exportCreate"]["export"]["id"]
    kinds = []
    async with connect(gateway.url.replace("http", "ws", 1) + "/graphql", subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]  # a NewType of str
        await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": mine.bearer["Authorization"]}}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": documents()["ExportProgress"], "variables": {"id": made}}}))
        async with asyncio.timeout(60):
            while "complete" not in kinds:
                message = json.loads(await socket.recv())
                kinds.append(message["type"])
                if message["type"] == "next":
                    last = message["payload"]["data"]["exportChanged"]
    assert last["status"] == "SUCCEEDED"
    assert set(kinds[:-1]) == {"next"}


async def test_a_stranger_neither_follows_nor_lists_nor_refetches(gateway: Gateway) -> None:
    """Another workspace's export does not exist; a key without USAGE_READ follows nothing."""
    mine, other = await tenant(), await tenant()
    made = (await ask(gateway, mine, documents()["ExportReport"]))["exportCreate"]["export"]["id"]
    _, blind = await mine.mint(name="blind", scopes=frozenset({Scope.KEYS_READ}))
    assert (await ask(gateway, other, documents()["Exports"]))["exports"]["nodes"] == []
    assert (await ask(gateway, other, "query Q($id: ID!) { node(id: $id) { id } }", id=made)) == {"node": None}
    for credential, code in ((other.secret, "BAD_USER_INPUT"), (blind, "FORBIDDEN")):
        body = {"query": documents()["ExportProgress"], "variables": {"id": made}}
        async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
            answer = await http.post("/graphql", json=body, headers={"authorization": f"Bearer {credential}", "accept": "text/event-stream"})
        assert code in answer.text
        assert '"status"' not in answer.text


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"source": {}}, None),
        ({"source": {"usageRecords": {}, "transactions": {}}}, None),
        ({"source": {"usage": {"range": {"last": "LAST_7_DAYS"}, "by": ["MODEL", "APP", "API_KEY", "LANGUAGE"]}}}, "TOO_LARGE"),
        ({"source": {"usage": {"range": {"last": "LAST_7_DAYS"}, "by": ["TAG"]}}}, "REQUIRED"),
        ({"source": {"auditEvents": {}}}, "FORBIDDEN"),
    ],
)
async def test_what_cannot_be_exported_is_told(gateway: Gateway, given: dict[str, Any], code: str | None) -> None:
    """A question that cannot be asked is a user error, or refused before; nothing is queued."""
    mine = await tenant()
    _, secret = await mine.mint(name="reader", scopes=frozenset({Scope.USAGE_READ}))
    document = "mutation M($input: ExportCreateInput!) { exportCreate(input: $input) { export { id } userErrors { code } } }"
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        answer = await http.post("/graphql", json={"query": document, "variables": {"input": given}}, headers={"authorization": f"Bearer {secret}"})
    told = answer.json()
    if code is None:
        assert "errors" in told
    elif code == "FORBIDDEN":  # the key has no AUDIT_READ
        assert told["errors"][0]["extensions"]["code"] == code
    else:
        assert told["data"]["exportCreate"] == {"export": None, "userErrors": [{"code": code}]}
    assert (await ask(gateway, mine, documents()["Exports"]))["exports"]["nodes"] == []
