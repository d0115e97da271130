"""GraphQL over a WebSocket: the graphql-transport-ws protocol, its credential, and what closes it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from domain.access import keys
from tests.schema.serving import Served

pytestmark = pytest.mark.anyio

PROTOCOL = Subprotocol("graphql-transport-ws")


@asynccontextmanager
async def opened(served: Served, payload: Any = None, protocol: Subprotocol = PROTOCOL) -> AsyncIterator[ClientConnection]:
    """A connection whose first message has been sent."""
    async with connect(served.url.replace("http", "ws") + "/graphql", subprotocols=[protocol]) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": payload or {}}))
        yield socket


async def hear(socket: ClientConnection) -> Any:
    """The next message."""
    return json.loads(await socket.recv(decode=True))


async def test_a_query_is_answered_and_completed(served: Served) -> None:
    """Queries run over the socket as over HTTP, as text frames, with the same extensions."""
    async with opened(served) as socket:
        assert await hear(socket) == {"type": "connection_ack"}
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": "{ __typename }"}}))
        answer = await hear(socket)
        assert (answer["id"], answer["type"], answer["payload"]["data"]) == ("a", "next", {"__typename": "Query"})
        assert answer["payload"]["extensions"]["requestId"]
        assert await hear(socket) == {"id": "a", "type": "complete"}


async def test_the_first_message_carries_the_credential(served: Served) -> None:
    """A browser, which cannot set headers, authenticates with `authorization` in the first message."""
    owner = await served.owner()
    async with opened(served, {"Authorization": f"Bearer {owner.session}"}) as socket:
        await hear(socket)
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": "{ viewer { role } }"}}))
        assert (await hear(socket))["payload"]["data"] == {"viewer": {"role": "OWNER"}}


async def test_a_credential_that_is_not_believed_closes_with_4403(served: Served) -> None:
    """A socket never goes on as a stranger's after a bad credential."""
    async with opened(served, {"authorization": "Bearer tg_live_nonsense"}) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize(
    ("document", "code"),
    [("{", "GRAPHQL_PARSE_FAILED"), ("{ nope }", "GRAPHQL_VALIDATION_FAILED"), ("{ apiKeys { nodes { id } } }", "UNAUTHENTICATED")],
)
async def test_errors_have_the_codes_of_http(served: Served, document: str, code: str) -> None:
    """A client of the socket meets the same codes, and the connection goes on."""
    async with opened(served) as socket:
        await hear(socket)
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": document}}))
        message = await hear(socket)
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        assert errors[0]["extensions"]["code"] == code
        await socket.send(json.dumps({"type": "ping"}))
        while (message := await hear(socket))["type"] != "pong":
            assert message["type"] == "complete"


@pytest.mark.parametrize(
    "message",
    [
        "[]",
        "1",
        "{}",
        '{"type": 1}',
        '{"type": "subscribe", "id": "a", "payload": []}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ __typename }"}}',
        '{"type": "subscribe", "id": "a", "payload": {"query": 1}}',
        '{"type": "subscribe", "id": "a", "payload": {"query": "{ __typename }", "variables": [1]}}',
        "{",
        '{"type": "ping", "payload": NaN}',
        "[" * 5000,
    ],
)
async def test_a_malformed_message_closes_with_4400(served: Served, message: str) -> None:
    """Nothing that a client sends is a fault of ours."""
    async with opened(served) as socket:
        await hear(socket)
        await socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


async def test_the_legacy_protocol_and_foreign_origins_are_refused(served: Served) -> None:
    """graphql-ws is not spoken, and a page of another site opens no socket."""
    async with connect(served.url.replace("http", "ws") + "/graphql", subprotocols=[Subprotocol("graphql-ws")]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4406
    with pytest.raises(InvalidStatus) as refused:
        async with connect(
            served.url.replace("http", "ws") + "/graphql", subprotocols=[PROTOCOL], additional_headers={"origin": "https://elsewhere.test"}
        ):
            pass
    assert refused.value.response.status_code == 403


async def test_a_revoked_key_fails_on_its_very_next_operation(served: Served) -> None:
    """F28: a socket that is open keeps no right; the caller is identified again before each operation."""
    owner = await served.owner()
    key, secret = await served.key(owner)
    async with opened(served, {"authorization": f"Bearer {secret}"}) as socket:
        await hear(socket)
        for number, told in ((1, {"role": "DEVELOPER"}), (2, None)):
            await socket.send(json.dumps({"type": "subscribe", "id": str(number), "payload": {"query": "{ viewer { role } }"}}))
            payload = (await hear(socket))["payload"]
            if told:
                assert payload["data"] == {"viewer": told}
                assert (await hear(socket))["type"] == "complete"
                await keys.revoke(owner.caller, key.id)
            else:
                assert payload["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_a_handshake_with_a_bad_credential_is_nobody_s(served: Served) -> None:
    """A client that sends its credential as a header of the handshake is refused what it asks, not served as a stranger."""
    address = served.url.replace("http", "ws") + "/graphql"
    async with connect(address, subprotocols=[PROTOCOL], additional_headers={"authorization": "Bearer tg_live_nonsense"}) as socket:
        await socket.send(json.dumps({"type": "connection_init"}))
        await hear(socket)
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"query": "{ service { version } }"}}))
        assert (await hear(socket))["payload"]["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
