"""GraphQL over HTTP: media types, statuses, bodies, and what a browser gets."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import structlog
from starlette.applications import Starlette

from domain.access.callers import Caller, Whence
from domain.money.catalogue import Book
from domain.serving.routing import Routes
from resolvers.asking import Facilities
from schema.errors import MASKED
from schema.view import GraphQLView, routes
from tests.schema.serving import RESPONSE_TYPE, SIGNING_SECRET, Served, served_schema

pytestmark = pytest.mark.anyio

JSON = "application/json; charset=utf-8"
RESPONSE = f"{RESPONSE_TYPE}; charset=utf-8"


async def send(served: Served, body: bytes, **headers: str) -> httpx2.Response:
    """Send a body as it is."""
    return await served.http.post("/graphql", content=body, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        (RESPONSE_TYPE, RESPONSE),
        (f"{RESPONSE_TYPE}, application/json;q=0.9", RESPONSE),
        (f"{RESPONSE_TYPE};q=0.5, application/json", JSON),
        (f"application/json, {RESPONSE_TYPE}", JSON),
        ("text/plain, application/json;charset=UTF-8", JSON),
    ],
)
async def test_an_answer_comes_in_the_media_type_that_the_client_prefers(served: Served, accept: str | None, kind: str) -> None:
    """The Accept header chooses between the two media types of GraphQL over HTTP; without one it is JSON."""
    request = served.http.build_request("POST", "/graphql", json={"query": "{ __typename }"})
    del request.headers["accept"]
    if accept:
        request.headers["accept"] = accept
    response = await served.http.send(request)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)
    assert response.json()["data"] == {"__typename": "Query"}


async def test_a_media_type_that_is_not_ours_is_406(served: Served) -> None:
    """A client that takes neither media type is told so, and nothing is run."""
    response = await send(served, b'{"query": "{ __typename }"}', accept="text/csv")
    assert response.status_code == 406
    assert "data" not in response.json()


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", "GRAPHQL_VALIDATION_FAILED"),
        ("query Q($n: SafeInt) { model(name: 1) { id } }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_a_request_error_is_400_without_data_in_the_response_type_and_200_without_data_in_json(
    served: Served, document: str, code: str
) -> None:
    """What was never executed has no `data`, and its status tells so in the media type that allows it."""
    new = await served.ask(document)
    old = await served.ask(document, accept="application/json")
    assert (new.status, new.codes[0], "data" in new.body) == (400, code, False)
    assert (old.status, old.codes[0], "data" in old.body) == (200, code, False)


async def test_a_variable_that_does_not_fit_is_400(served: Served) -> None:
    """Variables are coerced before anything runs, and their faults are the client's."""
    answer = await served.ask("query Q($name: String!) { model(name: $name) { id } }", name=7)
    assert (answer.status, answer.codes, "data" in answer.body) == (400, ["BAD_USER_INPUT"], False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"1",
        b'"{ __typename }"',
        b'[{"query": "{ __typename }"}]',
        b"[1, 2]",
        b"{}",
        b'{"query": null}',
        b'{"query": 1}',
        b'{"query": ""}',
        b'{"query": "{ __typename }", "variables": [1]}',
        b'{"query": "{ __typename }", "variables": "{}"}',
        b'{"query": "{ __typename }", "operationName": 5}',
        b'{"query": "{ __typename }", "operationName": "Nope"}',
        b'{"query": "{ __typename }", "extensions": 1}',
        b'{"query": "{ __typename }", "variables": {"a": NaN}}',
        b'{"query": "{ __typename }", "variables": {"a": Infinity}}',
        b'{"query": "{ __typename }", "variables": {"a": "\\ud800"}}',
        b'{"query": "{ __typename }", "variables": {"a": "\\u0000"}}',
        b'{"query": "{ __typename }", "variables": {"\\udc00": 1}}',
        b'{"query": "{ __typename }", "variables": {"a": ' + b"9" * 20_000 + b"}}",
        b'{"query": "{ __typename }", "variables": {"a": "\xff"}}',
        b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 65 + b"]" * 65 + b"}}",
        b"[" * 100_000,
        '{"query": "{ __typename }"}'.encode("utf-16"),
    ],
    ids=range(26),
)
async def test_a_malformed_body_is_400_and_never_a_fault_of_ours(served: Served, body: bytes) -> None:
    """What is no GraphQL request in JSON is refused with 400, a code and no data, whatever it is; batches are not taken."""
    response = await send(served, body, accept=RESPONSE_TYPE)
    assert response.status_code == 400
    assert response.headers["content-type"] == RESPONSE
    assert "data" not in response.json()
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_document_that_is_named_and_not_kept_says_so(served: Served) -> None:
    """Trusted documents are not kept, which a client that sends an ID learns in the words of the contract."""
    response = await send(served, b'{"documentId": "sha256:00"}')
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (400, "PERSISTED_DOCUMENT_NOT_FOUND")


