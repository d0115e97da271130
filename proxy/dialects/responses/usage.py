"""Usage of the Responses API: what its numbers mean, and what is assumed where they are missing.

Sources: the Responses API reference and the SDK's types (openai 3.x: `ResponseUsage`).
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from proxy.dialects.base import Ask, Reading, Usage
from proxy.dialects.numbers import Unsound, doubtful, part, word
from proxy.dialects.openai.usage import estimated as estimated_completion
from proxy.dialects.openai.usage import reported as reported_completion
from proxy.dialects.text import TextSize

MOST_KEPT = 1_000
"""Of how many items of an answer it is remembered whose they are."""

# What the provider ran beside the model at a price of its own, which no usage tells.
_RUN_ELSEWHERE = frozenset({"code_interpreter_call", "file_search_call", "image_generation_call"})
_NAMES = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200; never raises.

    Without sound usage, input is the counted one and output a quarter of the characters; a failed answer costs only what it reports (F18).
    """
    try:
        response = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        response = None
    output = response.get("output") if isinstance(response, dict) else None
    if not isinstance(output, list):
        return Reading(Usage(), 0, 0, complete=False)
    items = [item for item in output if isinstance(item, dict)]
    text = TextSize()
    delivered = 0
    for item in items:
        for piece in shown(item):
            text.add(piece)
            text.end_line()
        delivered += hidden_characters(item)
    model, tier = word(response.get("model")), word(response.get("service_tier"))
    try:
        usage = reported(response.get("usage"), model, tier)
    except Unsound as fault:
        if response.get("status") == "failed":
            return Reading(Usage(model=model, service_tier=tier), 0, 0, complete=True)
        usage = replace(estimated(None, model, tier, ask, text.characters + delivered), doubtful=doubtful(fault))
    return Reading(replace(beside(usage, items), kept=named(response, items) if ask.kept else ()), text.characters, text.lines, complete=True)


def named(response: dict[str, object], items: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """Give the ids by which later calls may name an answer and its items."""
    ids = (word(each.get("id")) for each in (response, *items[:MOST_KEPT]))
    return tuple(known for known in ids if known is not None)


def beside(usage: Usage, items: Sequence[dict[str, object]]) -> Usage:
    """Add what the provider ran beside the model, as the items of an answer tell it: searches, and what has no price here."""
    searches = sum(item.get("type") == "web_search_call" and searched(item) for item in items)
    return replace(usage, web_searches=searches, doubtful=usage.doubtful or any(map(_ran_elsewhere, items)))


def _ran_elsewhere(item: dict[str, object]) -> bool:
    """Tell whether an item is of something that the provider ran; a shell runs in a container of the provider's or at the client's."""
    kind, place = str(item.get("type")), item.get("environment")
    return kind in _RUN_ELSEWHERE or (kind == "shell_call" and isinstance(place, dict) and place.get("type") != "local")


def searched(item: dict[str, object]) -> bool:
    """Tell whether a web search call searched; opening a page that was found costs nothing."""
    action = item.get("action")
    return item.get("status") != "failed" and (not isinstance(action, dict) or action.get("type") in (None, "search"))


def shown(item: dict[str, object]) -> list[str]:
    """Give the texts of an item that a reader sees: the parts of a message."""
    content = item.get("content")
    parts = [piece for piece in content if isinstance(piece, dict)] if item.get("type") == "message" and isinstance(content, list) else []
    texts = [piece.get("text") or piece.get("refusal") for piece in parts]
    return [text for text in texts if isinstance(text, str)]


def hidden_characters(item: dict[str, object]) -> int:
    """Count the code points of an item that a reader does not see: reasoning, and what is given to tools."""
    texts: list[object] = [item.get("arguments"), item.get("input")]
    for name in ("summary", "content"):
        pieces = item.get(name)
        if item.get("type") == "reasoning" and isinstance(pieces, list):
            texts += [piece.get("text") for piece in pieces if isinstance(piece, dict)]
    return sum(len(text) for text in texts if isinstance(text, str))


def reported(report: object, model: str | None, tier: str | None) -> Usage:
    """Read a report, which has the numbers of a chat completion's under other names; raises Unsound as that does."""
    return reported_completion(_renamed(report), model, tier)


def estimated(report: object, model: str | None, tier: str | None, ask: Ask, delivered_characters: int) -> Usage:
    """Estimate the usage of an answer, as that of a chat completion."""
    return estimated_completion(_renamed(report), model, tier, ask, delivered_characters)


def written(usage: Usage) -> dict[str, object]:
    """Write usage as a report."""
    cache_write = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    given = usage.input_tokens + usage.cache_read_tokens + cache_write + usage.audio_input_tokens
    made = usage.output_tokens + usage.audio_output_tokens
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": cache_write},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": given + made,
    }


def _renamed(report: object) -> object:
    if not isinstance(report, dict):
        return report
    part(report, "input_tokens_details")
    return {_NAMES.get(name, name): value for name, value in report.items()}
