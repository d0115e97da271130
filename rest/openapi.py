"""OpenAPI 3.1 of the documented paths, made from the very values that serve them."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from domain.idempotency import LONGEST_KEY
from rest import inference
from rest.doors import WITH_BODY, Document, Operation
from settings import VERSION

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]
SchemaOf = Callable[[Any, Mode], Json]

REASONS = {
    400: "A value is malformed.",
    401: "No credential, or one that is not believed.",
    402: "There is too little credit.",
    403: "The credential may not do this.",
    404: "There is no such thing, or not for this caller.",
    409: "Not in this state.",
    413: "The body is too large.",
    429: "A limit or a plan allows no more of it.",
    422: "A value is missing or malformed.",
    502: "Stripe refused.",
    503: "Something that is needed is away.",
}
BEARER = {"type": "http", "scheme": "bearer", "description": "A Tallygate API key, or a session token of a configured issuer."}
API_KEY = {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A Tallygate API key."}
REQUEST_ID = {"description": "The id of this request; the log has it too.", "schema": {"type": "string"}}
WORKSPACE = {
    "name": "X-Workspace-Id",
    "in": "header",
    "required": False,
    "description": "Which workspace a session token means, by its UUID or its GraphQL id; the person's own without it. An API key has one.",
    "schema": {"type": "string"},
}


ONCE = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name of yours for what is to be done once: a repeat with the same body gets the first answer, one with another body is refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
}


class _Untitled(GenerateJsonSchema):
    """Schemas without the titles that only repeat a field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def describe(documents: Sequence[Document], public_url: str, tools: Sequence[str]) -> Json:
    """Return the description of every operation of `documents`, and of the inference road with its `tools`, served at `public_url`."""
    schema_of, components = _schemas(documents)
    paths: dict[str, Json] = {}
    for document in documents:
        for operation in document.operations:
            path = re.sub(r":\w+}", "}", operation.path)
            paths.setdefault(path, {})[operation.method.lower()] = _operation(document, operation, path, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tallygate", "version": VERSION, "description": "The documented REST paths; GraphQL at /graphql answers the same."},
        "servers": [{"url": public_url.rstrip("/")}],
        "tags": [*({"name": document.name} for document in documents), {"name": inference.TAG}],
        "paths": paths | inference.paths(tools),
        "components": {"schemas": components, "securitySchemes": {"bearer": BEARER, "apiKey": API_KEY}, "headers": {"RequestId": REQUEST_ID}},
    }


def _schemas(documents: Sequence[Document]) -> tuple[SchemaOf, Json]:
    """Return what describes a type of an answer or a body, and the components that it refers to: all made together, so that names are unique."""
    wanted: dict[tuple[str, Mode], Any] = {}
    for document in documents:
        wanted[repr(document.errors), "serialization"] = document.errors
        for operation in document.operations:
            if operation.result is not None:
                wanted[repr(operation.result), "serialization"] = operation.result
            if operation.method in WITH_BODY and not operation.takes:
                wanted[repr(operation.given), "validation"] = operation.given
    made, definitions = TypeAdapter.json_schemas(
        [(name, mode, TypeAdapter[Any](type_)) for (name, mode), type_ in wanted.items()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    return lambda type_, mode: made[repr(type_), mode], definitions.get("$defs", {})


def _operation(document: Document, operation: Operation[Any], path: str, schema_of: SchemaOf) -> Json:
    words = [word for word in re.split(r"\W+", path) if word]
    told: Json = {
        "operationId": "_".join([operation.method.lower(), *words]),
        "summary": operation.summary,
        "tags": [document.name],
        "parameters": [*_path_parameters(path), *([] if operation.method in WITH_BODY else _query_parameters(operation.given))],
        "responses": _responses(document, operation, schema_of),
        "security": [],
    }
    if not document.public:
        told["parameters"] += [WORKSPACE, *([ONCE] if operation.method == "POST" else [])]
        told["security"] = [{"bearer": []}, *([{"apiKey": []}] if document.api_key_field else [])]
    if operation.takes:
        binary: Json = {"schema": {"type": "string", "format": "binary"}}
        told["requestBody"] = {"required": True, "content": dict.fromkeys(operation.takes, binary)}
    elif operation.method in WITH_BODY:
        required = any(field.is_required() for field in operation.given.model_fields.values())
        told["requestBody"] = {"required": required, "content": _json(schema_of(operation.given, "validation"))}
    return told


def _path_parameters(path: str) -> list[Json]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"{(\w+)}", path)]


def _query_parameters(given: type[BaseModel]) -> list[Json]:
    schema = given.model_json_schema(schema_generator=_Untitled)
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": about} for name, about in schema.get("properties", {}).items()
    ]


def _responses(document: Document, operation: Operation[Any], schema_of: SchemaOf) -> Json:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    good: Json = {"description": operation.summary, "headers": headers}
    if operation.result is not None:
        good["content"] = _json(schema_of(operation.result, "serialization"))
    error = _json(schema_of(document.errors, "serialization"))
    refused = sorted({*operation.refusals, *(() if document.public else (401, 403, 503))})
    return {
        str(operation.status): good,
        **{str(status): {"description": REASONS[status], "headers": headers, "content": error} for status in refused},
        "default": {"description": "Any other refusal.", "headers": headers, "content": error},
    }


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
