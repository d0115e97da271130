"""Clients of Anthropic Messages, models behind OpenAI Chat Completions."""

from proxy.translation.anthropic_to_openai.answer import answer
from proxy.translation.anthropic_to_openai.errors import error
from proxy.translation.anthropic_to_openai.request import request
from proxy.translation.anthropic_to_openai.stream import stream

client = "messages"
upstream = "openai"

__all__ = ["answer", "client", "error", "request", "stream", "upstream"]
