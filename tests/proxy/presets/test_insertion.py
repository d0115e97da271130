"""How a preset enters a request: exactly there, exactly once, with every byte of the client kept."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import splice
from proxy.dialects import anthropic, openai
from proxy.dialects.base import Ask, BadRequest
from proxy.presets.insertion import added_tokens, apply
from proxy.presets.registry import load
from tests.proxy.presets.conversations import ATTRIBUTION, EPHEMERAL, MESSAGES_API, OPENAI, TURNS, prompt

VERSION = load()["claudecode"].current
BLOCK = {"type": "text", "text": VERSION.text}
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
Json = dict[str, Any]

spellings: st.SearchStrategy[Json] = st.builds(
    dict, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1, "\t"]), separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", " :\t ")])
)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8)
texts = st.text(max_size=20) | st.sampled_from([ATTRIBUTION, " " + ATTRIBUTION, "a <tallygate-preset b", "tallygate-preset"])
blocks = st.fixed_dictionaries({"type": st.just("text"), "text": texts}, optional={"cache_control": st.just(EPHEMERAL)}) | st.dictionaries(
    st.sampled_from(["type", "text", "content", "x"]), scalars, max_size=3
)
systems = scalars | st.lists(blocks | scalars, max_size=3) | st.dictionaries(st.just("a"), scalars)
roles = scalars | st.sampled_from(["system", "developer"])
elements = st.dictionaries(st.sampled_from(["role", "content", "x"]), roles, max_size=3) | scalars
others = st.dictionaries(st.sampled_from(["a", "é", 'q"\\', "tools", "metadata"]), scalars | st.lists(scalars, max_size=2), max_size=3)


def body_of(fields: Json, **spelling: Any) -> bytes:
    """Write a body."""
    return json.dumps(fields, **({"separators": (",", ":")} | spelling)).encode()


def asked(body: bytes) -> Ask:
    """Give an `Ask` of a body whatever its dialect: only its fields' places matter here."""
    return Ask("m", False, 7, None, 1, True, None, None, splice.fields(body))


def expected_system(system: Any) -> Any:
    """Say what becomes of a decoded system prompt; the absent one is None as well."""
    if system is None or system == "":
        return [BLOCK]
    if isinstance(system, str):
        return [BLOCK, {"type": "text", "text": system}]
    if not isinstance(system, list):
        return system
    first = system[0] if system else None
    text = first.get("text") if isinstance(first, dict) else None
    after = isinstance(text, str) and text.startswith(ATTRIBUTION[:27])
    return [first, BLOCK, *system[1:]] if after else [BLOCK, *system]


def is_insertion(before: bytes, after: bytes, pieces: tuple[bytes, ...]) -> bool:
    """Tell whether a text is another one with a piece put in at one place."""
    length = len(after) - len(before)
    at = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    return any(before[:k] + after[k + length :] == before and after[k : k + length] in pieces for k in range(max(0, at - length), at + 1))


@given(others, systems, st.booleans(), st.integers(0, 3), spellings)
def test_a_block_is_inserted_and_nothing_else_changes(rest: Json, system: Any, absent: bool, place: int, spelling: Json) -> None:
    """F37: whatever the system prompt and the spelling, the result reads as defined, and outside the insertion no byte differs."""
    items = [*rest.items(), ("model", "m"), ("messages", MESSAGES)]
    if not absent:
        items.insert(place, ("system", system))
    before = body_of(dict(items), **spelling)
    after, ask = apply(VERSION, "anthropic", before, asked(before))
    wanted = expected_system(None if absent else system)
    assert json.loads(after) == dict(items) | ({"system": wanted} if absent or wanted != system else {})
    assert list(json.loads(after)) == list(dict(items) | {"system": wanted})
    assert ask.spans == splice.fields(after)
    assert list(ask.spans) == list(splice.fields(after))
    if after == before:
        assert ask.input_tokens == 7
    elif absent:
        end = max(span.end for span in splice.fields(before).values())
        assert after == before[:end] + b',"system":[' + VERSION.block + b"]" + before[end:]
    else:
        span = splice.fields(before)["system"]
        assert after.startswith(before[: span.start])
        assert after.endswith(before[span.end :])
        value, new = before[span.start : span.end], after[span.start : len(after) - len(before) + span.end]
        if system in (None, ""):
            assert new == b"[" + VERSION.block + b"]"
        elif isinstance(system, str):
            assert new == b"[" + VERSION.block + b',{"type":"text","text":' + value + b"}]"
        else:
            assert is_insertion(value, new, (VERSION.block, VERSION.block + b",", b"," + VERSION.block))
    assert ask.input_tokens == 7 + (0 if after == before else VERSION.tokens)


