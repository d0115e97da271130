"""A meter of the upstream's dialect whose bytes leave in the client's."""

from proxy import sse
from proxy.dialects.base import Meter, Refusal, StreamError, Usage
from proxy.translation.base import StreamTranslator


class TranslatedMeter:
    """Counts what the upstream says, sends what the client understands; see `proxy.dialects.base.Meter` for the promises.

    The end is held back as the inner meter holds it; so is the error of a stream that cannot be translated, which then has `ended` and is
    not `complete`.
    """

    events = True
    skim = None

    def __init__(self, meter: Meter, translator: StreamTranslator) -> None:
        self._meter = meter
        self._translator = translator
        self._held = b""

    def content_type(self, told: bytes) -> bytes | None:
        """Give the type of a stream of events, where the upstream sends one."""
        return self._meter.content_type(told)

    def over(self) -> None:
        """Take note that the upstream's body came to its proper end."""
        self._meter.over()

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give what may be sent to the client now."""
        translated = self._translator.feed(self._meter.feed(chunk))
        if self._translator.failed:
            self._held += translated
            return b""
        return translated

    def tail(self) -> bytes:
        """Give the end of the stream; called once, after the upstream ended and the call is settled."""
        return self._held + self._translator.feed(self._meter.tail()) + self._translator.end()

    def keep_alive(self) -> bytes:
        """Give a comment: the client is always between two events."""
        return sse.KEEP_ALIVE + b"\n"

    def fail(self, refusal: Refusal) -> bytes:
        """Give the error event that ends the stream, once."""
        return self._held + self._translator.feed(self._meter.fail(refusal))

    def conclude(self) -> bytes:
        """Give the events that end the stream early but properly, as a full answer cut by its token limit."""
        return self._held + self._translator.feed(self._meter.conclude()) + self._translator.end()

    @property
    def usage(self) -> Usage:
        """What the answer used so far, as the upstream says."""
        return self._meter.usage

    @property
    def characters(self) -> int:
        """Code points of answer text so far."""
        return self._meter.characters

    @property
    def lines(self) -> int:
        """Lines of answer text so far."""
        return self._meter.lines

    @property
    def first_token_seen(self) -> bool:
        """Whether anything that a model made has come."""
        return self._meter.first_token_seen

    @property
    def ended(self) -> bool:
        """Whether the terminal event or an error, the upstream's or our own, has come."""
        return self._meter.ended or self._translator.failed

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, and could be told."""
        return self._meter.complete and not self._translator.failed

    @property
    def error(self) -> StreamError | None:
        """The failure that the upstream told inside the stream, or that what it told cannot be translated."""
        if self._meter.error is None and self._translator.failed:
            return StreamError("api_error", "The stream cannot be translated.")
        return self._meter.error
