"""The manifest of an app: what its maker says about serving it and about its visitors, checked against the JSON Schema that is published."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from domain.errors import InvalidInput, OutOfRange

PATH = "/schemas/app-manifest.json"
"""Where the schema is published."""
PUBLIC_TOKENS = "publicTokens"
"""The key that lets visitors have tokens without a back end."""
LARGEST_BYTES = 32 * 1024
DEEPEST = 32
HEADERS_OF_OURS = (
    *("set-cookie", "content-length", "content-encoding", "content-range", "content-type", "transfer-encoding", "connection", "upgrade", "trailer"),
    *("date", "server", "etag", "last-modified", "accept-ranges", "vary", "location", "keep-alive", "x-request-id", "service-worker-allowed"),
)
"""Fields that only the server may write: an app sets no cookies, and no framing of an answer."""

_FILE = r"^(?!/)(?!.*(?:^|/)\.{1,2}(?:/|$))(?!.*//)[^\\\u0000-\u001f\u007f?#]+$"
_PLACE = r"^/(?!/)[\u0021-\u007e]*$"

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "App manifest",
    "description": "How an app is served and what its visitors may do. Keys that are not described here are the maker's own and are kept as they are.",
    "type": "object",
    "properties": {
        "entry": {
            "description": "The document of `/`, below the app's root.",
            "type": "string",
            "pattern": _FILE,
            "maxLength": 500,
            "default": "index.html",
        },
        "spaFallback": {
            "description": "Whether a page that is no file is answered with the entry, for apps that route in the browser.",
            "type": "boolean",
            "default": False,
        },
        "notFound": {
            "description": "The document of the answer 404.",
            "type": "string",
            "pattern": _FILE,
            "maxLength": 500,
            "default": "404.html",
        },
        "headers": {
            "description": "Header fields of answers; a later rule wins over an earlier one, and over the defaults.",
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["path", "set"],
                "additionalProperties": False,
                "properties": {
                    "path": {"description": "A path; `*` stands for any characters.", "type": "string", "pattern": _PLACE, "maxLength": 500},
                    "set": {
                        "type": "object",
                        "maxProperties": 50,
                        "propertyNames": {"pattern": "^[a-z0-9-]{1,64}$", "not": {"enum": list(HEADERS_OF_OURS)}},
                        "additionalProperties": {"type": "string", "pattern": r"^[\u0020-\u007e]*$", "maxLength": 4000},
                    },
                },
            },
        },
        "redirects": {
            "description": "Paths that are answered with another address; the first that fits holds.",
            "type": "array",
            "maxItems": 200,
            "items": {
                "type": "object",
                "required": ["from", "to"],
                "additionalProperties": False,
                "properties": {
                    "from": {"description": "A path, or its beginning with `/*` at the end.", "type": "string", "pattern": _PLACE, "maxLength": 500},
                    "to": {
                        "description": "A path or an address; `*` in it stands for what `*` stood for.",
                        "type": "string",
                        "pattern": r"^(?:/(?!/)|https?://[a-z0-9])[\u0021-\u007e]*$",
                        "maxLength": 2000,
                    },
                    "status": {"type": "integer", "enum": [301, 302, 303, 307, 308], "default": 307},
                },
            },
        },
        "allowedOrigins": {
            "description": "Browser origins that its tokens may be used from besides its own, unless one is made for others.",
            "type": "array",
            "maxItems": 50,
            "items": {"type": "string", "pattern": r"^https?://[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?$", "maxLength": 200},
        },
        PUBLIC_TOKENS: {
            "description": "Whether pages of its own origin and of allowedOrigins get tokens without a back end, a few from each address, within the caps below.",
            "type": "boolean",
            "default": False,
        },
        "models": {
            "description": "Models that its tokens may call, unless one is made for others; all when absent.",
            "type": "array",
            "maxItems": 100,
            "items": {"type": "string", "minLength": 1, "maxLength": 200},
        },
        "caps": {
            "description": "What one of its tokens may do, unless less is asked for.",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "spendCapMicrousd": {"type": "integer", "minimum": 0, "maximum": 1_000_000_000_000},
                "requestCap": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
            },
        },
    },
}

_TYPES: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": (int, float)}


def check(manifest: object, *, path: tuple[str, ...] = ("manifest",)) -> dict[str, Any]:
    """Return a manifest that fits the schema; raises InvalidInput or OutOfRange, whose path leads to the fault."""
    if not isinstance(manifest, dict):
        raise InvalidInput("A manifest is a JSON object.", path=path)
    _refuse_depth(manifest, path)
    if len(msgspec.json.encode(manifest)) > LARGEST_BYTES:
        raise OutOfRange(f"A manifest has at most {LARGEST_BYTES} bytes.", minimum=None, maximum=LARGEST_BYTES, too_large=True, path=path)
    fault = next(_faults(SCHEMA, manifest, path), None)
    if fault is not None:
        place, message = fault
        raise InvalidInput(f"{'.'.join(place)}: {message}", path=place)
    return manifest


def _refuse_depth(value: object, path: tuple[str, ...]) -> None:
    waiting: list[tuple[object, int]] = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST:
            raise InvalidInput(f"A manifest is at most {DEEPEST} levels deep.", path=path)
        if isinstance(part, dict):
            waiting.extend((each, depth + 1) for each in part.values())
        elif isinstance(part, list):
            waiting.extend((each, depth + 1) for each in part)


def _faults(schema: dict[str, Any], value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every fault of a value, by the part of JSON Schema that SCHEMA uses; `tests/apps/test_manifest.py` compares it with a whole one."""
    wanted = schema.get("type")
    if wanted is not None and not _is(value, wanted):
        yield path, f"it is of type {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield path, f"it is one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str):
        yield from _faults_of_text(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield path, f"it is {schema.get('minimum')} to {schema.get('maximum')}"
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield path, f"it has at most {schema['maxItems']} entries"
        for place, item in enumerate(value):
            yield from _faults(schema.get("items", {}), item, (*path, str(place)))
    elif isinstance(value, dict):
        yield from _faults_of_object(schema, value, path)


def _is(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if isinstance(value, float) and not value.is_integer():
        return False
    return isinstance(value, _TYPES[wanted])


def _faults_of_text(schema: dict[str, Any], text: str, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text)):
        yield path, f"it has {schema.get('minLength', 0)} to {schema.get('maxLength')} characters"
    pattern = schema.get("pattern")
    if pattern is not None and not re.search(f"{pattern[:-1]}\\Z", text):  # Python's $ would let a line end pass
        yield path, f"it does not match {pattern}"


def _faults_of_object(schema: dict[str, Any], value: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in schema.get("required", ()):
        if name not in value:
            yield (*path, name), "it is missing"
    if len(value) > schema.get("maxProperties", len(value)):
        yield path, f"it has at most {schema['maxProperties']} names"
    names, properties, others = schema.get("propertyNames"), schema.get("properties", {}), schema.get("additionalProperties", {})
    for name, item in value.items():
        if names is not None and (name in names["not"]["enum"] or next(_faults_of_text(names, name, path), None)):
            yield (*path, name), "this name cannot be set"
        elif name in properties:
            yield from _faults(properties[name], item, (*path, name))
        elif others is False:
            yield (*path, name), "there is no such name here"
        else:
            yield from _faults(others, item, (*path, name))
