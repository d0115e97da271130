"""The values that a wire format and the relay exchange, and what a wire format must be able to do."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol, Self

import msgspec

from models.enums import Bucket
from proxy.splice import Span

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields in order; names in lower case, as ASGI gives them."""

COUNT_LIMIT = 10**8
"""The largest number an upstream may report of one answer; a larger one is nonsense, which is not charged by."""

MODEL_LIMIT_CHARACTERS = 200
IDENTITY_LIMIT_CHARACTERS = 255


class BadRequest(Exception):
    """A request body that cannot be served; the message is for the client, `param` names the field at fault if there is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Ask(msgspec.Struct, frozen=True):
    """What admission needs to know of a request body.

    `max_output_tokens` is for one choice and None when the client set no bound; `input_tokens` is an estimate, at least 1 (see
    `proxy.dialects.counting`). `include_usage` tells whether a streaming client asked to see usage; where a dialect always shows it,
    it is True. `spans` says where the body's fields stand. `besides` is the most that the call may use of what is no token, by its bucket.
    `aliases` are names of tools that are too long for another dialect, by what stands for them there; `namespaces` are namespace and name
    of tools that stand inside one, likewise. `continues` is the provider's id of an earlier answer from which this one goes on, `names` those of
    single items that it keeps, or of a container, in the field `named_in`, and `kept` whether it keeps this one's for later calls. `fast` asks
    for the fast mode, which has prices of its own. Of each group in `needs` at least one bucket must have a price, or nobody could say before
    the call what it may cost.
    """

    model: str
    streamed: bool
    input_tokens: int
    max_output_tokens: int | None
    choices: int
    include_usage: bool
    end_user: str | None
    conversation: str | None
    spans: Mapping[str, Span]
    besides: Mapping[Bucket, int] = msgspec.field(default_factory=dict)
    aliases: Mapping[str, str] = msgspec.field(default_factory=dict)
    namespaces: Mapping[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    continues: str | None = None
    names: tuple[str, ...] = ()
    named_in: str = "input"
    kept: bool = False
    fast: bool = False
    needs: tuple[tuple[Bucket, ...], ...] = ((Bucket.UNCACHED_INPUT,), (Bucket.OUTPUT,))

    def sold(self, buckets: Collection[Bucket]) -> bool:
        """Tell whether a model that has prices for these buckets has one for what is asked."""
        return all(any(bucket in buckets for bucket in group) for group in self.needs)

    def priced(self, buckets: Collection[Bucket]) -> Self:
        """Return the same as it is put to a model that has prices for these buckets."""
        return self


_COUNTED = (
    *(Bucket.UNCACHED_INPUT, Bucket.CACHE_READ, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H, Bucket.OUTPUT, Bucket.REASONING),
    *(Bucket.AUDIO_INPUT, Bucket.AUDIO_OUTPUT, Bucket.WEB_SEARCHES, Bucket.CHARACTERS, Bucket.SECONDS),
)
"""What a usage counts, looked up once: before Python 3.12 a member of an enum costs ten times what a name does."""


class Usage(msgspec.Struct, frozen=True):
    """What one answer used, in disjoint buckets that are each priced; only `reasoning_tokens` is a part of another, `output_tokens`.

    `input_tokens` excludes cache reads, cache writes and audio; `output_tokens` excludes audio. `model`, `service_tier`, `geography` and
    `speed` are as the answer says, None where it says nothing. `reported` is True when every number is the provider's own and final, False
    when any is an estimate. `doubtful` asks for a person's look: the report was nonsense, or names something that has no bucket here.
    `others` are parts of the same answer made by other models, each to be priced as its own model says. `kept` are the provider's ids of an
    answer that it keeps, of that answer's items, and of a container that it ran in, `cost_picousd` what it says that it bills the operator for all
    of it; None where it does not say.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    web_searches: int = 0
    characters: int = 0
    seconds: int = 0
    model: str | None = None
    service_tier: str | None = None
    geography: str | None = None
    speed: str | None = None
    reported: bool = False
    doubtful: bool = False
    others: "tuple[Usage, ...]" = ()
    kept: tuple[str, ...] = ()
    cost_picousd: int | None = None

    def buckets(self) -> tuple[tuple[Bucket, int], ...]:
        """Give the quantities as the books count them."""
        quantities = (
            *(self.input_tokens, self.cache_read_tokens, self.cache_write_5m_tokens, self.cache_write_1h_tokens, self.output_tokens, self.reasoning_tokens),
            *(self.audio_input_tokens, self.audio_output_tokens, self.web_searches, self.characters, self.seconds),
        )
        return tuple(zip(_COUNTED, quantities, strict=True))


class Reading(msgspec.Struct, frozen=True):
    """What a whole answer says: its usage, and the size of its text in code points and in lines.

    `complete` is False when the body is no answer of its dialect (not JSON, an error body, no content): nothing is charged then.
    """

    usage: Usage
    characters: int
    lines: int
    complete: bool


@dataclass(frozen=True, slots=True)
class StreamError:
    """A failure that an upstream told inside a stream; type and message are the upstream's words."""

    type: str
    message: str


