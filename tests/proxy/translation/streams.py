"""Hand-written streams of one dialect beside what they are in the other."""

import json
from typing import Any, NamedTuple

from proxy.dialects.base import Ask

ANTHROPIC_ASK = Ask("claude", True, 40, 1000, 1, True, None, None, {})
OPENAI_ASK = Ask("gpt", True, 40, None, 1, True, None, None, {})
QUIET_ASK = Ask("gpt", True, 40, None, 1, False, None, None, {})
CREATED_SECONDS = 1_790_000_000

Event = dict[str, Any]


class Stream(NamedTuple):
    """A stream as the upstream sends it, by its name, and the events or chunks that the client gets."""

    name: str
    sent: bytes
    got: list[Event]


# Chat Completions


def chunk(delta: Event | None = None, finish: str | None = None, **more: object) -> Event:
    """Write a chunk of one choice, or with `delta=None` and no finish one of no choice."""
    choices = [] if delta is None and finish is None else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", "choices": choices, **more}


def calling(index: int, arguments: str = "", identity: str | None = None, name: str | None = None) -> Event:
    """Write a delta of a tool call."""
    head = {} if identity is None else {"id": identity, "type": "function"}
    return {"tool_calls": [{"index": index, **head, "function": {**({} if name is None else {"name": name}), "arguments": arguments}}]}


def chats(*chunks: Event, done: bool = True) -> bytes:
    """Write chunks as they go over the wire."""
    return b"".join(b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in chunks) + (b"data: [DONE]\n\n" if done else b"")


REPORT = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
FIRST = chunk({"role": "assistant", "content": ""})
USAGE = chunk(usage=REPORT)


# Messages

NO_CACHE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
COUNTED = {
    "input_tokens": 40,
    **NO_CACHE,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"thinking_tokens": 0},
    "service_tier": "standard",
}
TOLD = {
    "input_tokens": 30,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 60,
    "output_tokens": 20,
    "output_tokens_details": {"thinking_tokens": 5},
}
PING: Event = {"type": "ping"}
STOP: Event = {"type": "message_stop"}


def started(model: str = "gpt-x", identity: str = "msg_1") -> list[Event]:
    """Write the beginning that every translated stream has."""
    head = {"id": identity, "type": "message", "role": "assistant", "model": model, "content": []}
    message: Event = {**head, "stop_reason": None, "stop_sequence": None}
    return [{"type": "message_start", "message": {**message, "usage": COUNTED}}, PING]


def block(index: int, opened: Event, *deltas: Event) -> list[Event]:
    """Write a block from its start to its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def words(index: int, *pieces: str) -> list[Event]:
    """Write a text block."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def used(index: int, identity: str, *pieces: str, name: str = "weather") -> list[Event]:
    """Write a tool call's block."""
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return block(index, {"type": "tool_use", "id": identity, "name": name, "input": {}}, *deltas)


def ended(reason: str, usage: Event = TOLD) -> list[Event]:
    """Write the end of a message."""
    return [{"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}, STOP]


def failed(message: str, kind: str = "api_error") -> list[Event]:
    """Write the error event."""
    return [{"type": "error", "error": {"type": kind, "message": message}}]


def messages(*events: Event) -> bytes:
    """Write events as they go over the wire."""
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one, ensure_ascii=False)}\n\n".encode() for one in events)


def read_messages(stream: bytes) -> list[Event]:
    """Read a stream of the Messages API; every event's name must be its type."""
    found = []
    for written in stream.decode().split("\n\n"):
        if written and not written.startswith(":"):
            name, data = written.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


def read_chats(stream: bytes) -> list[Event]:
    """Read a stream of Chat Completions; `[DONE]` is an empty chunk."""
    found = []
    for written in stream.decode().split("\n\n"):
        if written and not written.startswith(":"):
            data = written.removeprefix("data: ")
            found.append({} if data == "[DONE]" else json.loads(data))
    return found


