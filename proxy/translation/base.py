"""What every translation can do, and how a body of a client is read for it."""

import re
from typing import Protocol, TypeVar

import msgspec

from proxy.dialects.base import Ask, BadRequest

T = TypeVar("T")

_FIELD = re.compile(r" - at `\$\.(\w+)")


class StreamTranslator(Protocol):
    """Turns a stream of the upstream's dialect into one of the client's, whole events at a time.

    Where the chunks are cut changes nothing. Between two calls the client is between two events. An error that the upstream tells becomes
    the client's error event, after which nothing comes.
    """

    def feed(self, chunk: bytes) -> bytes:
        """Take what the upstream sent; give the events that are complete by now, maybe nothing. Never raises."""
        ...

    def end(self) -> bytes:
        """Give the end of the stream once the upstream has closed: the terminal event, or an error event when the answer was cut."""
        ...

    @property
    def failed(self) -> bool:
        """Whether an error of our own has ended the stream, because what came could not be translated."""
        ...


class Translation(Protocol):
    """One direction; `proxy.translation.anthropic_to_openai` and `proxy.translation.openai_to_anthropic` are such modules.

    `client` is the form of the client's request, `upstream` the dialect that it is said in.
    """

    client: str
    upstream: str

    def request(self, body: bytes, *, max_output_tokens: int) -> bytes:
        """Translate a client's request body that its own dialect has parsed; `max_output_tokens` stands in where it must name a bound.

        Raises BadRequest, naming the field or the tool, for what the other dialect cannot express.
        """
        ...

    def answer(self, body: bytes, ask: Ask, *, created_seconds: int) -> bytes:
        """Translate an upstream's whole, successful answer; `ask` is what the client asked, `created_seconds` the Unix time.

        Raises Untranslatable when the body is no answer.
        """
        ...

    def stream(self, ask: Ask, *, created_seconds: int) -> StreamTranslator:
        """Make the translator of one streamed answer."""
        ...

    def error(self, status: int, body: bytes, request_id: str) -> bytes:
        """Translate an upstream's error body, word for word; the status stays. Never raises: what it cannot read is told by its status."""
        ...


class Untranslatable(Exception):
    """What an upstream sent is no answer of its dialect."""


def read(body: bytes, shape: type[T]) -> T:
    """Decode a client's body. Raises BadRequest, which names the field where the shape is another."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        field = _FIELD.search(str(error))
        raise BadRequest(f"The request body cannot be translated: {error}.", field[1] if field else None) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadRequest("The request body cannot be read as JSON.") from None


def read_answer(body: bytes, shape: type[T]) -> T:
    """Decode an upstream's answer. Raises Untranslatable."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Untranslatable(str(error)) from None


def refused(where: str, what: str) -> BadRequest:
    """Make the refusal of what the other dialect cannot express; `where` is a path such as `messages.0.content.1`."""
    return BadRequest(f"{where}: {what} cannot be translated for this model, which is served in another dialect.", where.partition(".")[0])