@given(others, st.lists(elements, max_size=4), st.sampled_from(["messages", "input"]), spellings)
def test_a_message_is_inserted_and_nothing_else_changes(rest: Json, messages: list[Any], name: str, spelling: Json) -> None:
    """F37: in the OpenAI dialect a first message, or item, goes before the client's own; outside it no byte differs."""
    fields = {**rest, name: messages, "z": 1}
    before = body_of(fields, **spelling)
    after, ask = apply(VERSION, "openai", before, asked(before))
    role = json.loads(after)[name][0]["role"]
    assert role in ("system", "developer")
    assert json.loads(after) == {**fields, name: [{"role": role, "content": VERSION.text}, *messages]}
    assert ask.spans == splice.fields(after)
    message = msgspec.json.encode({"role": role, "content": VERSION.text})
    assert is_insertion(before, after, (message + (b"," if messages else b""),))


@pytest.mark.parametrize(
    ("first", "role"),
    [
        ({"role": "system", "content": "S"}, "system"),
        ({"role": "developer", "content": "D"}, "developer"),
        ({"role": "developer", "content": [{"type": "text", "text": "D"}]}, "developer"),
        ({"role": "user", "content": "U"}, "system"),
        ({"role": 7}, "system"),
    ],
)
def test_the_role_is_the_clients(first: Json, role: str) -> None:
    """A client that speaks as developer gets a developer message, for models that take no system message beside one."""
    before = body_of({"model": "m", "messages": [first]})
    after, _ = apply(VERSION, "openai", before, asked(before))
    assert json.loads(after)["messages"] == [{"role": role, "content": VERSION.text}, first]


def test_an_input_that_is_a_string_becomes_a_list() -> None:
    """The Responses API takes a text for its input: it follows the preset as the user's message."""
    before = rb'{"model":"m","input" : "Hi \"\u00e9" }'
    after, ask = apply(VERSION, "openai", before, asked(before))
    message = b'{"role":"system","content":' + VERSION.content + b"}"
    assert after == rb'{"model":"m","input" : [' + message + rb',{"role":"user","content":"Hi \"\u00e9"}] }'
    assert ask.spans == splice.fields(after)


@pytest.mark.parametrize("value", ["7", "true", '{"a":1}', '"text"'])
@pytest.mark.parametrize("name", ["system", "messages"])
def test_a_shape_that_the_upstream_refuses_is_left_to_it(name: str, value: str) -> None:
    """What is no system prompt, or no list of messages, passes as it is; the very same objects come back."""
    if (name, value) == ("system", '"text"'):
        value = "false"
    body = f'{{"model":"m","{name}":{value}}}'.encode()
    ask = asked(body)
    after, told = apply(VERSION, "anthropic" if name == "system" else "openai", body, ask)
    assert after is body
    assert told is ask


def test_empty_system_prompts_make_no_empty_block() -> None:
    """null, an empty text and an empty list become the preset alone: a provider refuses empty text blocks."""
    for system in (b"null", b'""', b"[]", b"[ \n ]"):
        body = b'{"model":"m","max_tokens":1,"system":' + system + b',"messages":[]}'
        after, _ = apply(VERSION, "anthropic", body, anthropic.parse(body))
        assert json.loads(after)["system"] == [BLOCK]


def test_the_attribution_block_stays_first_and_alone() -> None:
    """The preset follows the block that the provider takes out by its position; anywhere else such a text is a text like others."""
    for system, place in (
        ([{"type": "text", "text": ATTRIBUTION}], 1),
        ([{"text": ATTRIBUTION, "type": "text"}, {"type": "text", "text": "A"}], 1),
        ([{"type": "text", "text": "A"}, {"type": "text", "text": ATTRIBUTION}], 0),
        ([{"type": "text", "text": "\n" + ATTRIBUTION}], 0),
        ([{"type": "image", "source": {}}], 0),
    ):
        body = body_of({"model": "m", "max_tokens": 1, "messages": MESSAGES, "system": system})
        after, _ = apply(VERSION, "anthropic", body, anthropic.parse(body))
        wanted: list[Any] = [*system]
        wanted.insert(place, BLOCK)
        assert json.loads(after)["system"] == wanted


def test_a_field_named_twice_never_comes_so_far() -> None:
    """Two readers of a doubled `system` would disagree; such a body is refused when it is read."""
    with pytest.raises(BadRequest):
        anthropic.parse(b'{"model":"m","max_tokens":1,"messages":[],"system":"a","system":"b"}')


# Gateways behind one another.


@pytest.mark.parametrize("name", MESSAGES_API)
def test_a_second_gateway_adds_nothing(name: str) -> None:
    """What has a preset, of whatever version, gets no other one, and its count none either."""
    body = MESSAGES_API[name](2)
    once, ask = apply(load()["cline"].current, "anthropic", body, anthropic.parse(body))
    assert added_tokens(VERSION, "anthropic", body, splice.fields(body)) == VERSION.tokens
    assert apply(VERSION, "anthropic", once, ask) == (once, ask)
    assert added_tokens(VERSION, "anthropic", once, splice.fields(once)) == 0


