"""Deployments of apps: begun, sent, queued, watched, stopped, gone back to."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from domain.apps import deployments, registry, sites, uploads
from domain.apps.deployments import DeploymentView, FileView, NewFile, Upload
from domain.apps.registry import AppView
from domain.pages import Page, PageOf
from models.enums import JobStatus
from resolvers.asking import Asking

LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Target:
    """Where content is to be sent, and until when."""

    path: str
    url: str
    expires_at: datetime


async def page(asking: Asking, app_id: UUID, wanted: Page) -> PageOf[DeploymentView]:
    """A page of an app's deployments, newest first."""
    return await deployments.page(asking.known, app_id, wanted)


async def count(asking: Asking, app_id: UUID) -> int:
    """How many deployments an app has."""
    return await deployments.count(asking.known, app_id)


async def files(asking: Asking, deployment_id: UUID, wanted: Page) -> PageOf[FileView]:
    """A page of a deployment's files, by path."""
    return await deployments.files(asking.known, deployment_id, wanted)


async def app_of(asking: Asking, app_id: UUID) -> AppView:
    """The app of a deployment."""
    return await registry.find(asking.known, app_id)


async def create(
    asking: Asking, app_id: UUID, given: list[NewFile], message: str | None, idempotency_key: str | None
) -> tuple[DeploymentView, list[Target]]:
    """Begin a deployment; the targets are for the content that the store lacks."""
    found, missing = await deployments.create(asking.known, app_id, given, message, idempotency_key)
    return found, [await _target(asking, found.id, upload) for upload in missing]


async def _target(asking: Asking, deployment_id: UUID, upload: Upload) -> Target:
    store = asking.facilities.store
    assert store is not None, "a process that serves apps has a store"
    expires_at = asking.known.at + timedelta(seconds=deployments.UPLOAD_SECONDS)
    address = await store.upload_address(upload.key, seconds=deployments.UPLOAD_SECONDS)
    if address is None:
        token = uploads.sign(asking.facilities.signing_secret, deployment_id, upload, expires_at)
        address = f"{asking.facilities.public_url}{uploads.PATH}{token}"
    return Target(upload.path, address, expires_at)


async def finalize(asking: Asking, deployment_id: UUID) -> DeploymentView:
    """Queue a deployment whose content has all been sent."""
    assert asking.facilities.store is not None, "a process that serves apps has a store"
    return await deployments.finalize(asking.known, deployment_id, asking.facilities.store)


async def cancel(asking: Asking, deployment_id: UUID) -> DeploymentView:
    """Stop a deployment."""
    return await deployments.cancel(asking.known, deployment_id)


async def rollback(asking: Asking, deployment_id: UUID) -> DeploymentView:
    """Make an earlier deployment live again."""
    return await deployments.rollback(asking.known, deployment_id)


async def changes(asking: Asking, deployment_id: UUID) -> AsyncIterator[DeploymentView]:
    """A deployment at once, then at every change, until it is final; raises NotFound."""
    told: DeploymentView | None = None
    while True:
        found = await deployments.find(asking.known, deployment_id)
        if found != told:
            if told is not None and found.status is JobStatus.SUCCEEDED:
                await asyncio.sleep(sites.FRESH_SECONDS)  # then every process shows it
            yield found
            told = found
        if found.status in deployments.FINAL:
            return
        await asyncio.sleep(LOOK_SECONDS)
