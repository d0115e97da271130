"""Comparisons with providers' bills that are owed."""

from domain.duties import Duty
from domain.money import reconciliations
from runtime import Runtime


async def compare(runtime: Runtime, duty: Duty) -> None:
    """Read the bill and compare it."""
    await reconciliations.compare(duty, runtime.book, runtime.bills)
