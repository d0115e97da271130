"""Conversations as the tools were recorded to send them, turn by turn: key order, block order and cache breakpoints are theirs."""

import json
import re
from collections.abc import Callable
from typing import Any

from proxy import splice

Json = dict[str, Any]
TURNS = 5
EPHEMERAL = {"type": "ephemeral"}
ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.330.a1b; cc_entrypoint=sdk-cli; cch=00000;"


def written(value: object) -> bytes:
    """Write JSON as the tools do: compact, text unescaped."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def tool(name: str, **more: object) -> Json:
    """Give a tool of the Messages API."""
    schema = {"type": "object", "properties": {"path": {"type": "string", "description": f"What {name} works on: \"C:\\…\""}}, "required": ["path"]}
    return {"name": name, "description": f"{name} does one thing.\nSee https://example.com/?a=1&b=2.", "input_schema": schema, **more}


def anthropic_turns(first: list[Json], turn: int) -> list[Json]:
    """Give the messages of a turn: the first ones, then for each turn before this one a call of a tool and its result."""
    messages = [*first]
    for number in range(turn):
        call: Json = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"path": f"src/ünï{number}.py"}}
        thinking = {"type": "thinking", "thinking": "Look first.", "signature": f"EqRk/+{number}=="}
        messages.append({"role": "assistant", "content": [thinking, {"type": "text", "text": f"Step {number}."}, call]})
        result = {"tool_use_id": f"toolu_{number}", "type": "tool_result", "content": f"1\tdef f{number}():\n2\t    return \"</x>\""}
        messages.append({"role": "user", "content": [result]})
    return messages


def with_breakpoint(message: Json) -> Json:
    """Put a cache breakpoint on a message's last block."""
    *before, last = message["content"]
    return {**message, "content": [*before, {**last, "cache_control": EPHEMERAL}]}


def claude_code(turn: int) -> bytes:
    """Claude Code 2.1.330: an attribution block, breakpoints on two system blocks and the last message, an environment in role system."""
    first = [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>\nCLAUDE.md says <tallygate-preset is a word.\n</system-reminder>"}]},
        {"role": "system", "content": [{"type": "text", "text": "Working directory: /srv/app\nPlatform: linux"}]},
        {"role": "user", "content": [{"type": "text", "text": "Fix the test."}]},
    ]
    *before, last = anthropic_turns(first, turn)
    system = [
        {"type": "text", "text": ATTRIBUTION},
        {"type": "text", "text": "You are an agent.", "cache_control": EPHEMERAL},
        {"type": "text", "text": "Long instructions.\n" * 400, "cache_control": EPHEMERAL},
    ]
    user = {"device_id": "d" * 64, "account_uuid": "", "session_id": "0c1d2e3f"}
    return written(
        {
            "model": "claude-opus-5-5",
            "messages": [*before, with_breakpoint(last)],
            "system": system,
            "tools": [tool(name) for name in ("Agent", "Bash", "Edit", "Glob", "Grep", "Read", "Skill", "TodoWrite", "WebFetch", "WebSearch", "Write", "Task")],
            "metadata": {"user_id": json.dumps(user)},
            "max_tokens": 128000,
            "thinking": {"type": "adaptive", "display": "omitted"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"},
            "stream": True,
        }
    )


def cline(turn: int) -> bytes:
    """Cline 3.0.65 (AI SDK): a server tool first, eager input streaming, one breakpoint on the last text of the user."""
    first = [{"role": "user", "content": [{"type": "text", "text": "<task>Fix the test.</task>", "cache_control": EPHEMERAL}]}]
    names = ("read_files", "search_codebase", "run_commands", "editor", "apply_patch")
    return written(
        {
            "model": "claude-opus-5-5",
            "max_tokens": 4096,
            "system": [{"type": "text", "text": "You are Cline.\n" * 300}],
            "messages": anthropic_turns(first, turn),
            "tools": [
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
                *(tool(name, eager_input_streaming=True) for name in names),
            ],
            "tool_choice": {"type": "auto"},
            "stream": True,
        }
    )


def roo_code(turn: int) -> bytes:
    """Roo Code: temperature 0, breakpoints on the system block and on the last two messages of the user."""
    messages = anthropic_turns([{"role": "user", "content": [{"type": "text", "text": "Fix the test."}]}], turn)
    asked = [number for number, message in enumerate(messages) if message["role"] == "user"][-2:]
    return written(
        {
            "model": "claude-sonnet-5-5",
            "max_tokens": 8192,
            "temperature": 0,
            "system": [{"text": "You are Roo.\n" * 300, "type": "text", "cache_control": EPHEMERAL}],
            "messages": [with_breakpoint(message) if number in asked else message for number, message in enumerate(messages)],
            "stream": True,
            "tools": [tool(name) for name in ("read_file", "apply_diff", "write_to_file", "execute_command", "attempt_completion")],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
        }
    )


def sdk_text(turn: int) -> bytes:
    """A program of one's own: the system prompt is a string."""
    messages = anthropic_turns([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], turn)
    return written({"max_tokens": 1024, "messages": messages, "model": "claude-opus-5-5", "system": "Be \"brief\".\nAlways."})


def sdk_bare(turn: int) -> bytes:
    """A program of one's own: there is no system prompt."""
    messages = anthropic_turns([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], turn)
    return written({"max_tokens": 1024, "messages": messages, "model": "claude-opus-5-5"})


def cursor_chat(turn: int) -> bytes:
    """Cursor's override of the OpenAI address, in the shape of Chat Completions."""
    messages: list[Json] = [{"role": "system", "content": "You are an agent in an editor.\n" * 300}, {"role": "user", "content": "Fix the test."}]
    for number in range(turn):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "read_file", "arguments": f'{{"path":"a{number}.py"}}'}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": f"def f{number}(): ..."})
    function = {"name": "read_file", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}}
    options = {"include_usage": True}
    return written({"model": "gpt-5.5", "messages": messages, "stream": True, "stream_options": options, "tools": [{"type": "function", "function": function}]})


def cursor_input(turn: int) -> bytes:
    """Cursor's override of the OpenAI address, in the shape of the Responses API, which it sends to /chat/completions all the same."""
    items: list[Json] = [{"role": "system", "content": "You are an agent in an editor.\n" * 300}, {"role": "user", "content": "Fix the test."}]
    for number in range(turn):
        items.append({"type": "function_call", "call_id": f"call_{number}", "name": "read_file", "arguments": f'{{"path":"a{number}.py"}}'})
        items.append({"type": "function_call_output", "call_id": f"call_{number}", "output": f"def f{number}(): ..."})
    more = {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "medium"}, "text": {"verbosity": "low"}}
    return written({"model": "gpt-5.5", "input": items, "stream": True, "stream_options": {"include_usage": True}, **more})


MESSAGES_API: dict[str, Callable[[int], bytes]] = {
    "claudecode": claude_code,
    "cline": cline,
    "roocode": roo_code,
    "text": sdk_text,
    "bare": sdk_bare,
}
OPENAI: dict[str, Callable[[int], bytes]] = {"chat": cursor_chat, "input": cursor_input}


def prompt(body: bytes) -> bytes:
    """Give what a provider makes a prompt of, in its order (tools, system, messages), as the bytes that stand in the body.

    Breakpoints are no part of a prompt, and what closes an array is none either.
    """
    spans = splice.fields(body)
    parts = [body[spans[name].start : spans[name].end].removesuffix(b"]") for name in ("tools", "system", "messages", "input") if name in spans]
    return re.sub(rb',"cache_control":\{"type":"ephemeral"\}', b"", b"\n".join(parts))
