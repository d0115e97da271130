"""Webhook endpoints and what was sent to them."""

from collections.abc import Sequence
from uuid import UUID

from domain import webhooks
from domain.pages import Page, PageOf
from domain.webhooks import DeliveryView, EndpointChanges, EndpointView
from models.enums import WebhookDeliveryStatus
from resolvers.asking import Asking


async def every(asking: Asking) -> list[EndpointView]:
    """The workspace's endpoints, oldest first."""
    return await webhooks.every(asking.known)


async def create(asking: Asking, url: str, events: Sequence[str] | None) -> tuple[EndpointView, str]:
    """Make an endpoint; with it comes its signing secret."""
    lent = asking.facilities
    return await webhooks.create(asking.known, url, events, installation_secret=lent.signing_secret, private_allowed=lent.webhooks_private)


async def update(asking: Asking, endpoint_id: UUID, changes: EndpointChanges) -> EndpointView:
    """Change an endpoint."""
    return await webhooks.update(asking.known, endpoint_id, changes, private_allowed=asking.facilities.webhooks_private)


async def rotate(asking: Asking, endpoint_id: UUID, grace_seconds: int) -> tuple[EndpointView, str]:
    """Give an endpoint a new signing secret."""
    return await webhooks.rotate(asking.known, endpoint_id, grace_seconds, installation_secret=asking.facilities.signing_secret)


async def remove(asking: Asking, endpoint_id: UUID) -> UUID:
    """Delete an endpoint."""
    return await webhooks.remove(asking.known, endpoint_id)


async def deliveries(asking: Asking, endpoint_id: UUID, page: Page, statuses: Sequence[WebhookDeliveryStatus] | None) -> PageOf[DeliveryView]:
    """What was sent to an endpoint, newest first."""
    return await webhooks.deliveries(asking.known, endpoint_id, page, statuses)


async def count_deliveries(asking: Asking, endpoint_id: UUID, statuses: Sequence[WebhookDeliveryStatus] | None) -> int:
    """How much was sent to an endpoint."""
    return await webhooks.count_deliveries(asking.known, endpoint_id, statuses)


async def replay(asking: Asking, delivery_id: UUID) -> DeliveryView:
    """Send a delivery again."""
    return await webhooks.replay(asking.known, delivery_id)
