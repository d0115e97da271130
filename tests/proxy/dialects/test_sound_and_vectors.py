"""Embeddings, speech and transcriptions: what is read of a request, and what an answer used."""

import json

import pytest

from models.enums import Bucket
from proxy.dialects import embeddings, multipart, speech, transcriptions
from proxy.dialects.base import BadRequest, Reading, Refusal, RefusalKind, StreamError, Usage
from proxy.dialects.durations import at_most, seconds
from tests.proxy.dialects.recordings_of_sound import flac, form, m4a, mp3, opus, vorbis, wav

TEXT = "Grüße\n🌍"  # 7 code points, 2 lines


def _json(**values: object) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


# Embeddings.


@pytest.mark.parametrize(
    ("given", "tokens"),
    [("abcd", 1), ("abcde", 2), (["abcd", "abcde"], 3), ([1, 2, 3], 3), ([[1, 2], [3]], 3), (["", "x"], 1), (["a", [1, 2]], 3)],
)
def test_the_input_of_embeddings_is_counted(given: object, tokens: int) -> None:
    """A token for every four bytes of each text begun, and one for each token that comes as a number; nothing is put out."""
    read = embeddings.parse(_json(model="m", input=given, user="u"))
    assert (read.input_tokens, read.max_output_tokens, read.streamed, read.end_user) == (tokens, 0, False, "u")


@pytest.mark.parametrize("body", [b"", b"{}", _json(model="m"), _json(input="x"), *(_json(model="m", input=odd) for odd in (7, {"a": 1}, [1.5]))])
def test_what_is_no_input_of_embeddings_is_refused(body: bytes) -> None:
    """A missing or odd field is refused by name."""
    with pytest.raises(BadRequest):
        embeddings.parse(body)


def test_usage_of_embeddings() -> None:
    """F9: input is charged as reported, as counted where nothing sound is; an error body costs nothing (F18)."""
    ask = embeddings.parse(_json(model="m", input="abcdefgh"))
    answer = {"object": "list", "data": [{"embedding": [0.5, -1.0]}], "model": "text-embedding-3-small"}
    told = embeddings.read(_json(**answer, usage={"prompt_tokens": 9, "total_tokens": 9}), ask)
    assert told == Reading(Usage(9, model="text-embedding-3-small", reported=True), 0, 0, complete=True)
    assert embeddings.read(_json(**answer), ask).usage == Usage(2, model="text-embedding-3-small")
    assert embeddings.read(_json(**answer, usage={"prompt_tokens": -9}), ask).usage == Usage(2, model="text-embedding-3-small", doubtful=True)
    for nothing in (b"", b"<html>", _json(error={"message": "x"}), _json(data=7)):
        assert not embeddings.read(nothing, ask).complete


def test_only_the_model_is_rewritten() -> None:
    """F37: another model's name is spliced in, and nothing else changes, in JSON and in a form."""
    body = b'{"input" : "x", "model":"mine", "dimensions": 8}'
    assert embeddings.rewrite(body, embeddings.parse(body), model="theirs") == body.replace(b"mine", b"theirs")
    spoken = b'{"input" : "x", "model":"mine", "voice":"alloy"}'
    assert speech.rewrite(spoken, speech.parse(spoken), model="theirs", max_output_tokens=0) == spoken.replace(b"mine", b"theirs")
    recording = bytes(range(256)) * 9
    filled = form(recording, model="mine", language="de")
    ask = transcriptions.parse(filled)
    assert transcriptions.rewrite(filled, ask) is filled
    rewritten = transcriptions.rewrite(filled, ask, model="theirs")
    assert rewritten == filled.replace(b"\r\n\r\nmine", b"\r\n\r\ntheirs")
    assert recording in rewritten


# Speech.


