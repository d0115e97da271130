"""Effort and thinking, which tools ask of every model, in requests for models that do not reason."""

import json

import pytest

from models.enums import ModelCapability
from proxy.translation import anthropic_to_openai, openai_to_anthropic
from proxy.translation.fitting import fitted
from tests.proxy.translation.pairs import HELLO, SCHEMA

PLAIN = (ModelCapability.STREAMING, ModelCapability.TOOLS)
CLAUDE_CODE = {"model": "m", "max_tokens": 9, **HELLO, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def test_claude_code_s_effort_goes_only_to_models_that_reason() -> None:
    """`output_config.effort` is `reasoning_effort` for a model that reasons, and nothing for another; all else is the same."""
    sent = anthropic_to_openai.request(json.dumps(CLAUDE_CODE).encode(), max_output_tokens=9)
    assert fitted(sent, (ModelCapability.REASONING,)) is sent
    told = json.loads(sent)
    assert told.pop("reasoning_effort") == "high"
    assert json.loads(fitted(sent, PLAIN)) == told


@pytest.mark.parametrize(
    ("effort", "more", "kept"), [("low", {}, None), ("none", {}, None), ("low", {"response_format": FORMAT}, {"format": {"type": "json_schema", "schema": SCHEMA}})]
)
def test_effort_for_a_model_behind_messages(effort: str, more: dict[str, object], kept: object) -> None:
    """The wish for effort, or for no thinking, is left out; the wish for a schema beside it stays."""
    sent = openai_to_anthropic.request(json.dumps({"model": "m", **HELLO, "reasoning_effort": effort, **more}).encode(), max_output_tokens=9)
    told = json.loads(fitted(sent, PLAIN))
    assert "thinking" not in told
    assert told.get("output_config") == kept
    assert told["max_tokens"] == 9
