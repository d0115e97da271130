"""OpenAI Chat Completions."""

from proxy.dialects.openai.errors import refuse, response_headers
from proxy.dialects.openai.request import count, parse, request_headers, rewrite
from proxy.dialects.openai.stream import meter
from proxy.dialects.openai.usage import read

name = "openai"
form = "chat"
upstream_path = "/v1/chat/completions"
stream_type = "text/event-stream"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "stream_type", "upstream_path"]
