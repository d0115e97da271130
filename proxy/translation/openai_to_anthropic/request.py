"""Requests of Chat Completions as requests of the Messages API."""

from typing import Any

import msgspec

from proxy.dialects.base import BadRequest
from proxy.dialects.bodies import identity
from proxy.translation.base import read, refused
from proxy.translation.openai_to_anthropic.parts import is_given
from proxy.translation.openai_to_anthropic.turns import ChatMessage, conversation

LARGEST_TEMPERATURE = 1
_NOTHING = msgspec.Raw()
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_EFFORTS = {"minimal": "low"}
_NO_PARAMETERS = msgspec.Raw(b'{"type":"object","properties":{}}')
_TIERS = {"default": "standard_only"}
_REFUSED = ("logprobs", "top_logprobs", "logit_bias", "audio", "functions", "function_call", "web_search_options", "moderation")


class _Function(msgspec.Struct):
    name: str = ""
    description: str | None = None
    parameters: dict[str, msgspec.Raw] | None = None
    strict: bool | None = None
    cache_control: msgspec.Raw = _NOTHING


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None
    custom: Any = None
    cache_control: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct):
    type: str = ""
    function: _Function | None = None


class _Schema(msgspec.Struct):
    schema: msgspec.Raw = _NOTHING


class _Format(msgspec.Struct):
    type: str = ""
    json_schema: _Schema | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    temperature: int | float | None = None
    top_p: int | float | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    safety_identifier: str | None = None
    user: str | None = None
    service_tier: str | None = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None
    moderation: Any = None


def request(body: bytes, *, max_output_tokens: int) -> bytes:
    """Translate a request body; `max_output_tokens` is the bound when the client named none, for one is required. Raises BadRequest.

    With two bounds the larger is taken. A temperature above 1 becomes 1, the largest there. `reasoning_effort` becomes
    `output_config.effort` and never switches thinking on, whose blocks a client of this dialect could not send back; `none` switches it
    off. Left out, because they only advise: penalties, `seed`, `prediction`, `verbosity`, `store`, `metadata`, cache keys, tiers other than
    `default`. Refused, because leaving them out would break a promise: more than one choice, log probabilities, `json_object`, tools that
    the provider runs or whose input has a grammar, audio, stored files, the older `functions`.
    """
    asked = read(body, _Request)
    _refuse(asked)
    system, turns = conversation(asked.messages)
    if not turns:
        raise BadRequest("messages: at least one message that is not empty and not of the system is required", "messages")
    bounds = [bound for bound in (asked.max_completion_tokens, asked.max_tokens) if bound is not None]
    translated: dict[str, object] = {"model": asked.model, "max_tokens": max(bounds, default=max_output_tokens)}
    if asked.tools:
        translated["tools"] = [_tool(tool, f"tools.{place}") for place, tool in enumerate(asked.tools)]
        translated.update(_choice(asked))
    if system:
        translated["system"] = system
    translated["messages"] = turns
    if asked.stop:
        translated["stop_sequences"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if asked.temperature is not None:
        translated["temperature"] = min(asked.temperature, LARGEST_TEMPERATURE)
    if asked.top_p is not None:
        translated["top_p"] = asked.top_p
    if asked.stream:
        translated["stream"] = True
    translated.update(_output(asked))
    user = identity(asked.safety_identifier) or identity(asked.user)
    if user:
        translated["metadata"] = {"user_id": user}
    if asked.service_tier in _TIERS:
        translated["service_tier"] = _TIERS[asked.service_tier]
    return msgspec.json.encode(translated)


def _refuse(asked: _Request) -> None:
    if asked.n not in (None, 1):
        raise refused("n", "More than one choice")
    for name in _REFUSED:
        if getattr(asked, name):
            raise refused(name, f"The field `{name}`")
    other = set(asked.modalities or ()) - {"text"}
    if other:
        raise refused("modalities", f"The modality `{min(other)}`")


def _tool(tool: _Tool, where: str) -> dict[str, object]:
    function = tool.function
    if tool.type != "function" or function is None:
        name = tool.custom.get("name") if isinstance(tool.custom, dict) else None
        raise refused(where, f"The tool `{name or tool.type}` of type `{tool.type}`")
    translated: dict[str, object] = {"name": function.name}
    if function.description is not None:
        translated["description"] = function.description
    schema = function.parameters
    if schema and "type" not in schema:
        schema = {"type": msgspec.Raw(b'"object"'), **schema}
    translated["input_schema"] = schema or _NO_PARAMETERS
    if function.strict is not None:
        translated["strict"] = function.strict
    mark = next((mark for mark in (tool.cache_control, function.cache_control) if is_given(mark)), None)
    return {**translated, "cache_control": mark} if mark is not None else translated


def _choice(asked: _Request) -> dict[str, object]:
    choice = asked.tool_choice
    translated: dict[str, object] = {}
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise refused("tool_choice", f"The choice `{choice}`")
        translated["type"] = _CHOICES[choice]
    elif choice is not None:
        if choice.type != "function" or choice.function is None:
            raise refused("tool_choice", f"The choice `{choice.type}`")
        translated.update(type="tool", name=choice.function.name)
    if asked.parallel_tool_calls is False and translated.get("type") != "none":
        translated = {"type": "auto", **translated, "disable_parallel_tool_use": True}
    return {"tool_choice": translated} if translated else {}


def _output(asked: _Request) -> dict[str, object]:
    translated: dict[str, object] = {}
    config: dict[str, object] = {}
    if asked.reasoning_effort == "none":
        translated["thinking"] = {"type": "disabled"}
    elif asked.reasoning_effort:
        config["effort"] = _EFFORTS.get(asked.reasoning_effort, asked.reasoning_effort)
    wanted = asked.response_format
    if wanted is not None and wanted.type != "text":
        if wanted.type != "json_schema" or wanted.json_schema is None or not is_given(wanted.json_schema.schema):
            raise refused("response_format", f"A format of type `{wanted.type}` without a schema")
        config["format"] = {"type": "json_schema", "schema": wanted.json_schema.schema}
    return {**translated, "output_config": config} if config else translated
