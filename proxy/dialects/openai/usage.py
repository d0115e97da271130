"""Usage of the Chat Completions API: what its numbers mean, and what is assumed where they are missing.

Sources: the Chat Completions API reference and the SDK's types (openai 2.x: `CompletionUsage`).
"""

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from models.enums import Bucket
from proxy.dialects.base import COUNT_LIMIT, Ask, Reading, Usage
from proxy.dialects.counting import output_tokens
from proxy.dialects.numbers import Unsound, count, doubtful, part, word
from proxy.dialects.text import TextSize

PICO: Final = 10**12
DEAREST_USD: Final = 1000
"""No call costs a thousand dollars; more is nonsense, and not believed."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_LIMIT)]


class _OfPrompt(msgspec.Struct, forbid_unknown_fields=True):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _OfCompletion(msgspec.Struct, forbid_unknown_fields=True):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class _PlainReport(msgspec.Struct, forbid_unknown_fields=True):
    """A report as OpenAI writes it, without anything that needs a second thought."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count = 0
    prompt_tokens_details: _OfPrompt | None = None
    completion_tokens_details: _OfCompletion | None = None


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str
    refusal: None = None
    annotations: Annotated[list[Any], msgspec.Meta(max_length=0)] = []


class _PlainChoice(msgspec.Struct):
    message: _PlainMessage


class _PlainAnswer(msgspec.Struct):
    """An answer of texts alone, as nearly all are: one look at its bytes tells all that is needed."""

    choices: list[_PlainChoice]
    usage: _PlainReport
    model: str
    service_tier: str | None = None


_PLAIN_ANSWER = msgspec.json.Decoder(_PlainAnswer)


