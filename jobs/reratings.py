"""Re-ratings that are owed."""

from domain.duties import Duty
from domain.serving import reratings
from runtime import Runtime


async def preview(runtime: Runtime, duty: Duty) -> None:
    """Look at the calls."""
    await reratings.preview(duty, runtime.book)


async def post(runtime: Runtime, duty: Duty) -> None:
    """Post what differs."""
    await reratings.post(duty)
