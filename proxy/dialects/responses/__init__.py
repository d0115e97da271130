"""OpenAI Responses."""

from proxy.dialects.openai.errors import refuse, response_headers
from proxy.dialects.responses.request import count, parse, request_headers, rewrite
from proxy.dialects.responses.stream import meter
from proxy.dialects.responses.usage import read

name = "openai"
form = "responses"
upstream_path = "/v1/responses"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "upstream_path"]