def _read_plain(answer: _PlainAnswer, ask: Ask) -> Reading | None:
    report, model = answer.usage, word(answer.model)
    prompt, output = report.prompt_tokens, report.completion_tokens
    of_prompt, of_completion = report.prompt_tokens_details, report.completion_tokens_details
    cached = reasoning = 0
    if of_prompt is not None:
        cached = of_prompt.cached_tokens or 0
        if cached > prompt or of_prompt.audio_tokens or of_prompt.cache_write_tokens:
            return None
    if of_completion is not None:
        reasoning = of_completion.reasoning_tokens or 0
        if of_completion.audio_tokens:
            return None
    if report.total_tokens > prompt + output or model is None:
        return None
    usage = Usage(
        input_tokens=prompt - cached,
        cache_read_tokens=cached,
        output_tokens=output,
        reasoning_tokens=min(reasoning, output),
        model=model,
        service_tier=word(answer.service_tier),
        reported=True,
    )
    characters = lines = 0
    for choice in answer.choices:
        content = choice.message.content
        if content:
            characters += len(content)
            lines += content.count("\n") + (content[-1] != "\n")
    return Reading(searched(usage, ask), characters, lines, True)


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200; never raises.

    Without sound usage, input is the counted one and output a quarter of the characters; without choices, nothing.
    """
    try:
        plain = _read_plain(_PLAIN_ANSWER.decode(body), ask)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        plain = None
    if plain is not None:
        return plain
    text = TextSize()
    delivered = 0
    try:
        completion = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        completion = None
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list):
        return Reading(Usage(), 0, 0, complete=False)
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            for piece in shown(message):
                text.add(piece)
            text.end_line()
            delivered += hidden_characters(message)
    model, tier = word(completion.get("model")), word(completion.get("service_tier"))
    try:
        usage = reported(completion.get("usage"), model, tier)
    except Unsound as fault:
        usage = replace(estimated(None, model, tier, ask, text.characters + delivered), doubtful=doubtful(fault))
    return Reading(searched(usage, ask), text.characters, text.lines, complete=True)


def shown(message: dict[str, object]) -> list[str]:
    """Give the pieces of text in a message or a delta that a reader sees: content, refusal, transcript."""
    content = message.get("content")
    parts = [piece.get("text") for piece in content if isinstance(piece, dict)] if isinstance(content, list) else [content]
    audio = message.get("audio")
    found = [*parts, message.get("refusal"), audio.get("transcript") if isinstance(audio, dict) else None]
    return [piece for piece in found if isinstance(piece, str)]


def hidden_characters(message: dict[str, object]) -> int:
    """Count the code points of a message or a delta that a reader does not see: reasoning, and arguments of calls."""
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [function.get("arguments") for function in [*functions, message.get("function_call")] if isinstance(function, dict)]
    texts.append(message.get("reasoning_content") or message.get("reasoning"))
    return sum(len(piece) for piece in texts if isinstance(piece, str))


def reported(report: object, model: str | None, tier: str | None) -> Usage:
    """Read a report. Raises Unsound when it is none, or input or output is missing, and Nonsense when a number is no count.

    Cached, written and audio tokens are inside `prompt_tokens`; reasoning, rejected predictions, images and audio inside
    `completion_tokens`. Details that exceed their total are cut to it, so that the buckets add up to it. Vendors differ: DeepSeek names
    cache reads `prompt_cache_hit_tokens`; xAI and Gemini leave reasoning out of `completion_tokens`, and only `total_tokens` has it; what
    OpenRouter calls `cost` is the operator's bill, and no usage (see `billed`). Writes that OpenAI keeps for half an
    hour stand under 5m, those that it keeps for twelve hours under 1h. Tokens of images that were made have no bucket: a doubtful report.
    """
    if not isinstance(report, dict) or report.get("prompt_tokens") is None or report.get("completion_tokens") is None:
        raise Unsound("usage")
    prompt, completion = count(report, "prompt_tokens"), count(report, "completion_tokens")
    of_prompt, of_completion = part(report, "prompt_tokens_details"), part(report, "completion_tokens_details")
    cache_read = min(max(count(of_prompt, "cached_tokens"), count(report, "prompt_cache_hit_tokens")), prompt)
    cache_write = min(count(of_prompt, "cache_write_tokens"), prompt - cache_read)
    long_lived = min(count(part(of_prompt, "cache_write_tokens_details"), "ttl_12h_tokens"), cache_write)
    audio_input = min(count(of_prompt, "audio_tokens"), prompt - cache_read - cache_write)
    audio_output = min(count(of_completion, "audio_tokens"), completion)
    left_out = max(count(report, "total_tokens") - prompt - completion, 0)
    output = completion - audio_output + left_out
    return Usage(
        input_tokens=prompt - cache_read - cache_write - audio_input,
        cache_read_tokens=cache_read,
        cache_write_5m_tokens=cache_write - long_lived,
        cache_write_1h_tokens=long_lived,
        output_tokens=output,
        reasoning_tokens=min(max(count(of_completion, "reasoning_tokens"), left_out), output),
        audio_input_tokens=audio_input,
        audio_output_tokens=audio_output,
        web_searches=count(part(report, "server_tool_use"), "web_search_requests") or count(report, "num_search_queries"),
        seconds=count(report, "prompt_audio_seconds") if type(report.get("prompt_audio_seconds")) is int else 0,
        model=model,
        service_tier=tier,
        reported=True,
        doubtful=count(of_completion, "image_tokens") > 0,
        cost_picousd=billed(report),
    )


def billed(report: dict[str, object]) -> int | None:
    """Read what the provider says that it bills the operator, in picodollars; None where it says nothing that can be a bill.

    OpenRouter tells dollars as `cost`, and the part of it that the model's provider took as `cost_details.upstream_inference_cost`: they are one bill, and
    add up only where the operator's own key paid that provider (`is_byok`), beside OpenRouter's fee (F15).
    Source: OpenRouter's usage accounting.
    """
    cost = _picousd(report.get("cost"))
    if cost is not None and report.get("is_byok") is True:
        details = report.get("cost_details")
        return cost + (_picousd(details.get("upstream_inference_cost")) or 0) if isinstance(details, dict) else cost
    return cost


def _picousd(value: object) -> int | None:
    """Read dollars; the shortest decimal of a JSON number is what was written."""
    if type(value) not in (int, float):
        return None
    dollars = Decimal(repr(value))
    return int((dollars * PICO).to_integral_value()) if dollars.is_finite() and 0 <= dollars <= DEAREST_USD else None


def estimated(report: object, model: str | None, tier: str | None, ask: Ask, delivered_characters: int) -> Usage:
    """Estimate the usage of an answer: input as a report so far says, or counted; output the larger of what was said and delivered."""
    output = output_tokens(delivered_characters)
    if report is None:  # as in nearly every look at a stream
        return Usage(input_tokens=ask.input_tokens, output_tokens=output, model=model, service_tier=tier)
    try:
        usage = reported(report, model, tier)
    except Unsound:
        usage = Usage(input_tokens=ask.input_tokens, model=model, service_tier=tier)
    return replace(usage, output_tokens=max(usage.output_tokens, output), reported=False)


def searched(usage: Usage, ask: Ask) -> Usage:
    """Add the search that was asked for with the call, where the report tells of none."""
    asked = ask.besides.get(Bucket.WEB_SEARCHES, 0) if ask.besides else 0
    return replace(usage, web_searches=asked) if asked and not usage.web_searches else usage


def written(usage: Usage) -> dict[str, int]:
    """Write usage as a report, for a stream that the gateway ends itself."""
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_5m_tokens + usage.cache_write_1h_tokens + usage.audio_input_tokens
    completion = usage.output_tokens + usage.audio_output_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