CHATS = [
    Stream(
        "text, with an empty first delta and Azure's chunk before it",
        chats({**chunk(), "id": "", "model": ""}, FIRST, chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), USAGE),
        [*started(), *words(0, "Hel", "lo"), *ended("end_turn")],
    ),
    Stream("nothing", chats(FIRST, chunk({}, "stop"), USAGE), [*started(), *ended("end_turn")]),
    Stream("characters of several bytes", chats(chunk({"content": "ü🌍"}), chunk({}, "stop"), USAGE), [*started(), *words(0, "ü🌍"), *ended("end_turn")]),
    Stream(
        "usage on the chunk that finishes, and no [DONE]",
        chats(chunk({"content": "a"}), chunk({}, "length", usage=REPORT), done=False),
        [*started(), *words(0, "a"), *ended("max_tokens")],
    ),
    Stream(
        "usage on every chunk: the last counts",
        chats(chunk({"content": "a"}, usage=None), chunk({}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 1}), USAGE),
        [*started(), *words(0, "a"), *ended("end_turn")],
    ),
    Stream(
        "no usage at all: an estimate",
        chats(chunk({"content": "eight ch"}), chunk({}, "stop")),
        [*started(), *words(0, "eight ch"), *ended("end_turn", {**NO_CACHE, "input_tokens": 40, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 0}})],
    ),
    Stream(
        "reasoning is dropped",
        chats(FIRST, chunk({"reasoning_content": "hm"}), chunk({"content": "a", "reasoning": "x"}), chunk({}, "stop"), USAGE),
        [*started(), *words(0, "a"), *ended("end_turn")],
    ),
    Stream(
        "content in parts",
        chats(chunk({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]}), chunk({}, "stop"), USAGE),
        [*started(), *words(0, "a"), *ended("end_turn")],
    ),
    Stream(
        "a refusal",
        chats(chunk({"refusal": "No"}), chunk({"refusal": "."}), chunk({}, "stop"), USAGE),
        [*started(), *words(0, "No", "."), *ended("refusal")],
    ),
    Stream("a filter", chats(chunk({"content": "a"}), chunk({}, "content_filter"), USAGE), [*started(), *words(0, "a"), *ended("refusal")]),
    Stream(
        "text and then a call, live",
        chats(
            chunk({"content": "I look."}),
            chunk(calling(0, "", "call_1", "weather")),
            chunk(calling(0, '{"city":')),
            chunk(calling(0, '"Rome"}')),
            chunk({}, "tool_calls"),
            USAGE,
        ),
        [*started(), *words(0, "I look."), *used(1, "call_1", '{"city":', '"Rome"}'), *ended("tool_use")],
    ),
    Stream(
        "a call that ends with stop is a call",
        chats(chunk(calling(0, "{}", "call_1", "weather")), chunk({}, "stop"), USAGE),
        [*started(), *used(0, "call_1", "{}"), *ended("tool_use")],
    ),
    Stream(
        "calls one after the other",
        chats(
            chunk(calling(0, '{"a":"}', "call_1", "weather")),
            chunk(calling(0, '\\"{"}')),
            chunk(calling(1, '{"b"', "call_2", "time")),
            chunk(calling(1, ":[{}]}")),
            chunk({}, "tool_calls"),
            USAGE,
        ),
        [*started(), *used(0, "call_1", '{"a":"}', '\\"{"}'), *used(1, "call_2", '{"b"', ":[{}]}", name="time"), *ended("tool_use")],
    ),
    Stream(
        "arguments of parallel calls interleaved: the first is live, the others wait",
        chats(
            chunk(calling(0, "", "call_1", "weather")),
            chunk(calling(1, "", "call_2", "time")),
            chunk(calling(2, "", "call_3", "news")),
            chunk(calling(0, '{"a":')),
            chunk(calling(1, '{"b":')),
            chunk(calling(0, "1}")),
            chunk(calling(2, '{"c":')),
            chunk(calling(2, "3}")),
            chunk(calling(1, "2}")),
            chunk({}, "tool_calls"),
            USAGE,
        ),
        [
            *started(),
            *used(0, "call_1", '{"a":', "1}"),
            *used(1, "call_2", '{"b":', "2}", name="time"),
            *used(2, "call_3", '{"c":3}', name="news"),
            *ended("tool_use"),
        ],
    ),
    Stream(
        "several calls in one chunk, the first without arguments",
        chats(
            chunk({"tool_calls": [calling(0, "", "call_1", "now")["tool_calls"][0], calling(1, "{}", "call_2", "weather")["tool_calls"][0]]}),
            chunk({}, "tool_calls"),
            USAGE,
        ),
        [*started(), *used(0, "call_1", name="now"), *used(1, "call_2", "{}"), *ended("tool_use")],
    ),
    Stream(
        "text between calls is a block of its own",
        chats(
            chunk(calling(0, '{"a":', "call_1", "weather")),
            chunk({"content": "mean"}),
            chunk({"content": "while"}),
            chunk(calling(0, "1}")),
            chunk({"content": "!"}),
            chunk({}, "tool_calls"),
            USAGE,
        ),
        [*started(), *used(0, "call_1", '{"a":', "1}"), *words(1, "meanwhile", "!"), *ended("tool_use")],
    ),
    Stream(
        "every call numbered 0, and none",
        chats(
            chunk(calling(0, "{}", "call_1", "weather")),
            chunk({"tool_calls": [{"id": "call_2", "function": {"name": "time", "arguments": '{"b":2}'}}]}),
            chunk({}, "tool_calls"),
            USAGE,
        ),
        [*started(), *used(0, "call_1", "{}"), *used(1, "call_2", '{"b":2}', name="time"), *ended("tool_use")],
    ),
    Stream(
        "a call without an id, its name late, and an id that Anthropic does not take",
        chats(chunk(calling(0, '{"a":')), chunk(calling(0, "1}", None, "weather")), chunk(calling(1, "{}", "fn.x:1", "time")), chunk({}, "tool_calls"), USAGE),
        [*started(), *used(0, "call_1_0", '{"a":1}'), *used(1, "fn_x_1", "{}", name="time"), *ended("tool_use")],
    ),
    Stream(
        "arguments as an object",
        chats(chunk({"refusal": False, "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": {"a": 1}}}]}), chunk({}, "stop"), USAGE),
        [*started(), *used(0, "call_1", '{"a":1}'), *ended("tool_use")],
    ),
    Stream(
        "an error in the middle",
        chats(FIRST, chunk({"content": "a"}), {"error": {"message": "Slow down.", "type": "x", "code": "rate_limit_exceeded"}}, chunk({"content": "b"})),
        [*started(), *words(0, "a")[:-1], *failed("Slow down.", "rate_limit_error")],
    ),
    Stream(
        "a conversation that is too long",
        chats({"error": {"message": "Maximum context length is 5.", "code": "context_length_exceeded"}}, done=False),
        failed("prompt is too long: Maximum context length is 5."),
    ),
    Stream("cut", chats(FIRST, chunk({"content": "a"}), done=False), [*started(), *words(0, "a")[:-1], *failed("The provider broke off.")]),
    Stream("cut before anything", b"", failed("The provider broke off.")),
    Stream(
        "garbage",
        chats(chunk({"content": "a"}), done=False) + b"data: {oops\n\n" + chats(chunk({"content": "b"})),
        [*started(), *words(0, "a")[:-1], *failed("The provider sent something that cannot be read.")],
    ),
    Stream(
        "more arguments for a call that was over",
        chats(chunk(calling(0, "{}", "call_1", "weather")), chunk(calling(1, "{}", "call_2", "time")), chunk(calling(0, " \n")), chunk(calling(0, '{"a":1}'))),
        [
            *started(),
            *used(0, "call_1", "{}"),
            *used(1, "call_2", "{}", name="time")[:-1],
            *failed("The provider sent more arguments for a tool call that was complete."),
        ],
    ),
    Stream(
        "a call that is never named",
        chats(chunk(calling(0, "{}", "call_1")), chunk({}, "tool_calls"), USAGE),
        [*started(), *failed("The provider sent a tool call without a name.")],
    ),
]


