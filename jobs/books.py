"""The nightly look at the books."""

from datetime import datetime
from typing import Any

import structlog

from domain.errors import Refusal
from domain.money import books, entries
from domain.money.processor import Processor
from runtime import Runtime

log = structlog.get_logger()


async def check_books(ctx: dict[str, Any]) -> None:
    """Look at the books with what Stripe lists now, where payments are on."""
    runtime: Runtime = ctx["runtime"]
    await look(runtime.payments.processor if runtime.payments else None, at=runtime.clock())


async def look(processor: Processor | None, *, at: datetime) -> None:
    """Look at every invariant, remember what was found for `/metrics`, and raise an alarm for each that is broken; never mend one."""
    if processor is not None:
        try:
            await entries.read(processor, at=at, again=entries.THOROUGH)
        except Refusal as refusal:
            log.error("Stripe's entries could not be read", reason=refusal.message)
    found = await books.check()
    await books.keep(found)
    for check in found.checks:
        if not check.sound:
            log.error("books are not sound", check=check.name, broken=check.broken, difference_microusd=check.difference_microusd, examples=check.examples)
