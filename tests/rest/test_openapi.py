"""The description of the documented paths says what they do."""

import re
from typing import Any

import httpx2
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from models.enums import Scope
from proxy.routes import COUNTS, ROADS
from rest.routes import PUBLISHED
from tests.apps.deploying import zip_of
from tests.rest.test_aaas import ask_echo
from tests.rest.test_strangers import BODIES, NEEDS
from tests.support.books import only_call
from tests.support.world import operator_key, tenant

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


@pytest.fixture
async def described(client: httpx2.AsyncClient) -> Json:
    """The description, as a client gets it without a credential."""
    answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    told: Json = answer.json()
    return told


def check(described: Json, path: str, method: str, answer: httpx2.Response) -> None:
    """Raise unless the answer is as described for its status."""
    responses = described["paths"][path][method.lower()]["responses"]
    response = responses[str(answer.status_code)]
    assert "x-request-id" in answer.headers
    if "content" not in response:
        assert answer.content == b""
        return
    schema = {**response["content"]["application/json"]["schema"], "components": described["components"]}
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(answer.json())


async def test_it_is_valid(described: Json) -> None:
    """It is OpenAPI 3.1 by an independent validator, and names this installation's address."""
    assert described["openapi"] == "3.1.0"
    validate(described, cls=OpenAPIV31SpecValidator)


async def test_it_is_complete(described: Json) -> None:
    """Every served operation is in it, with a credential where one is needed, and its id is its own."""
    for document in PUBLISHED:
        for operation in document.operations:
            told = described["paths"][re.sub(r":\w+}", "}", operation.path)][operation.method.lower()]
            assert {"bearer": []} in told["security"]
            assert {str(operation.status), "401", "403", "default"} <= set(told["responses"])
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert {"/healthz", "/readyz", "/version"} <= set(described["paths"])


async def test_the_inference_road_is_in_it(described: Json) -> None:
    """Every road of the process, in its plain form, and every way to count, each with its dialect's error and both ways to show a key; nothing else."""
    told = {path for path, item in described["paths"].items() if item.get("post", {}).get("tags") == ["Gateway: inference"]}
    counts = {path for path in COUNTS if path.count("v1") == 1}
    assert told == {road.endpoint for road in ROADS.values()} | counts
    for path in told:
        operation = described["paths"][path]["post"]
        assert operation["security"] == [{"bearer": []}, {"apiKey": []}]
        error = "AnthropicError" if "messages" in path else "OpenAIError"
        assert operation["responses"]["429"]["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{error}"}
    assert "x-tallygate-preset" in {about["name"] for about in described["paths"]["/cline/v1/messages"]["post"]["parameters"]}


async def test_parameters_and_bodies_are_described(described: Json) -> None:
    """Defaults, choices and bounds stand where the documents have them."""
    parameters = {about["name"]: about["schema"] for about in described["paths"]["/v1/usage/summary"]["get"]["parameters"]}
    assert parameters["range"] == {"default": "7d", "enum": ["24h", "7d", "30d"], "type": "string"}
    parameters = {about["name"]: about["schema"] for about in described["paths"]["/v1/credits/transactions"]["get"]["parameters"]}
    assert parameters["limit"] == {"default": 50, "maximum": 200, "minimum": 1, "type": "integer"}
    transaction = described["components"]["schemas"]["Transaction"]
    assert transaction["required"] == ["idempotencyKey", "type", "amountMicrousd", "createdAt", "tokens"]
    assert transaction["properties"]["model"] == {"type": "string"}
    assert described["paths"]["/v1/keys"]["post"]["requestBody"]["required"] is False


async def test_answers_are_as_described(client: httpx2.AsyncClient, described: Json) -> None:
    """Good answers and refusals of every operation fit their schemas."""
    mine = await tenant(credit_microusd=1_000_000)
    await ask_echo(client, mine)
    call_id = await only_call(mine)
    made = (await client.post("/tenant/keys", headers=mine.bearer)).json()
    app_id = f"of-{mine.workspace_id}"
    assert (await client.post("/v1/apps", headers=mine.bearer, json={"appId": app_id, "name": "x"})).status_code == 201
    upload = zip_of({"index.html": b"x"})
    deployed = (await client.post(f"/v1/apps/{app_id}/deploy", headers=mine.bearer, content=upload)).json()["deploymentId"]
    logged = (await client.get("/usage", headers=mine.bearer)).json()[0]["usage_id"]
    operator = {"Authorization": f"Bearer {await operator_key(mine)}"}
    for document in PUBLISHED:
        for operation in document.operations:
            path = re.sub(r":\w+}", "}", operation.path)
            name = {"/v1/models/{id}": "echo", "/v1/receipts/{id}": str(call_id)}.get(path, made["id"])
            filled = path.replace("{id}", name).replace("{appId}", app_id).replace("{usage_id}", str(logged)).replace("{user_id}", str(mine.owner.user_id))
            filled = filled.replace("{deploymentId}", deployed)
            content = upload if operation.takes else None
            needs, body = NEEDS[f"{operation.method} {operation.path}"], BODIES.get(f"{operation.method} {operation.path}", dict)() or None
            headers = operator if needs is Scope.OPERATOR else mine.bearer
            answer = await client.request(operation.method, filled, headers=headers, json=body, content=content)
            assert answer.status_code == operation.status, path
            check(described, path, operation.method, answer)
            refused = await client.request(operation.method, filled, json=body, content=content)
            assert refused.status_code == 401, path
            check(described, path, operation.method, refused)
    for path in ("/healthz", "/readyz", "/version", "/pricing", "/pricing/tokens"):
        check(described, path, "GET", await client.get(path))