@pytest.mark.parametrize("name", OPENAI)
def test_a_second_gateway_adds_no_message(name: str) -> None:
    """The same in the OpenAI dialect."""
    body = OPENAI[name](2)
    once, ask = apply(VERSION, "openai", body, asked(body))
    assert apply(VERSION, "openai", once, ask) == (once, ask)


@pytest.mark.parametrize(
    "system",
    [
        f"{ATTRIBUTION}\n{VERSION.text}",
        [{"type": "text", "text": f"All in one.\n{VERSION.text}\nMore."}],
        [{"type": "text", "text": "A"}, {"type": "text", "text": VERSION.text.replace("@1", "@9")}],
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_the_mark_is_found_however_it_came(system: Any, escaped: bool) -> None:
    """A gateway between may have joined blocks, or written `<` as an escape: the mark at the beginning of a line is still found."""
    body = body_of({"model": "m", "max_tokens": 1, "system": system, "messages": MESSAGES})
    body = body.replace(b"<", rb"\u003c") if escaped else body
    assert apply(VERSION, "anthropic", body, anthropic.parse(body))[0] is body
    content = system if isinstance(system, str) else [{"type": "text", "text": "A"}, *system]
    chat = body_of({"model": "m", "messages": [{"role": "system", "content": "B"}, {"role": "system", "content": content}, *MESSAGES]})
    assert apply(VERSION, "openai", chat, openai.parse(chat))[0] is chat


def test_a_text_that_speaks_of_the_mark_is_not_marked() -> None:
    """A mark in the middle of a line, in a message of the user, or after the first instructions hinders nothing."""
    quoted = f"Say `{VERSION.text}`"
    body = body_of({"model": "m", "max_tokens": 1, "system": quoted, "messages": [{"role": "user", "content": VERSION.text}]})
    assert json.loads(apply(VERSION, "anthropic", body, anthropic.parse(body))[0])["system"][0] == BLOCK
    messages = [*MESSAGES, {"role": "assistant", "content": None}, {"role": "system", "content": VERSION.text}, {"role": "user", "content": VERSION.text}]
    chat = body_of({"model": "m", "messages": messages})
    assert len(json.loads(apply(VERSION, "openai", chat, openai.parse(chat))[0])["messages"]) == 5


# Prompt caching.


@pytest.mark.parametrize(("dialect", "turns"), [*(("anthropic", turns) for turns in MESSAGES_API.values()), *(("openai", turns) for turns in OPENAI.values())])
def test_a_turn_is_the_beginning_of_the_next(dialect: str, turns: Callable[[int], bytes]) -> None:
    """What a turn's prompt is made of is, byte for byte, the beginning of the next turn's, as it was without a preset: caches go on hitting."""
    plain = [turns(turn) for turn in range(TURNS)]
    served = [apply(VERSION, dialect, body, asked(body))[0] for body in plain]
    for bodies in (plain, served):
        prompts = [prompt(body) for body in bodies]
        assert all(later.startswith(earlier) and len(later) > len(earlier) for earlier, later in itertools.pairwise(prompts))
    assert all(VERSION.content in body for body in served)
    assert [body.count(b'"cache_control"') for body in served] == [body.count(b'"cache_control"') for body in plain]


@pytest.mark.parametrize("name", ["claudecode", "roocode"])
def test_the_clients_breakpoints_cover_the_preset(name: str) -> None:
    """In every turn the preset stands before the first breakpoint of the system prompt, and that prompt's bytes are the same in every turn."""
    systems = set()
    for turn in range(TURNS):
        body = MESSAGES_API[name](turn)
        after, ask = apply(VERSION, "anthropic", body, anthropic.parse(body))
        span = ask.spans["system"]
        systems.add(after[span.start : span.end])
        for field in ("tools", "messages"):
            old, new = splice.fields(body)[field], ask.spans[field]
            assert after[new.start : new.end] == body[old.start : old.end]
    (system,) = systems
    assert system.index(VERSION.block) < system.index(b'"cache_control"')


@pytest.mark.parametrize("name", MESSAGES_API)
def test_the_count_is_the_one_of_the_new_body(name: str) -> None:
    """The tokens told for the new body are what reading it anew would count, but for the brackets that a list of one's own needs."""
    body = MESSAGES_API[name](3)
    after, ask = apply(VERSION, "anthropic", body, anthropic.parse(body))
    again = anthropic.parse(after)
    assert 0 <= again.input_tokens - ask.input_tokens + 1 <= 9
    assert (again.spans, again.model, again.max_output_tokens) == (ask.spans, ask.model, ask.max_output_tokens)


def test_a_rewrite_follows_an_insertion() -> None:
    """The new body and its `Ask` go together: model and bound are then rewritten in place."""
    body = MESSAGES_API["claudecode"](1)
    after, ask = apply(VERSION, "anthropic", body, anthropic.parse(body))
    final = anthropic.rewrite(after, ask, model="claude-x", max_output_tokens=5)
    assert final == after.replace(b'"model":"claude-opus-5-5"', b'"model":"claude-x"').replace(b'"max_tokens":128000', b'"max_tokens":5')