# The other direction

START: Event = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "usage": {
            "input_tokens": 30,
            "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 60,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
            "output_tokens": 1,
        },
    },
}
FULL_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 10,
    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
}


def finished(reason: str) -> list[Event]:
    """Write the end of a message with its cumulative usage."""
    usage = {"output_tokens": 20, "output_tokens_details": {"thinking_tokens": 5}}
    return [{"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}, STOP]


def got(*deltas: Event, reason: str | None = "stop") -> list[Event]:
    """Write the chunks of a whole completion that a client who asked for usage gets."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED_SECONDS, "model": "claude-x"}

    def one(delta: Event, finish: str | None = None) -> Event:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], "usage": None}

    begun = [one({"role": "assistant", "content": "", "refusal": None}), *map(one, deltas)]
    return begun if reason is None else [*begun, one({}, reason), {**head, "choices": [], "usage": FULL_USAGE}, {}]


def opened(index: int, identity: str, name: str = "weather") -> Event:
    """Write the delta that opens a tool call."""
    return {"tool_calls": [{"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": ""}}]}


def argued(index: int, piece: str) -> Event:
    """Write a delta of a tool call's arguments."""
    return {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


MESSAGES = [
    Stream("text", messages(START, PING, *words(0, "Hel", "lo"), *finished("end_turn")), got({"content": "Hel"}, {"content": "lo"})),
    Stream("several text blocks", messages(START, *words(0, "a"), *words(1, "ü🌍"), *finished("end_turn")), got({"content": "a"}, {"content": "ü🌍"})),
    Stream(
        "calls are numbered by themselves; the first delta is empty",
        messages(START, *words(0, "a"), *used(1, "toolu_1", "", '{"a":', "1}"), *used(2, "toolu_2", '{"b":2}', name="time"), *finished("tool_use")),
        got(
            {"content": "a"},
            opened(0, "toolu_1"),
            argued(0, '{"a":'),
            argued(0, "1}"),
            opened(1, "toolu_2", "time"),
            argued(1, '{"b":2}'),
            reason="tool_calls",
        ),
    ),
    Stream(
        "a call without arguments has an empty object",
        messages(START, *used(0, "toolu_1", ""), *finished("tool_use")),
        got(opened(0, "toolu_1"), argued(0, "{}"), reason="tool_calls"),
    ),
    Stream(
        "thinking, its signature and what is unknown are dropped",
        messages(
            START,
            *block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "hm"},
                {"type": "signature_delta", "signature": "sig"},
            ),
            *block(1, {"type": "redacted_thinking", "data": "xx"}),
            {"type": "novelty", "index": "nine", "delta": 5},
            *words(2, "a"),
            *finished("end_turn"),
        ),
        got({"content": "a"}),
    ),
    *(
        Stream(f"ended by {reason}", messages(START, *words(0, "a"), *finished(reason)), got({"content": "a"}, reason=finish))
        for reason, finish in (
            ("stop_sequence", "stop"),
            ("pause_turn", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("refusal", "content_filter"),
            ("unheard_of", "stop"),
        )
    ),
    Stream("no message_stop", messages(START, *words(0, "a"), finished("end_turn")[0]), got({"content": "a"})),
    Stream(
        "an error in the middle",
        messages(START, *words(0, "a"), *failed("Overloaded", "overloaded_error"), *words(1, "b")),
        [
            *got({"content": "a"}, reason=None),
            {"error": {"message": "Overloaded", "type": "server_error", "param": None, "code": "overloaded"}},
        ],
    ),
    Stream(
        "cut",
        messages(START, *words(0, "a")),
        [
            *got({"content": "a"}, reason=None),
            {"error": {"message": "The provider broke off.", "type": "server_error", "param": None, "code": None}},
        ],
    ),
    Stream(
        "garbage",
        messages(START) + b"data: {oops\n\n" + messages(*words(0, "b")),
        [
            *got(reason=None),
            {"error": {"message": "The provider sent something that cannot be read.", "type": "server_error", "param": None, "code": None}},
        ],
    ),
]
