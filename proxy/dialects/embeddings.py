"""OpenAI Embeddings: text in, vectors out, never streamed; only input is charged."""

import msgspec

from models.enums import Bucket
from proxy import splice
from proxy.dialects.base import Ask, BadRequest, Reading, Usage
from proxy.dialects.bodies import Body, identity
from proxy.dialects.counting import BYTES_PER_TOKEN
from proxy.dialects.numbers import Unsound, doubtful, word
from proxy.dialects.numbers import count as count_of
from proxy.dialects.openai.errors import refuse, response_headers
from proxy.dialects.openai.request import request_headers
from proxy.dialects.openai.stream import meter

name = "openai"
form = "embeddings"
upstream_path = "/v1/embeddings"

__all__ = ["count", "form", "meter", "name", "parse", "read", "refuse", "request_headers", "response_headers", "rewrite", "upstream_path"]

_NOTHING = msgspec.Raw()
_INPUT = msgspec.json.Decoder(str | list[str | int | list[int]])


class _Answer(msgspec.Struct):
    """An answer, without building its vectors."""

    data: msgspec.Raw = _NOTHING
    model: object = None
    usage: object = None


_ANSWER = msgspec.json.Decoder(_Answer)


def parse(body: bytes) -> Ask:
    """Read a request body: a text, several, or tokens; unknown fields are the upstream's matter. Raises BadRequest and nothing else.

    Source: the Embeddings API reference.
    """
    read_body = Body(body)
    return Ask(
        model=read_body.model(),
        streamed=False,
        input_tokens=_count(read_body),
        max_output_tokens=0,
        choices=1,
        include_usage=True,
        end_user=identity(read_body.value("user")),
        conversation=None,
        spans=read_body.spans,
        needs=((Bucket.UNCACHED_INPUT,),),
    )


def count(body: bytes) -> int:
    """Estimate the input tokens of a body. Raises BadRequest and nothing else."""
    return _count(Body(body))


def rewrite(body: bytes, ask: Ask, *, model: str | None = None, max_output_tokens: int | None = None) -> bytes:
    """Give the body with another model's name; every other byte is the client's (F37). There is no output to bound."""
    return splice.put(body, {"model": msgspec.json.encode(model)}, ask.spans) if model is not None and model != ask.model else body


def read(body: bytes, ask: Ask) -> Reading:
    """Read a whole answer that came with status 200; never raises. Without sound usage, input is the counted one."""
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        answer = _Answer()
    if not bytes(answer.data).startswith(b"["):
        return Reading(Usage(), 0, 0, complete=False)
    model = word(answer.model)
    try:
        if not isinstance(answer.usage, dict) or answer.usage.get("prompt_tokens") is None:
            raise Unsound("usage")
        usage = Usage(input_tokens=count_of(answer.usage, "prompt_tokens"), model=model, reported=True)
    except Unsound as fault:
        usage = Usage(input_tokens=ask.input_tokens, model=model, doubtful=doubtful(fault))
    return Reading(usage, 0, 0, complete=True)


def _count(read_body: Body) -> int:
    for written in read_body.raw(("input",)):
        try:
            given = _INPUT.decode(written)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise BadRequest("input: Input should be a text, an array of texts, or tokens", "input") from None
        return max(1, sum(map(_tokens, [given] if isinstance(given, str) else given)))
    raise BadRequest("input: Field required", "input")


def _tokens(given: str | int | list[int]) -> int:
    if isinstance(given, str):
        return -(-len(given.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
    return 1 if isinstance(given, int) else len(given)
