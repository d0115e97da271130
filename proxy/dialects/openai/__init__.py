"""OpenAI Chat Completions."""

from proxy.dialects.openai.errors import refuse, response_headers
from proxy.dialects.openai.request import count, parse, request_headers, rewrite
from proxy.dialects.openai.stream import meter
from proxy.dialects.openai.usage import read

name = "openai"
form = "chat"
upstream_path = "/v1/chat/completions"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "upstream_path"]
