"""The nightly look at the books."""

from typing import Any

import structlog

from domain.money import books

log = structlog.get_logger()


async def check_books(ctx: dict[str, Any]) -> None:
    """Look at every invariant, remember what was found for `/metrics`, and raise an alarm for each that is broken; never mend one."""
    found = await books.check()
    await books.keep(found)
    for check in found.checks:
        if not check.sound:
            log.error("books are not sound", check=check.name, broken=check.broken, difference_microusd=check.difference_microusd, examples=check.examples)