def test_speech_is_charged_by_the_characters_of_its_text() -> None:
    """The text given is the metric and the bucket, in code points; it is known, and held, before."""
    ask = speech.parse(_json(model="tts-1", input=TEXT, voice="alloy"))
    assert (ask.besides[Bucket.CHARACTERS], ask.characters, ask.lines, ask.streamed) == (7, 7, 2, True)
    assert speech.read(b"ID3\x04whatever", ask) == Reading(Usage(characters=7, reported=True), 7, 2, complete=True)
    for nothing in (b"", b' {"error":{"message":"x"}}'):
        assert not speech.read(nothing, ask).complete


@pytest.mark.parametrize("text", [None, "", 7, ["a"]])
def test_speech_without_a_text_is_refused(text: object) -> None:
    """There must be something to say."""
    with pytest.raises(BadRequest) as refused:
        speech.parse(_json(model="tts-1", input=text))
    assert refused.value.param == "input"


def _sse(*values: object) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


def test_streamed_speech() -> None:
    """Tokens are charged where the last event tells them, else the characters; before any sound nothing is; the end is held back."""
    ask = speech.parse(_json(model="tts", input=TEXT, stream_format="sse"))
    delta = _sse({"type": "speech.audio.delta", "audio": "AAAA"})
    for usage, expected in (
        ({"input_tokens": 14, "output_tokens": 101}, Usage(14, audio_output_tokens=101, reported=True)),
        (None, Usage(characters=7, reported=True)),
        ({"input_tokens": 14, "output_tokens": -1}, Usage(characters=7, reported=True, doubtful=True)),
    ):
        meter = speech.meter(ask)
        assert meter.usage == Usage()
        done = _sse({"type": "speech.audio.done", "usage": usage})
        assert (meter.feed(delta + done), meter.tail()) == (delta, done)
        assert (meter.usage, meter.characters, meter.lines, meter.complete) == (expected, 7, 2, True)
    broken = speech.meter(ask)
    broken.feed(delta)
    assert broken.usage == Usage(characters=7, reported=True)
    assert b"broke" in broken.fail(Refusal(RefusalKind.UPSTREAM_FAILED, "broke", "r"))
    failed = speech.meter(ask)
    failed.feed(_sse({"error": {"message": "no", "code": "server_error"}}))
    assert (failed.error, failed.ended, failed.complete) == (StreamError("server_error", "no"), True, False)


def test_a_recording_passes_as_it_comes() -> None:
    """All characters from its first byte on, none before; it is whole when its body ends, and only then; bytes pass as the same object."""
    ask = speech.parse(_json(model="tts-1", input=TEXT))
    meter, first, second = speech.meter(ask), b"ID3\x04", b"\n\n{"
    assert meter.usage == Usage()
    assert (meter.feed(first), meter.feed(second)) == (first, second)
    assert (meter.usage, meter.characters, meter.lines, meter.complete) == (Usage(characters=7, reported=True), 7, 2, False)
    meter.over()
    assert (meter.complete, meter.tail()) == (True, b"")
    assert (meter.events, meter.keep_alive()) == (False, b"")
    assert [meter.content_type(told) for told in (b"audio/x", b"", b"application/json", b"Text/html", b"text/event-stream")] == [
        *(b"audio/x", b"application/octet-stream"),
        *(None, None, None),
    ]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_an_error_is_no_recording(size: int) -> None:
    """F18: JSON that begins with an error is nothing, however it is cut; what only begins alike, or is short, is sound."""
    ask = speech.parse(_json(model="tts-1", input=TEXT))
    for told, sound in ((b' {\n "error": {"message": "x"}}', b""), (b"{}", b"{}"), (b"{" * 70, b"{" * 70), (b"  ", b"  "), (b"", b"")):
        meter, passed = speech.meter(ask), b""
        for start in range(0, len(told), size):
            passed += meter.feed(told[start : start + size])
        meter.over()
        assert (passed + meter.tail(), meter.complete, meter.usage.characters) == (sound, bool(sound), 7 if sound else 0)
        assert (meter.error is None) is (b"error" not in told)


