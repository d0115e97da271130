"""GET /health/books: whether the books are sound, looked at now, for operators."""

from datetime import datetime

from domain.money import books
from domain.money.amounts import usd
from rest.doors import Ask, Document, Operation
from rest.fields import Nothing, Told
from rest.shapes import PLAIN, PlainError


class ToldCheck(Told):
    """One thing that must hold; `difference_usd` is by how much it is broken in all."""

    name: str
    description: str
    sound: bool
    broken: int
    difference_usd: str
    examples: list[str]


class ToldReport(Told):
    """Every check of the books, as of one snapshot."""

    sound: bool
    checked_at: datetime
    checks: list[ToldCheck]


async def _report(ask: Ask[Nothing]) -> ToldReport:
    found = await books.report(ask.caller)
    checks = [
        ToldCheck(
            name=check.name,
            description=check.description,
            sound=check.sound,
            broken=check.broken,
            difference_usd=usd(check.difference_microusd),
            examples=list(check.examples),
        )
        for check in found.checks
    ]
    return ToldReport(sound=found.sound, checked_at=found.checked_at, checks=checks)


DOCUMENT = Document(
    name="Books",
    shape=lambda headers: PLAIN,
    errors=PlainError,
    operations=(Operation("GET", "/health/books", "Whether the books are sound, looked at now; for operators.", Nothing, ToldReport, _report, refusals=(403,)),),
)
