"""Paths that are nobody's."""

import httpx2
import pytest

pytestmark = pytest.mark.anyio

ANTHROPIC = {"type": "error", "error": {"type": "not_found_error", "message": "There is no such path."}}
OPENAI = {"error": {"message": "There is no such path.", "type": "invalid_request_error", "param": None, "code": None}}
TYPED = {"error": {"type": "not_found_error", "message": "There is no such path."}}
DETAIL = {"detail": "There is no such path."}
PLAIN = {"error": "There is no such path."}


@pytest.mark.parametrize(
    ("path", "headers", "told"),
    [
        ("/v1/messages/batches", {}, ANTHROPIC),
        ("/roocode/v1/messages/nothing", {}, ANTHROPIC),
        ("/v1/nothing", {"anthropic-version": "2026-10-21"}, ANTHROPIC),
        ("/v1/batches", {}, OPENAI),
        ("/cursor/v1/images/edits", {}, OPENAI),
        ("/tenant/nothing", {}, TYPED),
        ("/tenant/keys/", {}, TYPED),
        ("/api/v1/usage/nothing", {}, DETAIL),
        ("/v1/billing/nothing", {}, DETAIL),
        ("/usage/", {}, DETAIL),
        ("/v1/keys/", {}, PLAIN),
        ("//v1/keys", {}, PLAIN),
        ("/favicon.ico", {}, PLAIN),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_client_can_read_that_there_is_nothing(client: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str], told: dict[str, object]) -> None:
    """404 in the shape of whose path it could be, with the request's id, never a redirect: tools take one for a failure."""
    answer = await client.request(method, f"{str(client.base_url).rstrip(chr(47))}{path}", headers=headers)
    request_id = answer.headers["x-request-id"]
    assert (answer.status_code, answer.headers["content-type"], answer.headers["request-id"]) == (404, "application/json", request_id)
    body = answer.json()
    assert body.pop("meta", {}).get("request_id", request_id) == request_id
    assert body == (told | {"request_id": request_id} if told is ANTHROPIC else told)


async def test_the_base_address_shows_a_person_the_page(client: httpx2.AsyncClient) -> None:
    """The address that the first run prints leads to GraphiQL."""
    answer = await client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "graphiql")