class RefusalKind(StrEnum):
    """Why a call is answered by the gateway itself and not by a model."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_ANSWER = "unknown_answer"
    UNAUTHENTICATED = "unauthenticated"
    INSUFFICIENT_CREDIT = "insufficient_credit"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "not_allowed"
    CONFLICT = "conflict"
    ANSWER_GONE = "answer_gone"
    MISMATCH = "mismatch"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    NOT_SUPPORTED = "not_supported"
    OVERLOADED = "overloaded"
    UPSTREAM_FAILED = "upstream_failed"
    TIMED_OUT = "timed_out"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal before it has a wire format; the message is for the client.

    `retry_after_seconds` goes with CONFLICT, RATE_LIMITED, QUOTA_EXHAUSTED and OVERLOADED; `resets_at` (aware) with QUOTA_EXHAUSTED.
    """

    kind: RefusalKind
    message: str
    request_id: str
    param: str | None = None
    retry_after_seconds: int | None = None
    resets_at: datetime | None = None


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, ready to be sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """How an upstream is told who calls; the secret never prints."""

    scheme: Literal["x-api-key", "bearer"]
    secret: str = field(repr=False)


Skim = Callable[[bytes], bool]
"""Reads a piece of a stream that is nothing but one event with more text, as its chunk had it: with the chunk's own line end behind. False for anything
else, which is not read then. What it has read may go out as it is."""


class Meter(Protocol):
    """Reads one streamed answer while its bytes go by.

    Where the stream is one of `events`, bytes leave in whole lines, and from the terminal event on (or an error event) they are held back until `tail`
    takes them, so that the relay settles first and then lets the client see the end. Otherwise the answer is bytes with no words for a failure: its
    head goes out with its first byte, and what fails after that is cut.
    """

    @property
    def events(self) -> bool:
        """Whether what the client gets is a stream of events, in which a failure can be told."""
        ...

    @property
    def skim(self) -> Skim | None:
        """How more text is read at the least cost, now that nothing is held back and the client stands between two events; None where `feed` has to be asked."""
        ...

    def content_type(self, told: bytes) -> bytes | None:
        """Give the content type for the client, from the one that the upstream tells; None when that is no answer of this kind."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give what may be sent to the client now, often the same object, maybe nothing. Never raises."""
        ...

    def over(self) -> None:
        """Take note that the upstream's body came to its proper end."""
        ...

    def tail(self) -> bytes:
        """Take what is held back: the end of the stream; called once, after the upstream ended and the call is settled."""
        ...

    def keep_alive(self) -> bytes:
        """Give bytes that tell the client, at any moment between two `feed`s, that the stream lives; they change no event."""
        ...

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error event that ends a stream without a terminal event; what is held back is dropped."""
        ...

    def conclude(self) -> bytes:
        """Give the events that end a stream early but properly, as a full answer cut by its token limit; what is held back is dropped."""
        ...

    @property
    def usage(self) -> Usage:
        """What the answer used so far: reported once the answer is complete and its numbers are sound, before that an estimate."""
        ...

    @property
    def characters(self) -> int:
        """Code points of answer text so far; without reasoning and tool arguments."""
        ...

    @property
    def lines(self) -> int:
        """Lines of answer text so far; text after the last line feed is a line."""
        ...

    @property
    def first_token_seen(self) -> bool:
        """Whether anything that a model made has come: text, reasoning or a tool call."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the terminal event or an error event has come: nothing that matters follows."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the answer is whole: an upstream that closes now has ended, not cut."""
        ...

    @property
    def error(self) -> StreamError | None:
        """The failure that the upstream told inside the stream, if it did."""
        ...


class Dialect(Protocol):
    """What the relay must know of a wire format; `proxy.dialects.anthropic` and `proxy.dialects.openai` are such modules.

    `name` is the dialect that an upstream is configured with, `form` which of its APIs this is: OpenAI's has several.
    """

    name: str
    form: str
    upstream_path: str

    def parse(self, body: bytes) -> Ask:
        """Read a request body; raises BadRequest and nothing else."""
        ...

    def count(self, body: bytes) -> int:
        """Estimate the input tokens of a body that may lack everything but its messages; raises BadRequest and nothing else."""
        ...

    def rewrite(self, body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
        """Give the body for the upstream: another model's name, a lower bound of output tokens, usage always asked for.

        `ask` is what `parse` read of this very body. Only bytes of these fields change. A bound is only ever lowered.
        """
        ...

    def meter(self, ask: Ask) -> Meter:
        """Make the meter of one streamed answer."""
        ...

    def read(self, body: bytes, ask: Ask) -> Reading:
        """Read a whole, successful answer; never raises. An answer that reports no sound usage is estimated."""
        ...

    def refuse(self, refusal: Refusal) -> Answer:
        """Write a refusal as this dialect's clients expect it."""
        ...

    def request_headers(self, headers: Headers, credential: Credential | None) -> list[tuple[bytes, bytes]]:
        """Choose the header fields that go upstream, and add the credential; nothing of the client's own credentials passes."""
        ...

    def response_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Choose the header fields of an upstream's answer that reach the client; a value with control characters does not."""
        ...
