"""Text that is read at the least cost and goes out as it came: it counts as `feed` counts it, and nothing that decides anything is ever taken for it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.dialects import anthropic, openai, responses
from proxy.dialects.base import Meter, Refusal, RefusalKind
from tests.proxy.dialects import responses_recordings as recorded
from tests.proxy.dialects.recordings import ANTHROPIC, HEAD, OPENAI, anthropic_ask, chunk, chunks, events, finish, openai_ask, start, text_block

PIECES = ("He", "llo\n", "w\u00f6rld \u4e2d\U0001f600", '"quoted" \\ [DONE] "error"', "\n\n", "data: x")
Make = Callable[[], Meter]


def claude() -> Meter:
    """Make a meter of the Messages API."""
    return anthropic.meter(anthropic_ask())


def gpt() -> Meter:
    """Make a meter of Chat Completions whose client asked for usage."""
    return openai.meter(openai_ask())


def silent_gpt() -> Meter:
    """Make a meter of Chat Completions whose client did not ask for usage."""
    return openai.meter(openai_ask(False))


def codex() -> Meter:
    """Make a meter of the Responses API."""
    return responses.meter(recorded.ask())


def cut(stream: bytes) -> list[bytes]:
    """Cut a stream into its events."""
    return [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]


CLAUDE = cut(events(start({"input_tokens": 25, "output_tokens": 1}), *text_block(*PIECES), *finish({"output_tokens": 12})))
USED = {**HEAD, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
GPT = cut(chunks(chunk("", role="assistant"), *map(chunk, PIECES), chunk(finish_reason="stop"), USED))
CODEX = recorded.stream(*PIECES)
PLAIN: list[tuple[str, Make, list[bytes]]] = [("claude", claude, CLAUDE), ("gpt", gpt, GPT), ("silent gpt", silent_gpt, GPT), ("codex", codex, CODEX)]
RECORDED: list[tuple[str, Make, list[bytes]]] = [
    *((recording.name, make, cut(recording.stream)) for make, recordings in ((claude, ANTHROPIC), (gpt, OPENAI)) for recording in recordings)
]
CASES = PLAIN + RECORDED


def state(meter: Meter) -> Any:
    """Give all that a meter tells."""
    return meter.usage, meter.characters, meter.lines, meter.first_token_seen, meter.ended, meter.complete, meter.error


@pytest.mark.parametrize(("make", "stream"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_skimmed_counts_as_what_is_fed(make: Make, stream: list[bytes]) -> None:
    """F9, F10, F11: for every recorded shape usage, text size, state and bytes are the same after each event, and what is skimmed would have left as it came."""
    fed, skimmed = make(), make()
    for event in stream:
        left = fed.feed(event)
        if skimmed.skim is not None and skimmed.skim(event + b"\r\n"):
            assert left == event
        else:
            assert skimmed.feed(event) == left
        assert state(skimmed) == state(fed)
        assert skimmed.keep_alive() == fed.keep_alive()
    assert skimmed.tail() == fed.tail()


@pytest.mark.parametrize(("make", "stream"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_all_text_but_the_first_is_skimmed(make: Make, stream: list[bytes]) -> None:
    """The way that costs least is the way of every piece of text after the first, escapes, quotes and line ends in it or not."""
    meter, skimmed = make(), []
    for event in stream:
        if meter.skim is not None and meter.skim(event + b"\r\n"):
            skimmed.append(event)
        else:
            meter.feed(event)
    said = [event for event in stream if b'"delta"' in event and any(json.dumps(piece)[1:-1].encode() in event for piece in PIECES)]
    assert skimmed in (said, said[1:])
    assert len(said) == len(PIECES)
    assert (meter.characters, meter.lines) == (len("".join(PIECES)), "".join(PIECES).count("\n") + 1)


def delta(**more: object) -> dict[str, object]:
    """Give an event with more text of the Messages API, but for the changes given."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "more"}, **more}


def text(**more: object) -> bytes:
    """Write an event with more text of the Responses API, but for the changes given."""
    return recorded.events(("response.output_text.delta", {"output_index": 0, "delta": "more", **more}))[0]


