"""Jobs of apps: publish what was deployed, end what nobody goes on with, collect what nobody needs."""

from typing import Any

from domain.apps import blobs, deployments, publishing
from domain.duties import Duty
from runtime import Runtime


async def publish(runtime: Runtime, duty: Duty) -> None:
    """Publish a deployment, or as much of it as fits into one turn."""
    await publishing.publish(duty, runtime.store, runtime.compressor)


async def tidy_apps(ctx: dict[str, Any]) -> None:
    """End abandoned deployments and collect content that nobody needs; to run every few minutes, in any number of processes."""
    runtime: Runtime = ctx["runtime"]
    await deployments.tidy(runtime.store)
    await blobs.collect(runtime.store)
