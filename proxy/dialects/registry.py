"""The wire formats by name."""

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Dialect

DIALECTS: dict[str, Dialect] = {"anthropic": anthropic, "openai": openai}
