"""Two translations in a row, as one: what a client says in the second's words is said to the upstream in the first's."""


from msgspec.structs import replace

from proxy.dialects.base import Ask
from proxy.translation.base import StreamTranslator, Translation


class Chain:
    """Translates by way of a dialect between; see `proxy.translation.base.Translation`."""

    def __init__(self, near: Translation, far: Translation) -> None:
        self.client = near.client
        self.upstream = far.upstream
        self._near = near
        self._far = far

    def request(self, body: bytes, *, max_output_tokens: int) -> bytes:
        """Translate a client's request body, twice. Raises BadRequest."""
        return self._far.request(self._near.request(body, max_output_tokens=max_output_tokens), max_output_tokens=max_output_tokens)

    def answer(self, body: bytes, ask: Ask, *, created_seconds: int) -> bytes:
        """Translate an upstream's whole, successful answer, twice. Raises Untranslatable."""
        between = self._far.answer(body, ask, created_seconds=created_seconds)
        return self._near.answer(between, ask, created_seconds=created_seconds)

    def stream(self, ask: Ask, *, created_seconds: int) -> StreamTranslator:
        """Make the translator of one streamed answer."""
        far = self._far.stream(replace(ask, include_usage=True), created_seconds=created_seconds)
        return _ChainedStream(self._near.stream(ask, created_seconds=created_seconds), far)

    def error(self, status: int, body: bytes, request_id: str) -> bytes:
        """Translate an upstream's error body, twice. Never raises."""
        return self._near.error(status, self._far.error(status, body, request_id), request_id)


class _ChainedStream:
    """Two translators of one stream; see `proxy.translation.base.StreamTranslator`."""

    def __init__(self, near: StreamTranslator, far: StreamTranslator) -> None:
        self._near = near
        self._far = far

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give the events that are complete by now."""
        return self._near.feed(self._far.feed(chunk))

    def end(self) -> bytes:
        """Give the end of the stream."""
        return self._near.feed(self._far.end()) + self._near.end()

    @property
    def failed(self) -> bool:
        """Whether an error of our own has ended the stream."""
        return self._far.failed or self._near.failed
