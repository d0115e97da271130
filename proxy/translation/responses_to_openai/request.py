"""Requests of the Responses API as requests of Chat Completions."""

from typing import Any

import msgspec

from proxy import splice
from proxy.dialects.base import BadRequest
from proxy.dialects.tool_names import inside
from proxy.translation.base import read, refused
from proxy.translation.responses_to_openai.items import Item, messages_of

_NOTHING = msgspec.Raw()
_SAME = ("temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier", "service_tier", "prompt_cache_key", "stream")
_WEB_SEARCH = "web_search"
"""Its versions have a date behind it."""
_LOGPROBS = "message.output_text.logprobs"


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Format(msgspec.Struct):
    type: str = ""
    name: str | None = None
    schema: msgspec.Raw = _NOTHING
    strict: bool | None = None
    description: str | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Tool(msgspec.Struct):
    type: str = ""
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = _NOTHING
    strict: bool | None = None
    format: msgspec.Raw = _NOTHING
    function: msgspec.Raw = _NOTHING
    tools: list["_Tool"] = []


class _Choice(msgspec.Struct):
    type: str = ""
    name: str | None = None
    namespace: str | None = None
    function: msgspec.Raw = _NOTHING


class _Request(msgspec.Struct):
    model: str
    input: str | list[Item] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    stream_options: Any = None
    temperature: Any = None
    top_p: Any = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: _Reasoning | None = None
    text: _Text | None = None
    include: list[str] | None = None
    metadata: Any = None
    user: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    previous_response_id: Any = None
    top_logprobs: Any = None


def request(body: bytes, *, max_output_tokens: int) -> bytes:
    """Translate a request body. Raises BadRequest, naming the place, for what Chat Completions cannot express.

    Left out, because they only advise: `store`, `truncation`, `max_tool_calls`, what is to be included of encrypted reasoning, and reasoning
    itself; and a web search that no choice asks for, because Codex offers one to every model. Refused, because leaving them out would break
    a promise: `previous_response_id`, for this provider keeps no answers; other tools that the provider runs; log probabilities; files and
    items that lie at the provider.
    """
    asked = read(body, _Request)
    translated = _translated(asked)
    if asked.stream:
        translated["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(translated)


def as_chat(body: bytes) -> bytes:
    """Give a request that Cursor sends to `/chat/completions` in the shape of the Responses API as one of Chat Completions.

    One with `messages`, or that is no JSON object, comes back as it was. Raises BadRequest as `request` does.
    """
    try:
        found = splice.fields(body)
    except splice.NotAnObject:
        return body
    if "messages" in found or "input" not in found:
        return body
    asked = read(body, _Request)
    translated = _translated(asked)
    if asked.stream_options is not None:
        translated["stream_options"] = asked.stream_options
    kept = ("max_tokens", "max_completion_tokens", "stop", "n", "seed", "frequency_penalty", "presence_penalty")
    as_written = {name: msgspec.Raw(body[span.start : span.end]) for name in kept if (span := found.get(name)) is not None}
    return msgspec.json.encode({**as_written, **translated})


def _translated(asked: _Request) -> dict[str, Any]:
    if asked.previous_response_id:
        message = "previous_response_id: this model's provider keeps no answers; send the whole conversation as `input`"
        raise BadRequest(message, "previous_response_id")
    if asked.top_logprobs or _LOGPROBS in (asked.include or ()):
        raise refused("top_logprobs", "Log probabilities")
    messages = messages_of(asked.input, asked.instructions)
    if not messages:
        raise BadRequest("input: Field required", "input")
    translated: dict[str, Any] = {"model": asked.model, "messages": messages}
    translated.update((name, value) for name in _SAME if (value := getattr(asked, name)) is not None)
    if asked.max_output_tokens is not None:
        translated["max_completion_tokens"] = asked.max_output_tokens
    if asked.tools:
        translated["tools"] = [said for place, tool in enumerate(asked.tools) for said in _said(tool, f"tools.{place}")]
        translated.update(_choice(asked.tool_choice))
    if not translated.get("tools"):
        if asked.tool_choice == "required":
            raise refused("tool_choice", "A choice among tools that the provider runs")
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            translated.pop(name, None)
    if asked.reasoning is not None and asked.reasoning.effort:
        translated["reasoning_effort"] = asked.reasoning.effort
    translated.update(_output(asked.text or _Text()))
    return translated


def _said(tool: _Tool, where: str) -> list[dict[str, Any]]:
    """Give the tools that stand for one: those of a namespace by names of their own, none for a web search."""
    if tool.type == "namespace":
        named = ((place, each, inside(tool.name or "", each.name or "")) for place, each in enumerate(tool.tools))
        return [_tool(msgspec.structs.replace(each, name=name), f"{where}.tools.{place}") for place, each, name in named]
    if tool.type.startswith(_WEB_SEARCH):
        return []
    return [_tool(tool, where)]


def _tool(tool: _Tool, where: str) -> dict[str, Any]:
    if bytes(tool.function):
        return {"type": tool.type, "function": tool.function}
    described: dict[str, Any] = {"name": tool.name or "", **({} if tool.description is None else {"description": tool.description})}
    if tool.type == "custom":
        return {"type": "custom", "custom": {**described, **({"format": tool.format} if bytes(tool.format) else {})}}
    if tool.type != "function":
        raise refused(where, f"The tool `{tool.name or tool.type}` of type `{tool.type}`")
    if bytes(tool.parameters) not in (b"", b"null"):
        described["parameters"] = tool.parameters
    if tool.strict is not None:
        described["strict"] = tool.strict
    return {"type": "function", "function": described}


def _choice(choice: str | _Choice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if isinstance(choice, str):
        return {"tool_choice": choice}
    if bytes(choice.function):
        return {"tool_choice": {"type": choice.type, "function": choice.function}}
    if choice.type not in ("function", "custom"):
        raise refused("tool_choice", f"The choice `{choice.type}`")
    name = inside(choice.namespace, choice.name or "") if choice.namespace else choice.name or ""
    return {"tool_choice": {"type": choice.type, choice.type: {"name": name}}}


def _output(text: _Text) -> dict[str, Any]:
    translated: dict[str, Any] = {}
    if text.verbosity:
        translated["verbosity"] = text.verbosity
    wanted = text.format
    if wanted is not None and wanted.type == "json_schema":
        schema: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema}
        more = {"strict": wanted.strict, "description": wanted.description}
        schema.update((name, value) for name, value in more.items() if value is not None)
        translated["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted is not None and wanted.type == "json_object":
        translated["response_format"] = {"type": "json_object"}
    elif wanted is not None and wanted.type not in ("", "text"):
        raise refused("text.format", f"A format of type `{wanted.type}`")
    return translated
