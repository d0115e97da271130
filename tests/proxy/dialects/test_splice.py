"""Edits of request bodies: only the bytes of the named fields change."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.splice import MOST_FIELDS, MOST_PARTS, NotAnObject, drop, fields, put

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["model", "max_tokens", "a", "", "é", 'q"\\', "stream"]) | st.text(max_size=5)
json_objects = st.dictionaries(names, json_values, max_size=6)
spellings: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 1, "\t"]),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", " :\t ")]),
)


@given(json_objects, json_values, names, spellings)
def test_put_is_the_replacement_of_one_value(before: dict[str, Any], value: Any, name: str, spelling: dict[str, Any]) -> None:
    """F37: for any object in any spelling, a put reads as the replacement, and outside the value no byte differs."""
    text = json.dumps(before, **spelling).encode()
    new = json.dumps(value).encode()
    after = put(text, {name: new})
    assert json.loads(after) == {**before, name: value}
    assert list(json.loads(after)) == list({**before, name: value})
    if name in before:
        span = fields(text)[name]
        assert after == text[: span.start] + new + text[span.end :]
    else:
        position = max((span.end for span in fields(text).values()), default=text.index(b"{") + 1)
        assert after.startswith(text[:position])
        assert after.endswith(text[position:])


@given(json_objects, spellings)
def test_spans_are_the_values(before: dict[str, Any], spelling: dict[str, Any]) -> None:
    """Each span found is exactly one value's text, in the object's order."""
    text = json.dumps(before, **spelling).encode()
    found = fields(text)
    assert list(found) == list(before)
    for name, span in found.items():
        assert json.loads(text[span.start : span.end]) == before[name]
        assert not text[span.start : span.start + 1].isspace()
        assert not text[span.end - 1 : span.end].isspace()


@given(json_objects, names, spellings)
def test_drop_takes_one_field(before: dict[str, Any], name: str, spelling: dict[str, Any]) -> None:
    """A drop reads as the object without the field, and other fields keep their text."""
    text = json.dumps(before, **spelling).encode()
    after = drop(text, name)
    assert json.loads(after) == {key: value for key, value in before.items() if key != name}
    if name not in before:
        assert after == text


def test_nested_and_escaped_names() -> None:
    """A field of the same name inside another is not touched, and a key written with escapes is found."""
    text = rb' { "mod\u0065l" : "a" , "metadata":{"model":"inner"},"s":"\"model\":1"} '
    assert put(text, {"model": b'"b"'}) == rb' { "mod\u0065l" : "b" , "metadata":{"model":"inner"},"s":"\"model\":1"} '


def test_several_fields_at_once() -> None:
    """Present fields are replaced where they stand, absent ones follow the last, in the order given."""
    assert put(b'{"a":1,"b":2 }', {"z": b"9", "b": b"3", "y": b"8"}) == b'{"a":1,"b":3,"z":9,"y":8 }'
    assert put(b"{ }", {"z": b"9", "y": b"8"}) == b'{"z":9,"y":8 }'


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":12,"b":2,"a":1}',
        b'{"a":1,"b":2,"\\u0061":3}',
        b'{"a":{"x":1},"a":{"x":1},"b":{"x":1}}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":1} {}',
        b"\xef\xbb\xbf{}",
        b"[1]",
        b"7",
        b"",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b'{"a":' * 100_000,
    ],
)
def test_what_cannot_be_told_apart_is_refused(text: bytes) -> None:
    """A field named twice, text that is not UTF-8 or not one JSON object, or too deep, raises NotAnObject and nothing else."""
    with pytest.raises(NotAnObject):
        fields(text)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ a1', max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_refused(text: bytes) -> None:
    """Whatever the bytes, the fields agree with the standard library's reading or NotAnObject is raised."""
    try:
        found = fields(text)
    except NotAnObject:
        return
    assert list(found) == list(json.loads(text))


def test_more_fields_than_any_request_has_are_refused() -> None:
    """A walk over a million names would keep every other call of the process waiting."""
    most = {f"k{number}": number for number in range(MOST_FIELDS)}
    assert len(fields(json.dumps(most).encode())) == MOST_FIELDS
    with pytest.raises(NotAnObject, match="more than 1000 fields"):
        fields(json.dumps(most | {"more": 1}).encode())


@pytest.mark.parametrize("part", [b"{}", b"[]", b'{"a":1}', b'{"a" :1}', b'{"a\\u0062"\t:[]}'])
def test_more_parts_than_any_prompt_has_are_refused(part: bytes) -> None:
    """A decoder would make a value of each, for seconds in which no other call of the process goes on; the same bytes in one text are no more than a text."""
    many = b",".join([part] * (MOST_PARTS + 1))
    with pytest.raises(NotAnObject, match=f"more than {MOST_PARTS} objects, arrays and fields"):
        fields(b'{"user":[' + many + b"]}")
    assert list(fields(b'{"user":"' + b"a, " * len(part) * MOST_PARTS + b'"}')) == ["user"]
