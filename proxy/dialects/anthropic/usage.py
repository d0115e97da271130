"""Usage of the Messages API: what its numbers mean, and what is assumed where they are missing.

Sources: the Messages API reference and the SDK's types (anthropic 2.x: `Usage`, `MessageDeltaUsage`, `BetaIterationsUsage`).
"""

import msgspec
from msgspec.structs import replace

from proxy.dialects.base import Ask, Reading, Usage
from proxy.dialects.counting import output_tokens
from proxy.dialects.numbers import Nonsense, Unsound, count, doubtful, part, word
from proxy.dialects.text import TextSize

FAST = "fast"
"""What an answer says of its speed when it was made in fast mode, which has prices of its own; and the service tier of those prices."""
_TOOLS = ("web_search_requests", "web_fetch_requests")
"""What tools of the provider's are counted by that has a bucket, or is free."""


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200; never raises.

    Without sound usage, input is what the report or else our count says, and output a quarter of the characters; without content, nothing.
    """
    text = TextSize()
    delivered = 0
    searches = 0
    try:
        message = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        message = None
    blocks = message.get("content") if isinstance(message, dict) else None
    if not isinstance(blocks, list):
        return Reading(Usage(), 0, 0, complete=False)
    for block in blocks:
        if not isinstance(block, dict):
            continue
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            text.add(block["text"])
            text.end_line()
        elif isinstance(block.get("thinking"), str):
            delivered += len(block["thinking"])
        elif isinstance(block.get("input"), dict):
            delivered += len(msgspec.json.encode(block["input"]).decode())
        searches += block.get("name") == "web_search" and block.get("type") == "server_tool_use"
    delivered += text.characters
    report = message.get("usage")
    model = word(message.get("model"))
    try:
        usage = reported(report if isinstance(report, dict) else {}, model)
        if message.get("stop_reason") == "refusal" and not delivered:
            usage = uncharged(usage)
    except Unsound as fault:
        usage = replace(estimated(report if isinstance(report, dict) else {}, model, ask, delivered, searches), doubtful=doubtful(fault))
    container = word(container_of(message.get("container")))
    return Reading(usage if container is None else replace(usage, kept=(container,)), text.characters, text.lines, complete=True)


def container_of(told: object) -> object:
    """Give what stands for the id of a container, which answers write in an object, and requests alone as well."""
    return told.get("id") if isinstance(told, dict) else told


def merge(report: dict[str, object], later: object) -> None:
    """Bring a report up to date with a later one of its stream: each field that is not null replaces, 0 too, nothing adds (F10, F11)."""
    if isinstance(later, dict):
        report.update((name, value) for name, value in later.items() if value is not None)


def reported(report: dict[str, object], model: str | None) -> Usage:
    """Read a final report. Raises Unsound when input or output is missing, and Nonsense when a number is no count.

    `speed: fast` is a service tier of its own. Code that the provider ran, and tools and iterations that are not known, have no bucket: a doubtful
    report. What the top level does not hold is added: every `compaction` iteration to its buckets, every `advisor_message` under its own model; a
    `fallback_message` names the model that the whole is priced by.
    """
    if report.get("input_tokens") is None or report.get("output_tokens") is None:
        raise Unsound("usage")
    usage = _buckets(report, model)
    iterations = report.get("iterations")
    others: list[Usage] = []
    for entry in iterations if isinstance(iterations, list) else ():
        if not isinstance(entry, dict):
            raise Nonsense("iterations")
        match entry.get("type"):
            case "compaction":
                usage = _sum(usage, _buckets(entry, None))
            case "advisor_message":
                others.append(replace(_buckets(entry, word(entry.get("model"))), reported=True))
            case "fallback_message":
                usage = replace(usage, model=word(entry.get("model")) or usage.model)
            case "message":
                pass
            case _:
                usage = replace(usage, doubtful=True)
    return replace(usage, reported=True, others=tuple(others))


def estimated(report: dict[str, object], model: str | None, ask: Ask, delivered_characters: int, searches: int) -> Usage:
    """Estimate the usage of a broken stream: input and cache as its start said, output the larger of what was said and what was delivered.

    Without a sound start the input is the counted one. Anthropic's own gateway bills this way.
    """
    try:
        usage = _buckets({name: value for name, value in report.items() if name != "output_tokens"}, model)
        if report.get("input_tokens") is None:
            raise Unsound("input_tokens")
    except Unsound:
        usage = Usage(input_tokens=ask.input_tokens, model=model)
    try:
        said = count(report, "output_tokens")
    except Unsound:
        said = 0
    output = max(said, output_tokens(delivered_characters))
    return replace(
        usage,
        output_tokens=output,
        reasoning_tokens=min(usage.reasoning_tokens, output),
        web_searches=max(usage.web_searches, searches),
        reported=False,
    )


def uncharged(usage: Usage) -> Usage:
    """Give the usage of a refusal without content: the report has numbers, Anthropic charges none of them."""
    return Usage(model=usage.model, service_tier=usage.service_tier, geography=usage.geography, speed=usage.speed, reported=usage.reported)


def _buckets(report: dict[str, object], model: str | None) -> Usage:
    split = part(report, "cache_creation")
    write_5m = count(split, "ephemeral_5m_input_tokens")
    write_1h = count(split, "ephemeral_1h_input_tokens")
    # Only the first event of a stream splits cache writes by lifetime; later totals are larger, and what is not said to be 1h is 5m.
    # A total below the split wins as well: the buckets never hold more than the total (F10), and doubt is not charged at the dearer rate.
    if report.get("cache_creation_input_tokens") is not None:
        total = count(report, "cache_creation_input_tokens")
        write_5m = total - write_1h if total >= write_5m + write_1h else min(write_5m, total)
        write_1h = total - write_5m
    output = count(report, "output_tokens")
    speed = word(report.get("speed"))
    ran = part(report, "server_tool_use")
    return Usage(
        input_tokens=count(report, "input_tokens"),
        cache_read_tokens=count(report, "cache_read_input_tokens"),
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        output_tokens=output,
        reasoning_tokens=min(count(part(report, "output_tokens_details"), "thinking_tokens"), output),
        web_searches=count(ran, "web_search_requests"),
        doubtful=any(count(ran, name) > 0 for name in ran if name not in _TOOLS),
        model=model,
        service_tier=FAST if speed == FAST else word(report.get("service_tier")),
        geography=word(report.get("inference_geo")),
        speed=speed,
    )


def _sum(usage: Usage, more: Usage) -> Usage:
    return replace(
        usage,
        input_tokens=usage.input_tokens + more.input_tokens,
        cache_read_tokens=usage.cache_read_tokens + more.cache_read_tokens,
        cache_write_5m_tokens=usage.cache_write_5m_tokens + more.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens + more.cache_write_1h_tokens,
        output_tokens=usage.output_tokens + more.output_tokens,
        reasoning_tokens=usage.reasoning_tokens + more.reasoning_tokens,
    )