BY_TOKENS, BY_BOTH = frozenset({Bucket.UNCACHED_INPUT, Bucket.AUDIO_OUTPUT}), frozenset({Bucket.CHARACTERS, Bucket.AUDIO_OUTPUT})


def test_a_recording_is_taken_out_of_its_events_where_only_they_tell_tokens() -> None:
    """A model without a price of characters is asked for events; the client gets the bytes in them, cut anywhere, and tokens are charged."""
    body = _json(model="tts", input=TEXT, response_format="opus")
    ask = speech.parse(body)
    assert speech.rewrite(body, ask.priced(BY_BOTH)) == speech.rewrite(body, ask.priced(frozenset())) == body
    ask = ask.priced(BY_TOKENS)
    assert json.loads(speech.rewrite(body, ask, model="theirs")) == json.loads(body) | {"model": "theirs", "stream_format": "sse"}
    other = _json(model="tts", input=TEXT, stream_format="audio")
    assert json.loads(speech.rewrite(other, speech.parse(other).priced(BY_TOKENS)))["stream_format"] == "sse"
    done = _sse({"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}})
    told = b": hello\n\n" + _sse({"type": "speech.audio.delta", "audio": "AAEC"}, {"type": "else"}, {"type": "speech.audio.delta", "audio": "Aw=="}) + done
    for size in (1, 7, 1000):
        meter, passed = speech.meter(ask), b""
        assert (meter.content_type(b"text/event-stream"), meter.content_type(b"audio/opus")) == (b"audio/opus", None)
        for start in range(0, len(told), size):
            passed += meter.feed(told[start : start + size])
        assert (passed, meter.tail(), meter.complete) == (b"\0\1\2\3", b"", True)
        assert meter.usage == Usage(14, audio_output_tokens=101, reported=True)


@pytest.mark.parametrize("sound", ["A", "A\xe9==", 7, None, "A" * (5 * 1024 * 1024)])
def test_sound_that_cannot_be_read_is_an_error(sound: object) -> None:
    """Nothing is left out of a recording in silence."""
    meter = speech.meter(speech.parse(_json(model="tts", input=TEXT)).priced(BY_TOKENS))
    told, passed = _sse({"type": "speech.audio.delta", "audio": "AAEC"}, {"type": "speech.audio.delta", "audio": sound}), b""
    for start in range(0, len(told), 65536):
        passed += meter.feed(told[start : start + 65536])
    assert (passed, meter.error, meter.ended) == (b"\0\1\2", StreamError("server_error", "The sound cannot be read."), True)


def test_tokens_that_nobody_told_are_estimated_and_marked() -> None:
    """F13: a token of sound for each character, and the text as it was counted, when the end with the numbers does not come; before any sound nothing."""
    ask = speech.parse(_json(model="tts", input=TEXT)).priced(BY_TOKENS)
    for events in (False, True):
        meter = speech.meter(speech.parse(_json(model="tts", input=TEXT, **({"stream_format": "sse"} if events else {}))).priced(BY_TOKENS))
        assert meter.usage == Usage()
        meter.feed(_sse({"type": "speech.audio.delta", "audio": "AAEC"}))
        assert meter.usage == Usage(ask.input_tokens, audio_output_tokens=7, doubtful=True)
    told = speech.meter(speech.parse(_json(model="tts-1", input=TEXT, stream_format="sse")).priced(frozenset({Bucket.CHARACTERS})))
    told.feed(_sse({"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}}))
    assert told.usage == Usage(characters=7, reported=True)  # tokens that the model has no price for


# Transcriptions.

LENGTHS = [
    ("wav", wav(2.5), 3),
    ("wav of a whole second", wav(1.0, 16_000, 2), 1),
    ("wav whose head says more than there is", wav(1.0)[:40] + b"\xff\xff\xff\xff" + bytes(16_000), 2),
    ("flac", flac(44_100 * 5), 5),
    ("flac that does not say", flac(0), None),
    ("opus", opus(48_000 * 7), 7),
    ("vorbis", vorbis(16_000 * 4 + 1, 16_000), 5),
    ("m4a", m4a(90_001, 1_000), 91),
    ("m4a with wide numbers", m4a(10_000, 1_000, wide=True), 10),
    ("mp3 of one rate", mp3(16_000 * 3), 3),
    ("mp3 with a count of frames", mp3(5_000, frames=383), 11),
    ("mp3 behind a tag", mp3(16_000, tag=b"ID3\4\0\0\0\0\0\5" + bytes(5)), 1),
    ("something else", b"\x1aE\xdf\xa3webm" + bytes(500), None),
    ("nothing", b"", None),
    ("cut heads", b"RIFF\0\0\0\0WAVEfmt ", None),
]


@pytest.mark.parametrize(("name", "recording", "length"), LENGTHS, ids=[row[0] for row in LENGTHS])
def test_how_long_a_recording_is(name: str, recording: bytes, length: int | None) -> None:
    """The head of each kind says its length, in seconds begun; where none does, there is a bound by its size."""
    assert seconds(recording) == length
    assert at_most(recording) == (length or max(1, -(-len(recording) // 1000)))
    for cut in range(0, min(len(recording), 80), 3):
        assert at_most(recording[:cut]) >= 1


def test_a_form_is_read() -> None:
    """Model, format, stream and the recording's length are read; Whisper answers whole whatever `stream` says."""
    ask = transcriptions.parse(form(wav(2.5), model="gpt-4o-transcribe", response_format="json", stream="true", prompt="abcd"))
    assert (ask.model, ask.streamed, ask.seconds, ask.response_format) == ("gpt-4o-transcribe", True, 3, "json")
    assert (ask.besides, ask.input_tokens, ask.max_output_tokens) == ({Bucket.SECONDS: 3}, 31, 24)
    assert not transcriptions.parse(form(wav(1), model="whisper-1", stream="true")).streamed


GOOD = form(b"abc", model="m")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        GOOD[:-4],
        GOOD[:-30],
        GOOD + b"more",
        GOOD.replace(b'name="file"', b'name="other"'),
        GOOD.replace(b'name="model"', b'name="other"'),
        GOOD.replace(b"\r\n\r\nm\r\n", b"\r\n\r\n\r\n"),
        GOOD.replace(b'; filename="a.wav"', b""),
        GOOD.replace(b'name="model"', b'name="model"; name="x"'),
        GOOD.replace(b'name="model"', b"name=model"),
        GOOD.replace(b'name="model"', b"name*=utf-8''model"),
        GOOD.replace(b'name="model"', b'name="x"\r\n name="model"'),
        GOOD.replace(b"\r\n\r\nm", b"\r\nContent-Transfer-Encoding: base64\r\n\r\nm"),
        GOOD.replace(b"Content-Disposition", b"Content-Disposition ", 1),
        GOOD.replace(b"------b0undary--", b"------b0undaryx--"),
        form(b"abc", model="m")[: -len(b"------b0undary--\r\n")] + form(b"abc", model="other"),
    ],
)
def test_a_form_that_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    """No other reader may see another model or file in a form than we do."""
    with pytest.raises(BadRequest):
        transcriptions.parse(body)


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"multipart/form-data", b"multipart/form-data; boundary=other", b"multipart/form-data; boundary=----b0undary; boundary=other", b""],
)
def test_the_header_s_boundary_is_the_body_s(content_type: bytes) -> None:
    """The upstream cuts by the header, we by the body: they must be the same."""
    multipart.check_boundary([(b"content-type", b"multipart/form-data; boundary=----b0undary")], GOOD)
    multipart.check_boundary([(b"content-type", b'Multipart/Form-Data; charset=utf-8; boundary="----b0undary"')], GOOD)
    with pytest.raises(BadRequest):
        multipart.check_boundary([(b"content-type", content_type)], GOOD)


SRT = b"1\n00:00:00,000 --> 00:00:02,500\nHello\n\n2\n00:00:02,500 --> 00:01:04,200\nworld\n"
VTT = b"WEBVTT\n\n00:00.000 --> 00:09.000\nHello\n"
TOKENS = {"type": "tokens", "input_tokens": 14, "input_token_details": {"text_tokens": 10, "audio_tokens": 4}, "output_tokens": 101, "total_tokens": 115}
BARE = {"type": "tokens", "input_tokens": 9, "output_tokens": 2}

ANSWERS = [
    ("seconds", "json", _json(text="ab\nc", usage={"type": "duration", "seconds": 12}), Usage(seconds=12, reported=True), 4, 2),
    ("fractions are begun seconds", "json", _json(text="a", usage={"type": "duration", "seconds": 12.01}), Usage(seconds=13, reported=True), 1, 1),
    ("tokens", "json", _json(text="a", usage=TOKENS), Usage(10, output_tokens=101, audio_input_tokens=4, reported=True), 1, 1),
    ("tokens without details are sound", "json", _json(text="a", usage=BARE), Usage(audio_input_tokens=9, output_tokens=2, reported=True), 1, 1),
    ("a duration", "verbose_json", _json(text="a", duration="8.47"), Usage(seconds=9, reported=True), 1, 1),
    ("nothing: the recording's head", "json", _json(text="a"), Usage(seconds=3), 1, 1),
    ("nonsense: the recording's head, and a look", "json", _json(text="a", usage={"type": "duration", "seconds": -1}), Usage(seconds=3, doubtful=True), 1, 1),
    ("plain text", "text", b"Hello\nworld\n", Usage(seconds=3), 11, 2),
    ("a head that lies: nobody says 300 characters in 3 seconds", "text", b"x" * 300, Usage(seconds=10), 300, 1),
    ("subtitles", "srt", SRT, Usage(seconds=65), 11, 2),
    ("web subtitles", "vtt", VTT, Usage(seconds=9), 5, 1),
]


@pytest.mark.parametrize(("name", "wanted", "body", "usage", "characters", "lines"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_usage_of_transcriptions(name: str, wanted: str, body: bytes, usage: Usage, characters: int, lines: int) -> None:
    """Seconds or tokens as the answer says, else as the recording does; text is counted without its time stamps."""
    ask = transcriptions.parse(form(wav(2.5), model="m", response_format=wanted))
    assert transcriptions.read(body, ask) == Reading(usage, characters, lines, complete=True)


def test_a_recording_that_tells_nothing_is_looked_at() -> None:
    """F13: an answer without usage to a recording of an unknown kind costs the most it may have been, and a person looks at it."""
    ask = transcriptions.parse(form(bytes(5_000), model="m", response_format="text"))
    assert transcriptions.read(b"Hi\n", ask).usage == Usage(seconds=5, doubtful=True)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", _json(error={"message": "x"}), _json(text=7)])
def test_what_is_no_transcription_costs_nothing(body: bytes) -> None:
    """F18: an error under status 200 is no answer."""
    assert not transcriptions.read(body, transcriptions.parse(form(wav(1), model="m"))).complete


def test_streamed_transcriptions() -> None:
    """The last event tells the tokens; a stream that breaks is charged for the recording and the text that came."""
    ask = transcriptions.parse(form(wav(2.5), model="gpt-4o-transcribe", stream="true"))
    delta, done = _sse({"type": "transcript.text.delta", "delta": "Hello\nyou"}), _sse({"type": "transcript.text.done", "text": "Hello\nyou", "usage": TOKENS})
    meter = transcriptions.meter(ask)
    assert meter.usage == Usage()
    assert (meter.feed(delta + done), meter.tail()) == (delta, done)
    assert (meter.usage, meter.characters, meter.lines) == (Usage(10, output_tokens=101, audio_input_tokens=4, reported=True), 9, 2)
    broken = transcriptions.meter(ask)
    broken.feed(delta)
    assert (broken.usage, broken.complete) == (Usage(audio_input_tokens=30, output_tokens=3), False)