async def test_a_body_beyond_256_kib_is_413_whether_its_length_is_told_or_not(served: Served) -> None:
    """The bound holds for what arrives, and for what is announced before it arrives."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" " * 1024

    told = await send(served, b" " * (256 * 1024 + 1))
    untold = await served.http.post("/graphql", content=pieces(), headers={"content-type": "application/json"})
    assert (told.status_code, untold.status_code) == (413, 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "gzip"},
    ],
)
async def test_another_content_type_or_an_encoded_body_is_415(served: Served, headers: dict[str, str]) -> None:
    """Only JSON in UTF-8 as it is: a cross-site form cannot be a request, and no body unpacks into more than it was."""
    response = await served.http.post(
        "/graphql", content=b'{"query": "{ __typename }"}', headers={"content-type": "application/json", **headers}
    )
    assert response.status_code == 415


async def test_get_runs_nothing_and_leads_a_browser_to_the_page(served: Served) -> None:
    """An operation in a link is never run; a person who follows the link sees the page."""
    api = await served.http.get("/graphql", params={"query": "{ __typename }"})
    assert (api.status_code, api.headers["allow"], "data" in api.json()) == (405, "POST", False)
    browser = await served.http.get("/graphql", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browser.status_code, browser.headers["location"]) == (303, "/graphiql")
    assert (await served.http.put("/graphql", json={"query": "{ __typename }"})).status_code == 405


async def test_every_answer_carries_the_request_s_id_and_is_not_stored(served: Served) -> None:
    """The header and `extensions.requestId` name the same request, in good answers and bad ones."""
    for body in (b'{"query": "{ __typename }"}', b'{"query": "{"}', b"{"):
        response = await send(served, body, **{"x-request-id": "req-1"})
        assert response.headers["x-request-id"] == "req-1"
        assert response.json()["extensions"]["requestId"] == "req-1"
        assert response.headers["cache-control"] == "no-store"


async def test_the_schema_can_be_downloaded(served: Served) -> None:
    """The SDL is public documentation, with its directives applied."""
    response = await served.http.get("/graphql/schema.graphql")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert "@requiresScopes(scopes: [KEYS_READ])" in response.text


async def test_names_are_not_suggested(served: Served) -> None:
    """A guess at a name is answered without the nearest right one."""
    answer = await served.ask("{ model { nam } }")
    assert answer.status == 400
    assert "Did you mean" not in str(answer.body)


async def test_a_query_over_server_sent_events_is_one_event_and_complete(served: Served) -> None:
    """graphql-sse in distinct connections: any operation may be asked as a stream."""
    response = await send(served, b'{"query": "{ __typename }"}', accept="text/event-stream")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line for line in response.text.splitlines() if line.startswith("event:")]
    assert events == ["event: next", "event: complete"]
    assert '"__typename":"Query"' in response.text


async def test_a_credential_that_is_not_believed_is_401_before_the_body_is_read(served: Served) -> None:
    """A bad credential is never treated as none, whatever the body is."""
    for credential in ("tg_live_nonsense", "no-such-session"):
        answer = await served.ask("{", credential=credential)
        assert (answer.status, answer.codes, answer.headers["www-authenticate"]) == (401, ["UNAUTHENTICATED"], "Bearer")
    basic = await send(served, b"{", authorization="Basic eDp5")
    assert basic.status_code == 401


async def test_a_fault_while_identifying_is_500_in_json_and_masked() -> None:
    """Whatever breaks before an operation runs, the client gets an answer in the agreed media type, with the request's ID and nothing of ours."""

    async def identify(credential: str | None, workspace: str | None, _: Whence) -> Caller | None:
        raise OSError(f"cannot reach postgresql://user:secret@database {credential} {workspace}")

    facilities = Facilities(book=Book(), offered=list, find=Book().find, routes=Routes(Book(), []), signing_secret=SIGNING_SECRET, public_url="http://here", version="1")
    view = GraphQLView(served_schema(), facilities, identify, lambda _: "req-5")
    with structlog.testing.capture_logs() as logs:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(Starlette(routes=routes(view))), base_url="http://here") as http:
            response = await http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": RESPONSE_TYPE})
    assert (response.status_code, response.headers["content-type"], response.headers["x-request-id"]) == (500, RESPONSE, "req-5")
    assert response.json()["errors"] == [{"message": MASKED, "extensions": {"code": "INTERNAL", "requestId": "req-5"}}]
    assert [line["request_id"] for line in logs] == ["req-5"]
