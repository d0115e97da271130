"""Hand-written requests of one dialect beside what they are in the other, and the small words to write them with."""

from typing import Any, NamedTuple

PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="
PICTURE: dict[str, Any] = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
PICTURE_PART: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
EPHEMERAL = {"type": "ephemeral"}
LONG_LIVED = {"type": "ephemeral", "ttl": "1h"}


class Pair(NamedTuple):
    """One thing a client may ask, by its name: fields beside the usual ones, and what becomes of them."""

    name: str
    asked: dict[str, Any]
    sent: dict[str, Any]


def text(words: str, **more: object) -> dict[str, Any]:
    """Write a text, which is the same in both dialects."""
    return {"type": "text", "text": words, **more}


def user(content: object) -> dict[str, Any]:
    """Write a user's message."""
    return {"role": "user", "content": content}


def assistant(content: object, **more: object) -> dict[str, Any]:
    """Write an assistant's message."""
    return {"role": "assistant", "content": content, **more}


def system(content: object) -> dict[str, Any]:
    """Write a system message."""
    return {"role": "system", "content": content}


def use(identity: str, name: str = "weather", **given: object) -> dict[str, Any]:
    """Write a tool call of the Messages API."""
    return {"type": "tool_use", "id": identity, "name": name, "input": given}


def result(identity: str, content: object = None, **more: object) -> dict[str, Any]:
    """Write a tool's result of the Messages API."""
    return {"type": "tool_result", "tool_use_id": identity, **({} if content is None else {"content": content}), **more}


def call(identity: str, arguments: str, name: str = "weather") -> dict[str, Any]:
    """Write a tool call of Chat Completions."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(identity: str, content: object, **more: object) -> dict[str, Any]:
    """Write a tool's message of Chat Completions."""
    return {"role": "tool", "tool_call_id": identity, "content": content, **more}


HELLO = {"messages": [user("Hello")]}
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}}

