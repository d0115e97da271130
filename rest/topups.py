"""Beginning a top-up, alike in documents 0 and 4."""

from domain.access.callers import Caller
from domain.money import topups
from domain.money.processor import ProcessorFailed
from rest.callers import Headers, header
from runtime import Runtime


async def top_up(runtime: Runtime, caller: Caller, headers: Headers, microusd: int, *, path: str) -> tuple[str, str]:
    """Begin a top-up and return the page to pay it at and the id of that page; `Idempotency-Key` makes a repeat return the first.

    Raises what `domain.money.topups.begin` raises, and ProcessorFailed for a repeat whose first page is not to be had any more.
    """
    begun = await topups.begin(
        caller,
        runtime.payments.processor if runtime.payments else None,
        microusd,
        return_url=topups.check_return_url(None, runtime.settings.public_url.rstrip("/")),
        idempotency_key=header(headers, b"idempotency-key"),
        path=path,
    )
    if begun.session_url is None or begun.session_id is None:
        raise ProcessorFailed(begun.failure_message or "This top-up is over: begin another one.", retryable=False, provider_code=begun.failure_code)
    return begun.session_url, begun.session_id
