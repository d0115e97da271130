"""Usage in the words of the other dialect."""

from proxy.dialects.base import Usage


def as_anthropic(usage: Usage) -> dict[str, object]:
    """Write usage as a Messages answer does; `input_tokens` leaves caches out, audio is inside the totals."""
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens + usage.audio_input_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens + usage.audio_output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": "priority" if usage.service_tier in ("priority", "fast") else "standard",
    }


def as_anthropic_delta(usage: Usage) -> dict[str, object]:
    """Write usage as `message_delta` does: totals that replace those of `message_start`."""
    whole = as_anthropic(usage)
    return {name: value for name, value in whole.items() if name not in ("cache_creation", "service_tier")}


def as_openai(usage: Usage) -> dict[str, object]:
    """Write usage as a chat completion does: caches are inside `prompt_tokens`.

    The dialect has no field for the lifetimes of cache writes; they stand beside under Anthropic's names, where Roo Code and others look.
    """
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    prompt = usage.input_tokens + usage.cache_read_tokens + written + usage.audio_input_tokens
    completion = usage.output_tokens + usage.audio_output_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": written,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": usage.audio_output_tokens},
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
    }
