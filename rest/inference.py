"""The inference road as the description of all paths tells it: that is served elsewhere, and its bodies are their dialects' own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

TAG = "Gateway: inference"
ERRORS: Mapping[str, str] = {"anthropic": "AnthropicError", "openai": "OpenAIError"}
MESSAGES_API = "https://docs.claude.com/en/api/messages"
OPENAI_API = "https://platform.openai.com/docs/api-reference"
KEY = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255}}
HEADERS: Sequence[Json] = (
    {**KEY, "description": "The same key and body return the first answer, and charge once."},
    {
        "name": "x-tallygate-dry-run", "in": "header", "required": False, "schema": {"type": "string", "enum": ["true", "false"]},
        "description": "Prices the request instead of making it.",
    },
    {
        "name": "x-tallygate-tags", "in": "header", "required": False, "schema": {"type": "string"},
        "description": "Tags for usage reports, as `team=core, env=prod`.",
    },
)
PRESET: Json = {
    "name": "x-tallygate-preset", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "A version of the tool's preset, or `none`.",
}


@dataclass(frozen=True, slots=True)
class Path:
    """One kind of inference request: below a tool's slug too where `tools`. `required` are the fields that every body has."""

    path: str
    dialect: str
    summary: str
    required: tuple[str, ...]
    source: str
    tools: bool = False
    streams: bool = True
    request: str = "application/json"
    answer: str = "application/json"
    calls: bool = True


PATHS = (
    Path("/v1/messages", "anthropic", "A message, as the Messages API has it.", ("model", "max_tokens", "messages"), MESSAGES_API, tools=True),
    Path("/v1/messages/count_tokens", "anthropic", "Count a message's input tokens; free.", ("messages",), MESSAGES_API, tools=True, streams=False, calls=False),
    Path("/v1/chat/completions", "openai", "A chat completion.", ("model", "messages"), OPENAI_API, tools=True),
    Path("/v1/responses", "openai", "A response.", ("model",), OPENAI_API),
    Path("/v1/embeddings", "openai", "Embeddings.", ("model", "input"), OPENAI_API, streams=False),
    Path("/v1/audio/speech", "openai", "Speech of a text, as sound or as events.", ("model", "input", "voice"), OPENAI_API, answer="audio/*"),
    Path("/v1/audio/transcriptions", "openai", "The text of a recording.", ("model", "file"), OPENAI_API, request="multipart/form-data"),
)


def paths(tools: Sequence[str]) -> dict[str, Json]:
    """Return the path items of the road, generic and of each tool."""
    told = {path.path: {"post": _operation(path, path.path)} for path in PATHS}
    for tool in tools:
        told |= {f"/{tool}{path.path}": {"post": _operation(path, f"/{tool}{path.path}", preset=True)} for path in PATHS if path.tools}
    return told


def _operation(path: Path, at: str, *, preset: bool = False) -> Json:
    body: Json = {"type": "object", "required": list(path.required), "properties": {"model": {"type": "string"}}, "additionalProperties": True}
    if path.streams:
        body["properties"] |= {"stream": {"type": "boolean" if path.request == "application/json" else "string"}}
    answer: Json = {path.answer: {"schema": {"type": "object"} if path.answer == "application/json" else {"type": "string", "format": "binary"}}}
    if path.streams:
        answer |= {"text/event-stream": {"schema": {"type": "string"}}}
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ERRORS[path.dialect]}"}}}
    refused = {401: "No key, or one that does not work.", 429: "A limit is reached; the message says which."}
    if path.calls:
        refused[402] = "There is too little credit."
    return {
        "operationId": "_".join(["post", *(word for word in at.replace("-", "/").split("/") if word)]),
        "summary": path.summary,
        "externalDocs": {"url": path.source},
        "tags": [TAG],
        "parameters": [*(HEADERS if path.calls else ()), *((PRESET,) if preset else ())],
        "security": [{"bearer": []}, {"apiKey": []}],
        "requestBody": {"required": True, "content": {path.request: {"schema": body}}},
        "responses": {
            "200": {"description": path.summary, "headers": headers, "content": answer},
            **{str(status): {"description": why, "headers": headers, "content": error} for status, why in refused.items()},
            "default": {"description": "Any other refusal, in the dialect's own shape.", "headers": headers, "content": error},
        },
    }
