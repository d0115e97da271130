"""Why an answer of the Messages API ended, in the words of Chat Completions."""

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def finish_reason(stop_reason: str | None) -> str:
    """Give the finish reason; an unknown one is `stop`."""
    return _REASONS.get(stop_reason or "end_turn", "stop")
