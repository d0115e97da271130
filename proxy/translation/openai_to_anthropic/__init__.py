"""Clients of OpenAI Chat Completions, models behind Anthropic Messages."""

from proxy.translation.openai_to_anthropic.answer import answer
from proxy.translation.openai_to_anthropic.errors import error
from proxy.translation.openai_to_anthropic.request import request
from proxy.translation.openai_to_anthropic.stream import stream

client = "chat"
upstream = "anthropic"

__all__ = ["answer", "client", "error", "request", "stream", "upstream"]
