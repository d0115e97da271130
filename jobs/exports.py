"""Exports that are owed."""

from domain.duties import Duty
from domain.usage import exports
from runtime import Runtime


async def make(runtime: Runtime, duty: Duty) -> None:
    """Make the file."""
    await exports.make(duty, runtime.files, runtime.store, at=runtime.clock())
