"""Pages of Stripe: to buy credit, alike in documents 0 and 4, to subscribe, and to manage what was bought."""

from domain.access.callers import Caller
from domain.money import renewals, topups
from domain.money.processor import Processor, ProcessorFailed
from rest.callers import Headers, header
from runtime import Runtime


async def top_up(runtime: Runtime, caller: Caller, headers: Headers, microusd: int, *, path: str) -> tuple[str, str]:
    """Begin a top-up and return the page to pay it at and the id of that page; `Idempotency-Key` makes a repeat return the first.

    Raises what `domain.money.topups.begin` raises, and ProcessorFailed for a repeat whose first page is not to be had any more.
    """
    begun = await topups.begin(
        caller,
        _processor(runtime),
        microusd,
        return_url=_return_url(runtime),
        idempotency_key=header(headers, b"idempotency-key"),
        path=path,
    )
    if begun.session_url is None or begun.session_id is None:
        raise ProcessorFailed(begun.failure_message or "This top-up is over: begin another one.", retryable=False, provider_code=begun.failure_code)
    return begun.session_url, begun.session_id


async def subscribe(runtime: Runtime, caller: Caller, headers: Headers, slug: str) -> tuple[str, str]:
    """Begin a page to subscribe to a tier at; raises what `domain.money.renewals.subscribe` raises."""
    session = await renewals.subscribe(
        caller, _processor(runtime), slug, return_url=_return_url(runtime), idempotency_key=header(headers, b"idempotency-key"), path="tier"
    )
    assert session.url is not None, "a page that was begun has an address"
    return session.url, session.id


async def portal(runtime: Runtime, caller: Caller, headers: Headers) -> str:
    """Return the address of the customer portal; raises what `domain.money.renewals.portal` raises."""
    return await renewals.portal(caller, _processor(runtime), return_url=_return_url(runtime), idempotency_key=header(headers, b"idempotency-key"))


def _processor(runtime: Runtime) -> Processor | None:
    return runtime.payments.processor if runtime.payments else None


def _return_url(runtime: Runtime) -> str:
    return topups.check_return_url(None, runtime.settings.public_url.rstrip("/"))