MORE_CLAUDE, MORE_GPT, MORE_CODEX = events(delta()), chunks(chunk("more"), done=False), text()
ODD: list[tuple[Make, list[bytes], bytes]] = [
    (claude, CLAUDE, events({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})),
    (claude, CLAUDE, events({"type": "message_stop"})),
    (claude, CLAUDE, b"event: content_block_delta\ndata: " + json.dumps({"type": "error", "error": {"type": "authentication_error"}}).encode() + b"\n\n"),
    (claude, CLAUDE, b'event: content_block_delta\ndata: {"\\u0074ype":"message_stop"}\n\n'),
    (claude, CLAUDE, events(delta(type="ping"))),
    (claude, CLAUDE, events(delta(delta=["more"]))),
    (claude, CLAUDE, events(delta(delta={"text": 7}))),
    (claude, CLAUDE, MORE_CLAUDE * 2),
    (claude, CLAUDE, MORE_CLAUDE + events({"type": "message_stop"})),
    (claude, CLAUDE, MORE_CLAUDE[:-1]),
    (claude, CLAUDE, MORE_CLAUDE.replace(b"\n", b"\r\n")),
    (claude, CLAUDE, MORE_CLAUDE[7:]),
    (claude, CLAUDE, b": ping\n\n"),
    (gpt, GPT, b"data: [DONE]\n\n"),
    (gpt, GPT, b'data: {"error":{"type":"insufficient_quota","message":"x"}}\n\n'),
    (gpt, GPT, chunks(chunk("more", error={"message": "x"}), done=False)),
    (gpt, GPT, chunks(chunk("more"), done=False).replace(b"{", b'{"\\u0065rror":{"message":"x"},', 1)),
    (gpt, GPT, chunks(chunk("more", usage=None), done=False)),
    (gpt, GPT, chunks(chunk("more", usage={"prompt_tokens": 9, "completion_tokens": 2}), done=False)),
    (gpt, GPT, chunks(chunk("more", finish_reason="stop"), done=False)),
    (gpt, GPT, chunks(chunk("more", index=1), done=False)),
    (gpt, GPT, chunks(chunk("more", model="another"), done=False)),
    (gpt, GPT, chunks(chunk("more", service_tier="flex"), done=False)),
    (gpt, GPT, chunks(chunk(), done=False)),
    (gpt, GPT, chunks({**HEAD, "choices": [{"index": 0, "delta": {"content": ["more"]}}]}, done=False)),
    (gpt, GPT, chunks({**HEAD, "choices": [{"index": 0, "delta": {"content": text}} for text in "ab"]}, done=False)),
    (gpt, GPT, MORE_GPT * 2),
    (gpt, GPT, MORE_GPT + b"data: [DONE]\n\n"),
    (gpt, GPT, MORE_GPT[:-1]),
    (gpt, GPT, MORE_GPT[:-4]),
    (gpt, GPT, b"event: error\n" + MORE_GPT),
    (gpt, GPT, MORE_GPT.replace(b"\n", b"\r\n")),
    (silent_gpt, GPT, chunks(chunk("more", usage=None), done=False)),
    (codex, CODEX, CODEX[-1]),
    (codex, CODEX, b'event: response.output_text.delta\ndata: {"type":"error","code":"insufficient_quota","message":"x"}\n\n'),
    (codex, CODEX, text(type="response.completed")),
    (codex, CODEX, text(delta={"text": "more"})),
    (codex, CODEX, text(delta="")),
    (codex, CODEX, MORE_CODEX * 2),
    (codex, CODEX, MORE_CODEX + CODEX[-1]),
]


@pytest.mark.parametrize(("make", "stream", "odd"), ODD)
def test_what_says_more_than_text_is_never_skimmed(make: Make, stream: list[bytes], odd: bytes) -> None:
    """F18: ends, errors, usage, other choices and models, and whatever is not one whole event, is left unread and untouched for `feed`."""
    meter = make()
    for event in stream[:4]:
        meter.feed(event)
    assert meter.skim is not None
    before = state(meter)
    assert not meter.skim(odd + b"\r\n")
    assert state(meter) == before
    assert not meter.skim(odd)


@pytest.mark.parametrize(("make", "stream"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_nothing_is_skimmed_where_something_else_is_under_way(make: Make, stream: list[bytes]) -> None:
    """Before the first text, inside an event or a line, and from the end on there is no such way."""
    meter = make()
    open_after = [meter.skim is not None]
    for part in (*stream[:4], stream[4][:20], stream[4][20:-1], stream[4][-1:], *stream[5:]):
        meter.feed(part)
        open_after.append(meter.skim is not None)
    assert open_after[:2] == [False, False]
    assert open_after[4:8] == [True, False, False, True]
    assert (open_after[-1], meter.ended) == (False, True)


@pytest.mark.parametrize(("make", "stream"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_a_stream_that_fails_or_is_ended_after_skims_is_as_one_that_was_fed(make: Make, stream: list[bytes]) -> None:
    """What a client reads at a failure, or where its credit ends, does not tell how the text before was read."""
    refusal = Refusal(RefusalKind.UPSTREAM_FAILED, "The provider broke off.", "req_1")
    for fails in (True, False):
        fed, skimmed = make(), make()
        for event in stream[:6]:
            fed.feed(event)
            if not (skimmed.skim is not None and skimmed.skim(event + b"\r\n")):
                skimmed.feed(event)
        assert (skimmed.fail(refusal) if fails else skimmed.conclude()) == (fed.fail(refusal) if fails else fed.conclude())
        assert state(skimmed) == state(fed)
