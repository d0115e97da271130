"""Clients of OpenAI Responses, models behind OpenAI Chat Completions."""

from proxy.translation.responses_to_openai.answer import answer
from proxy.translation.responses_to_openai.request import request
from proxy.translation.responses_to_openai.stream import stream

client = "responses"
upstream = "openai"

__all__ = ["answer", "client", "error", "request", "stream", "upstream"]


def error(status: int, body: bytes, request_id: str) -> bytes:
    """Give an error body as it is: both APIs have the same."""
    return body
