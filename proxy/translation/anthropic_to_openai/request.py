"""Requests of the Messages API as requests of Chat Completions."""

from typing import Any

import msgspec

from proxy.dialects.base import BadRequest
from proxy.dialects.tool_names import short
from proxy.translation.anthropic_to_openai.blocks import Block
from proxy.translation.anthropic_to_openai.messages import Message, chat_messages, system_message
from proxy.translation.base import read, refused

USER_LIMIT_CHARACTERS = 64
_NOTHING = msgspec.Raw()
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_ELSEWHERE = ("mcp_servers", "container")


class _Tool(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _NOTHING
    strict: bool | None = None


class _Choice(msgspec.Struct):
    type: str = ""
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Format(msgspec.Struct):
    type: str = ""
    schema: msgspec.Raw = _NOTHING


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct):
    user_id: Any = None


class _Request(msgspec.Struct):
    model: str
    max_tokens: int
    messages: list[Message]
    system: str | list[Block] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: int | float | None = None
    top_p: int | float | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    metadata: _Metadata | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    mcp_servers: Any = None
    container: Any = None


def request(body: bytes, *, max_output_tokens: int) -> bytes:
    """Translate a request body; `max_output_tokens` is not needed, for `max_tokens` is always there. Raises BadRequest.

    Usage is always asked for in streams. Left out, because they only advise: thinking and its history, `cache_control`, `top_k`,
    `context_management`, `speed`, and fields that are not known. Refused, because leaving them out would break a promise: tools that the
    provider runs, a region, a stored file, a prefilled answer, `max_tokens: 0`.
    """
    asked = read(body, _Request)
    _refuse(asked)
    translated: dict[str, object] = {"model": asked.model}
    translated["messages"] = system_message(asked.system) + chat_messages(asked.messages)
    if not translated["messages"]:
        raise BadRequest("messages: at least one message is required", "messages")
    translated["max_completion_tokens"] = asked.max_tokens
    plain = {"temperature": asked.temperature, "top_p": asked.top_p, "stop": asked.stop_sequences or None}
    translated.update((name, value) for name, value in plain.items() if value is not None)
    if asked.stream:
        translated["stream"] = True
        translated["stream_options"] = {"include_usage": True}
    if asked.tools:
        translated["tools"] = [_function(tool, f"tools.{place}") for place, tool in enumerate(asked.tools)]
        translated.update(_choice(asked.tool_choice))
    translated.update(_output(asked))
    user = asked.metadata.user_id if asked.metadata else None
    if isinstance(user, str) and 0 < len(user) <= USER_LIMIT_CHARACTERS:
        translated["user"] = user
    if asked.service_tier == "standard_only":
        translated["service_tier"] = "default"
    return msgspec.json.encode(translated)


def _refuse(asked: _Request) -> None:
    for name in _ELSEWHERE:
        if getattr(asked, name):
            raise refused(name, "What the provider runs itself")
    if asked.inference_geo not in (None, "global"):
        raise refused("inference_geo", f"The region `{asked.inference_geo}`")
    if asked.max_tokens < 1:
        raise BadRequest("max_tokens: Input should be greater than or equal to 1 for this model", "max_tokens")


def _function(tool: _Tool, where: str) -> dict[str, object]:
    if tool.type not in (None, "custom"):
        raise refused(where, f"The tool `{tool.name or tool.type}` of type `{tool.type}`")
    function: dict[str, object] = {"name": short(tool.name or "")}
    if tool.description is not None:
        function["description"] = tool.description
    if bytes(tool.input_schema):
        function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: _Choice | None) -> dict[str, object]:
    if choice is None:
        return {}
    translated: dict[str, object] = {}
    if choice.type == "tool":
        translated["tool_choice"] = {"type": "function", "function": {"name": short(choice.name or "")}}
    elif choice.type in _CHOICES:
        translated["tool_choice"] = _CHOICES[choice.type]
    else:
        raise refused("tool_choice", f"The choice `{choice.type}`")
    if choice.disable_parallel_tool_use:
        translated["parallel_tool_calls"] = False
    return translated


def _output(asked: _Request) -> dict[str, object]:
    """Translate effort, whose words are the same in both dialects, and the schema of the answer."""
    translated: dict[str, object] = {}
    config = asked.output_config or _OutputConfig()
    if config.effort is not None:
        translated["reasoning_effort"] = config.effort
    wanted = config.format or asked.output_format
    if wanted is not None:
        if wanted.type != "json_schema" or not bytes(wanted.schema):
            raise refused("output_config.format", f"A format of type `{wanted.type}`")
        schema = {"name": "answer", "schema": wanted.schema, "strict": True}
        translated["response_format"] = {"type": "json_schema", "json_schema": schema}
    return translated
