"""Bodies and parameters are read strictly: what is malformed is refused in the document's shape and changes nothing."""

import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from domain.errors import InvalidInput
from rest import bodies
from rest.fields import Asked
from tests.support.world import tenant

pytestmark = pytest.mark.anyio

PATHS = ["/v1/keys", "/tenant/keys"]
NO_JSON = {
    "cut": b'{"name":',
    "bad UTF-8": b'{"name":"\xff"}',
    "encoded surrogate": b'{"name":"\xed\xa0\x80"}',
    "lone surrogate": b'{"name":"\\ud800 alone"}',
    "lone low surrogate": b'{"name":"\\udc00"}',
    "NaN": b'{"name":NaN}',
    "infinity": b'{"name":1e999}',
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "UTF-16": '{"name":"a"}'.encode("utf-16"),
    "too deep": b'{"name":' + b"[" * 50_000,
    "two values": b"{}{}",
    "single quotes": b"{'name':'a'}",
    "a form": b"name=a",
}
NO_OBJECT = {"an array": b"[]", "a text": b'"name"', "a number": b"1", "null": b"null"}
NUL = {"in a value": b'{"name":"a\\u0000b"}', "in an unknown field": b'{"x":{"y":["\\u0000"]}}', "in a name": b'{"\\u0000":1}'}
WRONG = {"a number": b'{"name":5}', "a list": b'{"name":["a"]}', "true": b'{"name":true}', "blank": b'{"name":"   "}', "a line feed": b'{"name":"a\\nb"}'}
WRONG["too long"] = json.dumps({"name": "n" * 201}).encode()
BAD = {f"{group}: {name}": sent for group, some in {"JSON": NO_JSON, "object": NO_OBJECT, "NUL": NUL, "type": WRONG}.items() for name, sent in some.items()}


@pytest.mark.parametrize("path", PATHS)
async def test_a_bad_body_changes_nothing(client: httpx2.AsyncClient, path: str) -> None:
    """Each of these is a 400 in the document's own shape, and no key is made."""
    mine = await tenant()
    for name, sent in BAD.items():
        refused = await client.post(path, content=sent, headers={**mine.bearer, "content-type": "application/json"})
        assert refused.status_code == 400, name
        error = refused.json()["error"]
        if path == "/v1/keys":
            assert set(refused.json()) == {"error"}, name
            assert isinstance(error, str), name
        else:
            assert set(error) == {"type", "message"}, name
            assert error["type"] == "invalid_request_error", name
        assert "x-request-id" in refused.headers, name
    assert len((await client.get("/v1/keys", headers=mine.bearer)).json()) == 1


@pytest.mark.parametrize("kind", ["", "free", "SUBSCRIPTION", 1, ["subscription"], {}])
async def test_a_bad_kind_changes_nothing(client: httpx2.AsyncClient, kind: object) -> None:
    """A kind that the document does not list is refused, with what it lists."""
    mine = await tenant()
    refused = await client.post("/tenant/keys", json={"kind": kind}, headers=mine.bearer)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "kind: Input should be 'subscription' or 'pay_per_token'"
    assert len((await client.get("/tenant/keys", headers=mine.bearer)).json()["data"]) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_has_64_kib_at_most(client: httpx2.AsyncClient, path: str) -> None:
    """The last byte that fits is read, the next one refuses the whole, whether the length is announced or not."""
    mine = await tenant()

    async def parts(size: int) -> AsyncIterator[bytes]:
        yield b"{}"
        yield b" " * (size - 2)

    fits = bodies.LARGEST_BODY_BYTES
    assert (await client.post(path, content=b"{}" + b" " * (fits - 2), headers=mine.bearer)).status_code == 201
    assert (await client.post(path, content=parts(fits), headers=mine.bearer)).status_code == 201
    for content in (b"{}" + b" " * (fits - 1), parts(fits + 1)):
        refused = await client.post(path, content=content, headers=mine.bearer)
        assert refused.status_code == 413
        assert "64 KiB" in refused.text
    assert len((await client.get("/v1/keys", headers=mine.bearer)).json()) == 3


async def test_a_stranger_is_refused_before_a_body_is_read(client: httpx2.AsyncClient) -> None:
    """Without a credential even a body that is too large and no JSON is a 401."""
    refused = await client.post("/v1/keys", content=b"[" * (bodies.LARGEST_BODY_BYTES + 1))
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


class _Query(Asked):
    name: str = "none"


def test_a_query_string_is_read_strictly() -> None:
    """Known parameters are decoded once, unknown ones are nothing, and what cannot be decoded is refused."""
    assert bodies.from_query(_Query, b"name=a%20b%2526&other=%00&other=2").name == "a b%26"
    assert bodies.from_query(_Query, b"").name == "none"
    for bad in (b"name=%FF", b"name=%00", b"name=a&name=a", b"&".join(b"x=1" for _ in range(bodies.MOST_PARAMETERS + 1))):
        with pytest.raises(InvalidInput):
            bodies.from_query(_Query, bad)
