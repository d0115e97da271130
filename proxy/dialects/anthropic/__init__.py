"""Anthropic Messages."""

from proxy.dialects.anthropic.errors import refuse, response_headers
from proxy.dialects.anthropic.request import count, parse, request_headers, rewrite
from proxy.dialects.anthropic.stream import meter
from proxy.dialects.anthropic.usage import read

name = "anthropic"
form = "messages"
upstream_path = "/v1/messages"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "upstream_path"]
