"""Request bodies: read leniently, refused clearly, rewritten byte by byte, counted by one rule."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Ask, BadRequest, Dialect
from proxy.dialects.registry import DIALECTS

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
BOTH = pytest.mark.parametrize("dialect", list(DIALECTS.values()), ids=list(DIALECTS))


def body(**fields: object) -> bytes:
    """Write a body with the least that both dialects need, and more."""
    return json.dumps({"model": "m", "max_tokens": 100, "messages": MESSAGES, **fields}, separators=(",", ":")).encode()


def test_anthropic_ask() -> None:
    """What admission needs is read; unknown fields, a system role in mid-conversation and max_tokens 0 pass."""
    messages = [*MESSAGES, {"role": "system", "content": [{"type": "novelty", "x": [1, None]}]}]
    ask = anthropic.parse(body(model="claude", stream=True, max_tokens=0, messages=messages, metadata={"user_id": "u-7"}, novelty={"a": 1}))
    assert (ask.model, ask.streamed, ask.max_output_tokens, ask.choices, ask.include_usage) == ("claude", True, 0, 1, True)
    assert (ask.end_user, ask.conversation) == ("u-7", None)


@pytest.mark.parametrize(
    ("user_id", "end_user", "conversation"),
    [
        ('{"device_id":"d1","account_uuid":"","session_id":"s1"}', "d1", "s1"),
        ('{"device_id":"d1","account_uuid":"a1","session_id":"s1"}', "a1", "s1"),
        ("user_ab_account__session_cd", "user_ab_account_", "cd"),
        ("{broken", "{broken", None),
        ("a_session_b", "a_session_b", None),
        ("", None, None),
        ("a\0b", "sha256:" + hashlib.sha256(b"a\0b").hexdigest(), None),
        ("x" * 256, "sha256:" + hashlib.sha256(b"x" * 256).hexdigest(), None),
        (7, None, None),
    ],
)
def test_identities(user_id: object, end_user: str | None, conversation: str | None) -> None:
    """End user and conversation are taken apart as coding tools pack them; what a database cannot store becomes a digest."""
    ask = anthropic.parse(body(metadata={"user_id": user_id}))
    assert (ask.end_user, ask.conversation) == (end_user, conversation)


def test_openai_ask() -> None:
    """What admission needs is read; of two bounds the larger counts, for the upstream may honour either."""
    fields: dict[str, Any] = {"n": 3, "max_completion_tokens": 50, "user": "u", "metadata": {"conversation_id": "c"}}
    ask = openai.parse(body(stream=True, stream_options={"include_usage": True}, **fields))
    assert (ask.max_output_tokens, ask.choices, ask.include_usage, ask.end_user, ask.conversation) == (100, 3, True, "u", "c")
    bare = openai.parse(b'{"model":"m","messages":[],"stream":null,"n":null,"max_tokens":null}')
    assert (bare.max_output_tokens, bare.choices, bare.include_usage, bare.streamed) == (None, 1, False, False)


HOSTILE = {
    "empty": b"",
    "array": b"[]",
    "text": b'"x"',
    "truncated": body()[:-1],
    "trailing": body() + b"{}",
    "not UTF-8": body().replace(b"Hi", b"\xff"),
    "UTF-16": body().decode().encode("utf-16"),
    "lone surrogate": body().replace(b"Hi", b"\\ud800"),
    "NaN": body(x=float("nan")),
    "infinity": body(x=float("inf")),
    "named twice": body()[:-1] + b',"model":"other"}',
    "named twice by escape": body()[:-1] + b',"mod\\u0065l":"other"}',
    "deep": body()[:-1] + b',"x":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "deep in messages": body(messages=[]).replace(b"[]", b"[" * 500_000 + b"]" * 500_000),
    "millions of messages": body(messages=[]).replace(b"[]", b"[" + b"{}," * 1_100_000 + b"{}]"),
    "huge integer": body().replace(b"100", b"1" + b"0" * 100_000),
    "negative": body(max_tokens=-1),
    "float": body(max_tokens=1.5),
    "boolean bound": body(max_tokens=True),
    "text bound": body(max_tokens="7"),
    "no model": b'{"max_tokens":1,"messages":[]}',
    "empty model": body(model=""),
    "long model": body(model="m" * 201),
    "unprintable model": body(model="a\nb"),
    "number as model": body(model=7),
    "no messages": b'{"max_tokens":1,"model":"m"}',
    "messages as text": body(messages="Hi"),
    "messages as object": body(messages={}),
    "stream as text": body(stream="true"),
    "stream as number": body(stream=1),
}


@BOTH
@pytest.mark.parametrize("hostile", list(HOSTILE.values()), ids=list(HOSTILE))
def test_hostile_bodies_are_refused(dialect: Dialect, hostile: bytes) -> None:
    """Every body that cannot be relied upon raises BadRequest with a message, and nothing else."""
    with pytest.raises(BadRequest) as caught:
        dialect.parse(hostile)
    assert caught.value.message


@pytest.mark.parametrize(
    "fields",
    [{"n": 0}, {"n": 129}, {"n": True}, {"stream": True, "stream_options": 7}, {"stream": True, "stream_options": {"include_usage": 1}}],
    ids=str,
)
def test_openai_fields_that_are_relied_upon(fields: dict[str, Any]) -> None:
    """A number of choices or an option that cannot be relied upon is refused."""
    with pytest.raises(BadRequest):
        openai.parse(body(**fields))
    with pytest.raises(BadRequest):
        openai.parse(body(stream=True)[:-1] + b',"stream_options":{"include_usage":false,"include_usage":true}}')


def test_anthropic_needs_a_bound() -> None:
    """A Messages body without max_tokens is refused under that name, as the API does."""
    with pytest.raises(BadRequest) as caught:
        anthropic.parse(b'{"model":"m","messages":[]}')
    assert (caught.value.message, caught.value.param) == ("max_tokens: Field required", "max_tokens")


@BOTH
@given(st.binary(max_size=80) | st.text(alphabet='{}[]":,1 messagodlx_tkn\\', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(dialect: Dialect, text: bytes) -> None:
    """Whatever the bytes, parse and count give a value or BadRequest."""
    for read in (dialect.parse, dialect.count):
        try:
            read(text)
        except BadRequest:
            continue


def test_anthropic_rewrite() -> None:
    """F37: only the model's and the bound's bytes change; a bound is only lowered; with nothing to change the body is the same object."""
    text = b'{ "max_tokens" : 100, "messages":[{"role":"user","content":"\\u0041 model"}],"user":{"model":"i"},\n"model":"auto","z":1e2}'
    ask = anthropic.parse(text)
    assert anthropic.rewrite(text, ask, model="claude-é", max_output_tokens=7) == (
        b'{ "max_tokens" : 7, "messages":[{"role":"user","content":"\\u0041 model"}],'
        b'"user":{"model":"i"},\n"model":"claude-\xc3\xa9","z":1e2}'
    )
    assert anthropic.rewrite(text, ask, model="auto", max_output_tokens=101) is text


def _rewritten(fields: dict[str, Any], **owned: Any) -> dict[str, Any]:
    text = json.dumps({"model": "m", "messages": MESSAGES, **fields}, indent=1).encode()
    changed: dict[str, Any] = json.loads(openai.rewrite(text, openai.parse(text), **owned))
    return {name: value for name, value in changed.items() if name not in ("model", "messages")}


@pytest.mark.parametrize(
    ("fields", "bound", "expected"),
    [
        ({}, None, {}),
        ({}, 5, {"max_completion_tokens": 5}),
        ({"max_tokens": None}, 5, {"max_tokens": None, "max_completion_tokens": 5}),
        ({"max_tokens": 9}, 5, {"max_tokens": 5}),
        ({"max_tokens": 4}, 5, {"max_tokens": 4}),
        ({"max_completion_tokens": 9, "max_tokens": 3}, 5, {"max_completion_tokens": 5, "max_tokens": 3}),
        ({"stream": True}, None, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": True, "stream_options": None}, None, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}},
            None,
            {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        ),
        (
            {"stream": True, "stream_options": {}},
            5,
            {"stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 5},
        ),
        ({"stream_options": {"include_usage": False}}, None, {"stream_options": {"include_usage": False}}),
    ],
    ids=str,
)
def test_openai_rewrite(fields: dict[str, Any], bound: int | None, expected: dict[str, Any]) -> None:
    """The bound goes into the fields that the client sent, else into max_completion_tokens; a stream always asks for usage."""
    assert _rewritten(fields, max_output_tokens=bound) == expected


def test_openai_rewrite_keeps_the_rest() -> None:
    """F37: a stream that asks for usage and keeps its model goes up as the very object that came."""
    text = b'{"model":"m" ,"stream":true,"stream_options":{ "include_usage" : true },"messages":[]}'
    assert openai.rewrite(text, openai.parse(text), model="m", max_output_tokens=None) is text
    assert openai.rewrite(text, openai.parse(text), model="o") == text.replace(b'"m"', b'"o"')


TEXTS = st.text(max_size=30)


@BOTH
@given(TEXTS, TEXTS, st.sampled_from(["content", "block", "system", "tool_result"]))
def test_more_text_is_never_fewer_tokens(dialect: Dialect, text: str, more: str, place: str) -> None:
    """The count never falls when text is appended, wherever it stands, and is at least a quarter of the text's bytes."""

    def counted(value: str) -> int:
        block: list[dict[str, Any]] = [{"type": "text", "text": value}]
        if place == "tool_result":
            block = [{"type": "tool_result", "content": block}]
        messages = [{"role": "user", "content": value if place == "content" else "" if place == "system" else block}]
        system = {"system": value} if place == "system" else {}
        return dialect.count(json.dumps({"messages": messages, **system}, ensure_ascii=False).encode())

    before, after = counted(text), counted(text + more)
    assert 1 <= before <= after
    if place != "system" or dialect is DIALECTS["anthropic"]:
        assert after - before >= len(more.encode()) // 4 - 1
        assert before >= len(text.encode()) / 4


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}}
OTHERS: Any = {
    "image": (IMAGE, 1_600),
    "image by address": ({"type": "image", "source": {"type": "url", "url": "https://example.com/" + "x" * 4_000}}, 1_600),
    "image part": ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}, 1_600),
    "image in a tool result": ({"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}, 1_600),
    "document": ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 100_000}}, 5_000),
    "named document": ({"type": "document", "source": {"type": "file", "file_id": "file_1"}}, 3_000),
    "file": ({"type": "file", "file": {"file_data": "A" * 100_000}}, 5_000),
    "sound": ({"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}, 100),
    "signature": ({"type": "thinking", "thinking": "", "signature": "A" * 100_000}, 0),
    "redacted thinking": ({"type": "redacted_thinking", "data": "A" * 100_000}, 0),
    "text document": ({"type": "document", "source": {"type": "text", "data": "A" * 4_000}}, 1_000),
}


@BOTH
@pytest.mark.parametrize(("block", "tokens"), OTHERS.values(), ids=list(OTHERS))
def test_sizes_of_what_is_no_text(dialect: Dialect, block: dict[str, Any], tokens: int) -> None:
    """Images, files and sounds have their documented sizes, signatures none, whatever their length on the wire."""
    counted = dialect.count(json.dumps({"messages": [{"role": "user", "content": [block]}]}).encode())
    assert tokens <= counted <= tokens + 60


@BOTH
def test_a_message_of_unknown_shape_counts_as_text(dialect: Dialect) -> None:
    """A message that cannot be understood counts all its bytes, and does not change how the others count."""
    messages = [{"role": "user", "content": [{"type": 7, "text": "A" * 4_000}]}, {"role": "user", "content": [IMAGE]}]
    assert 2_600 <= dialect.count(json.dumps({"messages": messages}).encode()) <= 2_700


def test_tools_are_counted() -> None:
    """Tools and their schemas count as they are written; a count body needs neither model nor bound, and takes odd tools."""
    tool = {"name": "f", "input_schema": {"type": "object", "properties": {"x": {"type": "string", "description": "A" * 4_000}}}}
    without = anthropic.count(b'{"messages":[]}')
    assert without == 1
    assert 1_000 <= anthropic.count(json.dumps({"messages": [], "tools": [tool]}).encode()) <= 1_040
    assert anthropic.count(b'{"messages":[],"tools":"foo"}') == 2


def test_ask_prints_no_text() -> None:
    """The printed form of an ask holds nothing of the messages."""
    ask: Ask = anthropic.parse(body(messages=[{"role": "user", "content": "canary"}]))
    assert "canary" not in repr(ask)


def test_an_array_of_very_many_odd_things_is_counted_as_text() -> None:
    """Whatever stands in `messages` has a count, and none keeps the process busy for long: every byte of such an array counts."""
    odd = b"[" + b"1," * 300_000 + b"1]"
    assert anthropic.count(b'{"model":"m","messages":' + odd + b"}") == -(-len(odd) // 4)
