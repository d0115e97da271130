"""Calls to admit and to end, as the inference road asks for them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from domain.access import secrets
from domain.access.callers import Actor
from domain.money.catalogue import Book, PriceVersion, make_row
from domain.serving.calls import Admitted, AttemptMade, Calls, Consumption, Ending, Opening, Sign
from models.enums import ActorKind, Bucket, UsageOutcome
from models.ids import uuid7


def listed(book: Book, model: str) -> PriceVersion:
    """Return the shipped price of a model. `echo` costs 1 microdollar a token of input and 2 a token of output."""
    price = book.price(model, datetime.now(UTC))
    assert price is not None
    return price


def priced(model: str, **usd_per_million: str) -> PriceVersion:
    """Make a price that is in no book, for calls that no sweep will end: dollars for a million of each bucket."""
    now = datetime.now(UTC)
    rows = tuple(make_row(Bucket(bucket), usd) for bucket, usd in usd_per_million.items())
    return PriceVersion(uuid7(), model, None, rows, now, None, "test", Actor(ActorKind.SYSTEM, None, "tests"), now)


def opening(secret: str, price: PriceVersion, *, input_tokens: int, max_output: int, instalment: int | None = None, **more: Any) -> Opening:
    """Make a call that asks to be let in; with an `instalment` it streams."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "fingerprint": secrets.fingerprint(secret),
        "road": "generic",
        "endpoint": "/v1/chat/completions",
        "api_name": "chat.completions",
        "dialect": "openai",
        "requested_model": price.model,
        "model": price.model,
        "echo": price.model == "echo",
        "upstream": "echo",
        "price": price,
        "streamed": instalment is not None,
        "input_tokens": input_tokens,
        "requested_max_output": max_output,
        "max_output_tokens": max_output,
        "instalment_tokens": max_output if instalment is None else instalment,
        "created_at": datetime.now(UTC),
    }
    return Opening(**(values | more))


def used(input_tokens: int, output_tokens: int, **more: int) -> Consumption:
    """Make a consumption whose numbers the provider reported."""
    quantities = {"uncached_input": input_tokens, "output": output_tokens, **more}
    return Consumption(quantities={bucket: quantity for bucket, quantity in quantities.items() if quantity}, reported=True)


def ending(admitted: Admitted, price: PriceVersion, consumption: Consumption) -> Ending:
    """Make the end of a call that went well at its first try."""
    now = datetime.now(UTC)
    attempt = AttemptMade(uuid7(), 1, "echo", price.model, UsageOutcome.SUCCEEDED, 200, None, now, now, now)
    return Ending(
        workspace_id=admitted.workspace_id,
        call_id=admitted.call_id,
        model=price.model,
        provider="echo",
        price=price,
        consumption=consumption,
        outcome=UsageOutcome.SUCCEEDED,
        http_status=200,
        error_code=None,
        latency_ms=12,
        attempts=(attempt,),
    )


def sign(of: Opening, workspace_id: UUID, consumption: Consumption, *, output_tokens: int | None = None) -> Sign:
    """Make a sign of life of a call."""
    return Sign(workspace_id, of.id, of.model, of.upstream, of.price, (), consumption, output_tokens, of.input_tokens, of.input_picousd, of.output_picousd, of.standing)


def calls(book: Book, *, batch: int = 500, hold_seconds: int = 60) -> Calls:
    """Make what one process has of the books of calls."""
    return Calls(book, batch=batch, hold_seconds=hold_seconds)
