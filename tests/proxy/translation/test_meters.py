"""A translated meter keeps a meter's promises: the books read the upstream, the client reads its own dialect, the end waits for the books."""

import json
from typing import Any

import pytest

from proxy.dialects import anthropic, openai
from proxy.dialects.base import Meter, Refusal, RefusalKind, StreamError, Usage
from proxy.translation import anthropic_to_openai, openai_to_anthropic
from proxy.translation.meter import TranslatedMeter
from proxy.translation.registry import TRANSLATIONS
from tests.proxy.translation.streams import (
    ANTHROPIC_ASK,
    CREATED_SECONDS,
    FIRST,
    OPENAI_ASK,
    QUIET_ASK,
    START,
    USAGE,
    calling,
    chats,
    chunk,
    ended,
    failed,
    finished,
    messages,
    read_chats,
    read_messages,
    started,
    used,
    words,
)

REFUSAL = Refusal(RefusalKind.OVERLOADED, "Too busy.", "req_1")


def for_anthropic() -> TranslatedMeter:
    """Make the meter of a Messages client at a Chat Completions upstream, which is always asked for usage."""
    return TranslatedMeter(openai.meter(OPENAI_ASK), anthropic_to_openai.stream(ANTHROPIC_ASK, created_seconds=CREATED_SECONDS))


def for_openai() -> TranslatedMeter:
    """Make the meter of a Chat Completions client, who did not ask for usage, at a Messages upstream."""
    return TranslatedMeter(anthropic.meter(ANTHROPIC_ASK), openai_to_anthropic.stream(QUIET_ASK, created_seconds=CREATED_SECONDS))


CASES: Any = [
    (for_anthropic, chats(FIRST, chunk({"content": "a\nb"}), chunk({}, "stop"), USAGE), b"message_stop", Usage(30, 60, 10, 0, 20, 5, model="gpt-x", reported=True)),
    (for_openai, messages(START, *words(0, "a\nb"), *finished("end_turn")), b"[DONE]", Usage(30, 60, 4, 6, 20, 5, model="claude-x", reported=True)),
]


@pytest.mark.parametrize(("make", "stream", "terminal", "usage"), CASES, ids=["anthropic", "openai"])
def test_the_end_waits_for_the_books(make: Any, stream: bytes, terminal: bytes, usage: Usage) -> None:
    """F11, F20: the terminal event leaves with `tail` and not before; usage is what the upstream itself reported."""
    meter: Meter = make()
    sent = meter.feed(stream)
    assert b"a\\nb" in sent
    assert terminal not in sent
    assert (meter.ended, meter.complete, meter.first_token_seen, meter.error) == (True, True, True, None)
    assert (meter.usage, meter.characters, meter.lines) == (usage, 3, 2)
    assert terminal in meter.tail()


def test_a_stream_that_ends_early_ends_properly() -> None:
    """F35: an answer that the balance cuts ends as one cut by its limit, in the client's words, arguments that waited included."""
    meter = for_anthropic()
    open_calls = [chunk(calling(0, '{"a":', "call_1", "weather")), chunk(calling(1, "{", "call_2", "weather"))]
    sent = meter.feed(chats(FIRST, *open_calls, done=False)) + meter.conclude()
    usage = {"input_tokens": 40, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 0}}
    assert read_messages(sent) == [*started(), *used(0, "call_1", '{"a":'), *used(1, "call_2", "{"), *ended("max_tokens", usage)]
    quiet = for_openai()
    chunks = read_chats(quiet.feed(messages(START, *words(0, "a")[:-1])) + quiet.conclude())
    assert [one["choices"][0]["finish_reason"] for one in chunks[:-1]] == [None, None, "length"]
    assert chunks[-1] == {}


def test_a_refusal_in_the_middle_is_told_in_the_clients_words() -> None:
    """F18: what the gateway says of a broken stream is the client's kind of error event, without a terminal event."""
    meter = for_anthropic()
    sent = meter.feed(chats(FIRST, chunk({"content": "a"}), done=False)) + meter.fail(REFUSAL)
    assert read_messages(sent) == [*started(), *words(0, "a")[:-1], *failed("Too busy.", "overloaded_error")]
    quiet = for_openai()
    last = read_chats(quiet.feed(messages(START)) + quiet.fail(REFUSAL))[-1]
    assert last == {"error": {"message": "Too busy.", "type": "server_error", "param": None, "code": "overloaded"}}


def test_an_operators_error_stays_the_operators() -> None:
    """What the upstream says of the operator's account reaches no client in any dialect."""
    meter = for_anthropic()
    assert meter.feed(chats({"error": {"message": "Your org acme is out of quota.", "type": "insufficient_quota"}}, done=False)) == b""
    assert meter.error == StreamError("insufficient_quota", "Your org acme is out of quota.")
    assert read_messages(meter.tail()) == failed("The provider did not serve the request.")


def test_what_cannot_be_translated_ends_the_stream() -> None:
    """F18: a stream that the meter lets pass and the client could not read is told as an error, once, after the books."""
    meter = for_anthropic()
    sent = meter.feed(chats(FIRST, done=False))
    assert meter.feed(b"data: {oops\n\n") == b""
    assert (meter.ended, meter.complete, meter.error) == (True, False, StreamError("api_error", "The stream cannot be translated."))
    assert read_messages(sent + meter.tail()) == [*started(), *failed("The provider sent something that cannot be read.")]


def test_keep_alive_changes_no_event() -> None:
    """The client is between two events whatever the upstream is in the middle of."""
    meter = for_anthropic()
    whole = chats(FIRST, chunk({"content": "a"}), chunk({}, "stop"), USAGE)
    sent = meter.feed(whole[:100]) + meter.keep_alive() + meter.feed(whole[100:]) + meter.tail()
    assert read_messages(sent) == [*started(), *words(0, "a"), *ended("end_turn")]


def test_every_pair_of_dialects_has_its_translation() -> None:
    """The registry names each direction as its modules do: by the form of the request and the dialect of the upstream."""
    assert {(one.client, one.upstream) for one in TRANSLATIONS.values()} == set(TRANSLATIONS)
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}], "input": "a"}).encode()
    for client, upstream in TRANSLATIONS:
        assert {"anthropic": anthropic, "openai": openai}[upstream].parse(TRANSLATIONS[client, upstream].request(body, max_output_tokens=5)).model == "m"