TO_OPENAI = [
    Pair("a text", {"messages": [user("Grüße 🌍")]}, {"messages": [user("Grüße 🌍")]}),
    Pair("one block is a plain text", {"messages": [user([text("a")])]}, {"messages": [user("a")]}),
    Pair("several text blocks stay apart", {"messages": [user([text("a"), text("b")])]}, {"messages": [user([text("a"), text("b")])]}),
    Pair("a system prompt", {**HELLO, "system": "Be brief."}, {"messages": [system("Be brief."), user("Hello")]}),
    Pair(
        "system blocks, without Claude Code's attribution",
        {**HELLO, "system": [text("x-anthropic-billing-header: cc_version=2.1.330;"), text("a", cache_control=EPHEMERAL), text("b")]},
        {"messages": [system([text("a"), text("b")]), user("Hello")]},
    ),
    Pair(
        "a system message in between stays where it is",
        {"system": "first", "messages": [user("a"), system("now be brief"), assistant("b"), user([text("c")]), system([text("end")])]},
        {"messages": [system("first"), user("a"), system("now be brief"), assistant("b"), user("c"), system("end")]},
    ),
    Pair("an image", {"messages": [user([text("see"), PICTURE])]}, {"messages": [user([text("see"), PICTURE_PART])]}),
    Pair(
        "an image by address",
        {"messages": [user([{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}])]},
        {"messages": [user([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])]},
    ),
    Pair(
        "documents",
        {
            "messages": [
                user(
                    [
                        {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
                        {"type": "document", "source": {"type": "content", "content": [text("inner"), PICTURE]}},
                    ]
                )
            ]
        },
        {
            "messages": [
                user(
                    [
                        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
                        text("plain"),
                        text("inner"),
                        PICTURE_PART,
                    ]
                )
            ]
        },
    ),
    Pair(
        "thinking is dropped, with its signature",
        {
            "thinking": {"type": "adaptive"},
            "messages": [
                user("a"),
                assistant([{"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "redacted_thinking", "data": "xx"}, text("b")]),
                user("c"),
            ],
        },
        {"messages": [user("a"), assistant("b"), user("c")]},
    ),
    Pair(
        "a turn of nothing but thinking is no turn",
        {"messages": [user("a"), assistant([{"type": "thinking", "thinking": "hm", "signature": "sig"}]), user("c")]},
        {"messages": [user("a"), user("c")]},
    ),
    Pair(
        "parallel calls, and results that come before the user's words",
        {
            "messages": [
                user("a"),
                assistant([text("Looking."), use("t1", city="Rome"), use("t2")]),
                user([result("t1", "sun"), result("t2", [text("rain"), text("wind")]), text("and?")]),
            ]
        },
        {
            "messages": [
                user("a"),
                assistant("Looking.", tool_calls=[call("t1", '{"city": "Rome"}'), call("t2", "{}")]),
                tool("t1", "sun"),
                tool("t2", [text("rain"), text("wind")]),
                user("and?"),
            ]
        },
    ),
    Pair(
        "an image in a result goes into the message after it",
        {"messages": [user("a"), assistant([use("t1"), use("t2")]), user([result("t1", [text("shot"), PICTURE]), result("t2", [PICTURE])])]},
        {
            "messages": [
                user("a"),
                assistant(None, tool_calls=[call("t1", "{}"), call("t2", "{}")]),
                tool("t1", "shot"),
                tool("t2", "The result is in the message below."),
                user(
                    [
                        text("From the result of the tool call t1:"),
                        PICTURE_PART,
                        text("From the result of the tool call t2:"),
                        PICTURE_PART,
                    ]
                ),
            ]
        },
    ),
    Pair(
        "empty results",
        {"messages": [user("a"), assistant([use("t1"), use("t2")]), user([result("t1"), result("t2", "", is_error=True)])]},
        {"messages": [user("a"), assistant(None, tool_calls=[call("t1", "{}"), call("t2", "{}")]), tool("t1", ""), tool("t2", "The tool failed.")]},
    ),
    Pair(
        "tools, without what only caching needs",
        {**HELLO, "tools": [{**TOOL, "cache_control": EPHEMERAL, "eager_input_streaming": True}, {"name": "now", "type": "custom", "input_schema": {}}]},
        {**HELLO, "tools": [FUNCTION, {"type": "function", "function": {"name": "now", "parameters": {}}}]},
    ),
    Pair("no tools", {**HELLO, "tools": [], "tool_choice": {"type": "auto"}}, HELLO),
    *(
        Pair(f"tool choice {asked}", {**HELLO, "tools": [TOOL], "tool_choice": asked}, {**HELLO, "tools": [FUNCTION], **sent})
        for asked, sent in (
            ({"type": "auto"}, {"tool_choice": "auto"}),
            ({"type": "any"}, {"tool_choice": "required"}),
            ({"type": "none"}, {"tool_choice": "none"}),
            ({"type": "tool", "name": "weather"}, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
            ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
            ({"type": "any", "disable_parallel_tool_use": False}, {"tool_choice": "required"}),
        )
    ),
    Pair(
        "sampling and stops, without what only advises",
        {**HELLO, "temperature": 0.5, "top_p": 1, "stop_sequences": ["END"], "top_k": 5, "context_management": {"edits": []}, "speed": "fast"},
        {**HELLO, "temperature": 0.5, "top_p": 1, "stop": ["END"]},
    ),
    Pair("effort", {**HELLO, "output_config": {"effort": "xhigh"}}, {**HELLO, "reasoning_effort": "xhigh"}),
    Pair(
        "an answer with a schema",
        {**HELLO, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {**HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}},
    ),
    Pair("a user", {**HELLO, "metadata": {"user_id": "u-1"}}, {**HELLO, "user": "u-1"}),
    Pair("a user longer than OpenAI takes", {**HELLO, "metadata": {"user_id": "u" * 65}}, HELLO),
    Pair("a tier", {**HELLO, "service_tier": "standard_only"}, {**HELLO, "service_tier": "default"}),
    Pair("a stream", {**HELLO, "stream": True}, {**HELLO, "stream": True, "stream_options": {"include_usage": True}}),
]

SAID_HELLO = {"messages": [user([text("Hello")])]}

TO_ANTHROPIC = [
    Pair("a text", {"messages": [user("Grüße 🌍")]}, {"messages": [user([text("Grüße 🌍")])]}),
    Pair(
        "system and developer messages, wherever they stand",
        {
            "messages": [
                system("a"),
                {"role": "developer", "content": [text("b", cache_control=LONG_LIVED)]},
                user("c"),
                system("d"),
                assistant("e"),
                user("f"),
            ]
        },
        {
            "system": [text("a"), text("b", cache_control=LONG_LIVED), text("d")],
            "messages": [user([text("c")]), assistant([text("e")]), user([text("f")])],
        },
    ),
    Pair(
        "images, without how closely to look",
        {
            "messages": [
                user([text("see"), {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}}]),
                user([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]),
            ]
        },
        {"messages": [user([text("see"), PICTURE, {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}])]},
    ),
    Pair(
        "a PDF",
        {"messages": [user([{"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}])]},
        {
            "messages": [
                user([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}, "title": "a.pdf"}])
            ]
        },
    ),
    Pair(
        "marks for caching stay with their blocks",
        {"messages": [user([text("a", cache_control=EPHEMERAL), {**PICTURE_PART, "cache_control": LONG_LIVED}]), {**user("b"), "cache_control": EPHEMERAL}]},
        {
            "messages": [
                user([text("a", cache_control=EPHEMERAL), {**PICTURE, "cache_control": LONG_LIVED}, text("b", cache_control=EPHEMERAL)]),
            ]
        },
    ),
    Pair(
        "results of tools are one turn, first in it, right after the calls",
        {
            "messages": [
                user("a"),
                assistant("Looking.", tool_calls=[call("t1", '{"city": "Rome"}'), call("t2", "")]),
                tool("t1", "sun"),
                tool("t2", [text("rain")]),
                user("and?"),
            ]
        },
        {
            "messages": [
                user([text("a")]),
                assistant([text("Looking."), use("t1", city="Rome"), use("t2")]),
                user([result("t1", "sun"), result("t2", [text("rain")]), text("and?")]),
            ]
        },
    ),
    Pair(
        "a mark inside a result moves to the result",
        {"messages": [user("a"), assistant(None, tool_calls=[call("t1", "{}")]), tool("t1", [text("x", cache_control=EPHEMERAL), text("y")])]},
        {"messages": [user([text("a")]), assistant([use("t1")]), user([result("t1", [text("x"), text("y")], cache_control=EPHEMERAL)])]},
    ),
    Pair(
        "an image in a result, as some clients send it",
        {"messages": [user("a"), assistant(None, tool_calls=[call("t1", "{}")]), tool("t1", [PICTURE_PART])]},
        {"messages": [user([text("a")]), assistant([use("t1")]), user([result("t1", [PICTURE])])]},
    ),
    Pair(
        "ids that Anthropic does not take, and arguments that are no JSON",
        {"messages": [user("a"), assistant("", tool_calls=[call("functions.weather:0", '{"city": "Ro')]), tool("functions.weather:0", "?")]},
        {
            "messages": [
                user([text("a")]),
                assistant([use("functions_weather_0", INVALID_JSON='{"city": "Ro')]),
                user([result("functions_weather_0", "?")]),
            ]
        },
    ),
    Pair(
        "refusals are words",
        {"messages": [user("a"), assistant(None, refusal="No."), user("b"), assistant([{"type": "refusal", "refusal": "Still no."}]), user("c")]},
        {"messages": [user([text("a")]), assistant([text("No.")]), user([text("b")]), assistant([text("Still no.")]), user([text("c")])]},
    ),
    Pair(
        "tools",
        {
            **HELLO,
            "tools": [
                {**FUNCTION, "cache_control": EPHEMERAL},
                {"type": "function", "function": {"name": "now", "strict": True}},
                {"type": "function", "function": {"name": "any", "parameters": {"properties": {}}}},
            ],
        },
        {
            **SAID_HELLO,
            "tools": [
                {**TOOL, "cache_control": EPHEMERAL},
                {"name": "now", "input_schema": {"type": "object", "properties": {}}, "strict": True},
                {"name": "any", "input_schema": {"type": "object", "properties": {}}},
            ],
        },
    ),
    *(
        Pair(f"tool choice {asked}", {**HELLO, "tools": [FUNCTION], **asked}, {**SAID_HELLO, "tools": [TOOL], **sent})
        for asked, sent in (
            ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
            ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
            ({"tool_choice": "none", "parallel_tool_calls": False}, {"tool_choice": {"type": "none"}}),
            ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"tool_choice": {"type": "tool", "name": "weather"}}),
            ({"parallel_tool_calls": False}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
            ({"tool_choice": "required", "parallel_tool_calls": False}, {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
            ({"parallel_tool_calls": True}, {}),
        )
    ),
    Pair("the larger bound", {**HELLO, "max_tokens": 10, "max_completion_tokens": 20}, {**SAID_HELLO, "max_tokens": 20}),
    Pair("a stop", {**HELLO, "stop": "END"}, {**SAID_HELLO, "stop_sequences": ["END"]}),
    Pair("stops", {**HELLO, "stop": ["a", "b"]}, {**SAID_HELLO, "stop_sequences": ["a", "b"]}),
    Pair("sampling", {**HELLO, "temperature": 0, "top_p": 0.9}, {**SAID_HELLO, "temperature": 0, "top_p": 0.9}),
    Pair("a temperature above the largest", {**HELLO, "temperature": 1.7}, {**SAID_HELLO, "temperature": 1}),
    Pair("effort", {**HELLO, "reasoning_effort": "high"}, {**SAID_HELLO, "output_config": {"effort": "high"}}),
    Pair("the least effort", {**HELLO, "reasoning_effort": "minimal"}, {**SAID_HELLO, "output_config": {"effort": "low"}}),
    Pair("no effort", {**HELLO, "reasoning_effort": "none"}, {**SAID_HELLO, "thinking": {"type": "disabled"}}),
    Pair(
        "an answer with a schema",
        {**HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}}},
        {**SAID_HELLO, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    Pair("an answer of text", {**HELLO, "response_format": {"type": "text"}}, SAID_HELLO),
    Pair("a user", {**HELLO, "user": "u-1"}, {**SAID_HELLO, "metadata": {"user_id": "u-1"}}),
    Pair(
        "a user longer than Anthropic takes",
        {**HELLO, "user": "u" * 256},
        {**SAID_HELLO, "metadata": {"user_id": "sha256:eeea0b989db6a9440839f6b7aace67ddd53bc773d6c42b81404a48acb1626307"}},
    ),
    Pair("the newer name of a user", {**HELLO, "user": "u-1", "safety_identifier": "s-1"}, {**SAID_HELLO, "metadata": {"user_id": "s-1"}}),
    Pair("a stream", {**HELLO, "stream": True, "stream_options": {"include_usage": True}}, {**SAID_HELLO, "stream": True}),
    Pair(
        "what only advises",
        {**HELLO, "n": 1, "seed": 1, "frequency_penalty": 0.5, "logit_bias": {}, "logprobs": False, "store": True, "service_tier": "flex"},
        SAID_HELLO,
    ),
]
