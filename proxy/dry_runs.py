"""What a call would cost, and whether it would be let in, without making it."""

import time

import msgspec

from domain import errors
from domain.money.catalogue import PriceVersion, quote
from domain.serving.dry_runs import weigh
from models.enums import Bucket
from proxy.admission import Arrival, Prepared, prepare, prove, translated
from proxy.dialects.base import Answer, BadRequest
from runtime import Runtime

HEADER = b"x-tallygate-dry-run"
PICO = 1_000_000
_WORDS = {b"true": True, b"1": True, b"false": False, b"0": False, b"": False}
_TOLD = (errors.InsufficientCredit, errors.BoundReached, errors.Forbidden)
"""The refusals that a dry run tells of as its result; any other is the request's own fault, and is answered as if it had been made."""


def wanted(value: bytes) -> bool:
    """Tell whether a request is to be priced and not made; raises BadRequest for a word that is neither."""
    try:
        return _WORDS[value.strip().lower()]
    except KeyError:
        raise BadRequest(f"{HEADER.decode()}: Input should be `true` or `false`") from None


async def price(runtime: Runtime, arrival: Arrival) -> Answer:
    """Price a request and ask admission what it would say now; nothing is held, sent or recorded.

    The answer has the same shape in every dialect. Raises BadRequest, or a domain refusal for what could not be priced.
    """
    call = await prepare(runtime, arrival)
    told = _estimate(call)
    try:
        admitted = await weigh(runtime.calls, call.opening)
    except _TOLD as refused:
        await prove(arrival.head.secret)
        answer = call.dialect.refuse(translated(refused, arrival.request_id, now_seconds=time.time()))
        told |= {"would_be_admitted": False, "refusal": {"status": answer.status, "code": refused.code, "message": refused.message}}
    else:
        clamped = admitted.output_tokens // max(call.ask.choices, 1) if admitted.clamped else None
        told |= {"would_be_admitted": True, "hold_microusd": admitted.hold_microusd, "max_tokens_clamped": clamped}
    return Answer(200, [(b"content-type", b"application/json")], msgspec.json.encode(told))


def _counts(price: PriceVersion, bucket: Bucket) -> bool:
    """Tell whether a bucket is a part of the least that a call costs: one that has a price, and is not made by the answer."""
    return price.prices(bucket) and bucket is not Bucket.AUDIO_OUTPUT


def _estimate(call: Prepared) -> dict[str, object]:
    """Return what the call would cost at list price: its input and no answer at least, its longest answer by the dearest candidate at most."""
    opening, first = call.opening, call.plan.candidates[0]
    given = {Bucket.UNCACHED_INPUT: opening.input_tokens, Bucket.CALLS: 1} | dict(call.ask.besides)
    least = quote(first.price, {bucket: quantity for bucket, quantity in given.items() if _counts(first.price, bucket)}, service_tier=None, geography=None)
    most = opening.input_picousd + opening.output_picousd * opening.max_output_tokens
    return {
        "object": "dry_run",
        "requested_model": opening.requested_model,
        "model": opening.model,
        "route": call.plan.reason,
        "fallbacks": [candidate.model.name for candidate in call.plan.candidates[1:] if candidate.model.name != opening.model],
        "input_tokens": opening.input_tokens,
        "max_output_tokens": opening.max_output_tokens,
        "cost_microusd": {"minimum": -(-least.picousd // PICO), "maximum": -(-most // PICO)},
        "would_be_admitted": False,
        "hold_microusd": None,
        "max_tokens_clamped": None,
        "refusal": None,
    }
