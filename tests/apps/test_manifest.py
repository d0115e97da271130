"""Manifests: checked as the published schema says, wherever a fault lies, and nothing of the maker's own is touched."""

from typing import Any

import jsonschema
import msgspec
import pytest

from domain.apps import manifest
from domain.errors import InvalidInput, OutOfRange

WHOLE: dict[str, Any] = {
    "entry": "app/index.html",
    "spaFallback": True,
    "notFound": "404.html",
    "headers": [{"path": "/assets/*", "set": {"cache-control": "public, max-age=60", "x-mine": ""}}],
    "redirects": [{"from": "/old/*", "to": "/new/*", "status": 308}, {"from": "/a", "to": "https://example.com/b?c=d"}],
    "allowedOrigins": ["https://example.com", "http://localhost:5173"],
    "models": ["echo"],
    "caps": {"spendCapMicrousd": 0, "requestCap": 50},
    "theme": {"anything": [1, None, "é"], "entry": 5},
}
FAULTS: list[tuple[object, tuple[str, ...]]] = [
    ({"entry": 5}, ("entry",)),
    ({"entry": ""}, ("entry",)),
    ({"entry": "/index.html"}, ("entry",)),
    ({"entry": "a/../b.html"}, ("entry",)),
    ({"entry": "a//b.html"}, ("entry",)),
    ({"entry": "a\\b.html"}, ("entry",)),
    ({"entry": "a\nb"}, ("entry",)),
    ({"entry": "x" * 501}, ("entry",)),
    ({"spaFallback": 1}, ("spaFallback",)),
    ({"spaFallback": "yes"}, ("spaFallback",)),
    ({"notFound": "../404.html"}, ("notFound",)),
    ({"headers": {}}, ("headers",)),
    ({"headers": [{"path": "/", "set": {"set-cookie": "a=b"}}]}, ("headers", "0", "set", "set-cookie")),
    ({"headers": [{"path": "/", "set": {"Cache-Control": "x"}}]}, ("headers", "0", "set", "Cache-Control")),
    ({"headers": [{"path": "/", "set": {"x-a": "a\r\nset-cookie: b"}}]}, ("headers", "0", "set", "x-a")),
    ({"headers": [{"path": "/"}]}, ("headers", "0", "set")),
    ({"headers": [{"path": "relative", "set": {}}]}, ("headers", "0", "path")),
    ({"redirects": [{"from": "/a", "to": "//evil.example"}]}, ("redirects", "0", "to")),
    ({"redirects": [{"from": "/a", "to": "javascript:alert(1)"}]}, ("redirects", "0", "to")),
    ({"redirects": [{"from": "/a", "to": "/b", "status": 200}]}, ("redirects", "0", "status")),
    ({"redirects": [{"from": "/a", "to": "/b", "when": 1}]}, ("redirects", "0", "when")),
    ({"redirects": [{"from": "/a", "to": "/b"}] * 201}, ("redirects",)),
    ({"allowedOrigins": ["*"]}, ("allowedOrigins", "0")),
    ({"allowedOrigins": ["https://example.com/"]}, ("allowedOrigins", "0")),
    ({"allowedOrigins": ["https://EXAMPLE.com"]}, ("allowedOrigins", "0")),
    ({"allowedOrigins": ["null"]}, ("allowedOrigins", "0")),
    ({"models": "echo"}, ("models",)),
    ({"models": [""]}, ("models", "0")),
    ({"caps": {"requestCap": 0}}, ("caps", "requestCap")),
    ({"caps": {"requestCap": 1.5}}, ("caps", "requestCap")),
    ({"caps": {"spendCapMicrousd": -1}}, ("caps", "spendCapMicrousd")),
    ({"caps": {"spendCapMicrousd": True}}, ("caps", "spendCapMicrousd")),
    ({"caps": {"money": 1}}, ("caps", "money")),
]
VALIDATOR = jsonschema.Draft202012Validator(manifest.SCHEMA)


def test_the_published_schema_is_one() -> None:
    """The schema is valid JSON Schema of the draft that it names, and travels as JSON."""
    jsonschema.Draft202012Validator.check_schema(manifest.SCHEMA)
    assert msgspec.json.decode(msgspec.json.encode(manifest.SCHEMA)) == manifest.SCHEMA


@pytest.mark.parametrize("given", [{}, WHOLE, {"mine": {"entry": 1}}, {"caps": {"requestCap": 5.0}}, {"entry": "é/🙂.html"}])
def test_what_fits_is_kept_as_it_is(given: dict[str, Any]) -> None:
    """A manifest that fits comes back unchanged, its maker's own keys too; a whole validator says the same."""
    assert manifest.check(given) == given
    assert VALIDATOR.is_valid(given)


@pytest.mark.parametrize(("given", "place"), FAULTS)
def test_a_fault_is_named_where_it_lies(given: object, place: tuple[str, ...]) -> None:
    """A fault is refused with the path that leads to it; a whole validator refuses the same manifests."""
    with pytest.raises(InvalidInput) as refused:
        manifest.check(given)
    assert refused.value.path == ("manifest", *place)
    assert not VALIDATOR.is_valid(given)


@pytest.mark.parametrize("given", [[], "x", None, 5, True])
def test_a_manifest_is_an_object(given: object) -> None:
    """Anything else is refused as a whole."""
    with pytest.raises(InvalidInput) as refused:
        manifest.check(given)
    assert refused.value.path == ("manifest",)


def test_a_manifest_has_bounds() -> None:
    """Neither size nor depth is without end."""
    with pytest.raises(OutOfRange):
        manifest.check({"mine": "x" * manifest.LARGEST_BYTES})
    deep: Any = {}
    for _ in range(manifest.DEEPEST):
        deep = {"mine": deep}
    with pytest.raises(InvalidInput):
        manifest.check(deep)
    assert manifest.check(deep["mine"]) == deep["mine"]
