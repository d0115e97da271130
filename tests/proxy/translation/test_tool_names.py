"""Names of tools that OpenAI's dialect does not take: shortened on their way up, and themselves again on their way back."""

import json

from proxy.dialects import anthropic
from proxy.dialects.tool_names import short
from proxy.translation import anthropic_to_openai
from tests.proxy.translation.pairs import HELLO, SCHEMA, assistant, result, use, user

LONG = "mcp__a_server_with_quite_a_long_name__and_a_tool_that_has_an_even_longer_one_v2"
TWIN = LONG[:-1] + "3"
ASKED = {
    "model": "m",
    "max_tokens": 9,
    "tools": [{"name": name, "input_schema": SCHEMA} for name in (LONG, TWIN, "plain")],
    "tool_choice": {"type": "tool", "name": TWIN},
    "messages": [user("a"), assistant([use("t1", LONG, city="Rome")]), user([result("t1", "sun")])],
}
BODY = json.dumps(ASKED).encode()


def test_a_long_name_is_shortened_everywhere() -> None:
    """In the tools, the choice and the history alike: 64 characters at most, a different name for each, the short ones untouched."""
    sent = json.loads(anthropic_to_openai.request(BODY, max_output_tokens=9))
    names = [tool["function"]["name"] for tool in sent["tools"]]
    assert [len(name) for name in names] == [64, 64, 5]
    assert len(set(names)) == 3
    assert sent["tool_choice"]["function"]["name"] == names[1]
    assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == names[0]


def _delta(**call: object) -> dict[str, object]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}, "finish_reason": None}]}


def test_the_client_hears_the_name_that_it_gave() -> None:
    """In a whole answer and in a stream; a name that nobody shortened stays as the model says it."""
    ask = anthropic.parse(BODY)
    assert ask.aliases == {short(LONG): LONG, short(TWIN): TWIN}
    calls = [{"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": "{}"}} for place, name in enumerate((short(TWIN), "plain", "other"))]
    whole = {"id": "c", "choices": [{"index": 0, "message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    told = json.loads(anthropic_to_openai.answer(json.dumps(whole).encode(), ask, created_seconds=1))
    assert [block["name"] for block in told["content"]] == [TWIN, "plain", "other"]
    translator = anthropic_to_openai.stream(ask, created_seconds=1)
    chunk = _delta(id="c1", function={"name": short(LONG), "arguments": "{}"})
    written = translator.feed(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n")
    assert f'"name":"{LONG}"'.encode() in written


def test_short_names_cost_nothing() -> None:
    """A request without long names has none to map back; a name in a schema is no tool's, and harms nothing."""
    assert anthropic.parse(json.dumps({"model": "m", "max_tokens": 9, **HELLO}).encode()).aliases == {}
    assert short("x" * 64) == "x" * 64
    assert short("x" * 65) != short("x" * 66)
