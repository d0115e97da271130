"""Why a chat completion ended, in the words of the Messages API."""

_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def stop_reason(finish_reason: str | None, *, called: bool, refused: bool) -> str:
    """Give the stop reason; an unknown one is `end_turn`.

    A server that was told which tool to call, and many others, say `stop` after a call: a call is `tool_use` nevertheless. Which stop
    sequence ended the text is not told, so none is claimed.
    """
    reason = _REASONS.get(finish_reason or "stop", "end_turn")
    if reason != "end_turn":
        return reason
    if called:
        return "tool_use"
    return "refusal" if refused else reason
