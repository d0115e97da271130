"""Webhook endpoints and what was sent to them."""

import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.errors import Required
from domain.pages import PageOf
from domain.webhooks import DeliveryView, EndpointChanges, EndpointView
from models import enums
from resolvers import webhooks as resolvers
from schema import ids, pages
from schema.context import Info
from schema.directives import PAGED
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Failure, Node
from schema.scalars import JSON, URL, SafeInt

Statuses = Annotated[list[enums.WebhookDeliveryStatus] | None, strawberry.argument(description="Only those in one of these statuses.")]


@strawberry.type(description="An address that events are sent to, signed as Standard Webhooks describes.")
class WebhookEndpoint(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    url: URL = field(description="The address.")
    events: list[str] | None = field(description="The events it gets, of `service.webhookEvents`; null means all.")
    enabled: bool = field(description="Whether it is on.")
    created_at: datetime.datetime = field(description="When it was made.")
    key: strawberry.Private[UUID]

    @resolved("What was sent to it, newest first.", directives=[PAGED])
    async def deliveries(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        statuses: Statuses = UNSET,
    ) -> "WebhookDeliveryConnection":
        """Read a page of them."""
        wanted = statuses if isinstance(statuses, list) else None
        page = await resolvers.deliveries(info.context, self.key, pages.page_of("WebhookDelivery", first, after, last, before), wanted)
        return WebhookDeliveryConnection(page=page, of=self, statuses=wanted)

    @classmethod
    def of(cls, endpoint: EndpointView) -> Self:
        """The endpoint as GraphQL shows it."""
        return cls(
            id=ids.encode("WebhookEndpoint", endpoint.id),
            url=URL(endpoint.url),
            events=None if endpoint.events is None else list(endpoint.events),
            enabled=endpoint.enabled,
            created_at=endpoint.created_at,
            key=endpoint.id,
        )


@strawberry.type(description="One event sent to one endpoint, tried until it is taken or given up.")
class WebhookDelivery(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    event: str = field(description="The event's name, for example `alert.fired`.")
    event_id: str = field(description="The event's ID, the same in every delivery of it, for receivers to drop repeats.")
    payload: JSON = field(description="What is sent.")
    status: enums.WebhookDeliveryStatus = field(description="Where it stands.")
    tries: int = field(description="How often it was tried.")
    http_status: int | None = field(description="The HTTP status last answered.")
    failure: Failure | None = field(description="Why the last try failed; null after a success.")
    next_try_at: datetime.datetime | None = field(description="When it will be tried next.")
    created_at: datetime.datetime = field(description="When the event happened.")
    delivered_at: datetime.datetime | None = field(description="When it was taken.")
    endpoint_key: strawberry.Private[UUID]

    @resolved("The endpoint.")
    async def endpoint(self, info: Info) -> WebhookEndpoint:
        """Load it; one that was deleted is shown as it was."""
        found = await info.context.webhook_endpoints.load(self.endpoint_key)
        assert found is not None, "endpoints stay in the table, and the delivery was the caller's"
        return WebhookEndpoint.of(found)

    @classmethod
    def of(cls, delivery: DeliveryView) -> Self:
        """The delivery as GraphQL shows it."""
        pending = delivery.status is enums.WebhookDeliveryStatus.PENDING
        failure = None
        if delivery.failure_code is not None:
            failure = Failure(code=delivery.failure_code, message=delivery.failure or "", retryable=pending)
        return cls(
            id=ids.encode("WebhookDelivery", delivery.id),
            event=delivery.event,
            event_id=delivery.event_id,
            payload=JSON(delivery.payload),
            status=delivery.status,
            tries=delivery.tries,
            http_status=delivery.http_status,
            failure=failure,
            next_try_at=delivery.next_try_at,
            created_at=delivery.created_at,
            delivered_at=delivery.delivered_at,
            endpoint_key=delivery.endpoint_id,
        )


@strawberry.type(description="A delivery and its place.")
class WebhookDeliveryEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: WebhookDelivery = field(description="The delivery.")


@strawberry.type(description="A page of deliveries.")
class WebhookDeliveryConnection:
    """A page of deliveries."""

    page: strawberry.Private[PageOf[DeliveryView]]
    of: strawberry.Private[WebhookEndpoint]
    statuses: strawberry.Private[list[enums.WebhookDeliveryStatus] | None]

    @resolved("The page.")
    def edges(self) -> list[WebhookDeliveryEdge]:
        """Show the page."""
        return [WebhookDeliveryEdge(cursor=pages.cursor("WebhookDelivery", each.id), node=WebhookDelivery.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[WebhookDelivery]:
        """Show the page."""
        return [WebhookDelivery.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("WebhookDelivery", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count_deliveries(info.context, self.of.key, self.statuses))


@strawberry.input(description="Input of webhookEndpointCreate.")
class WebhookEndpointCreateInput:
    """As the contract has it."""

    url: URL = field(description="The address. It must be HTTPS and public.")
    events: list[str] | None = field(description="The events it gets, of `service.webhookEvents`; all when absent.", default=UNSET)


@strawberry.input(description="Input of webhookEndpointUpdate. An absent field stays as it is; null clears it.")
class WebhookEndpointUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The endpoint.")
    url: URL | None = field(description="The address; it cannot be cleared.", default=UNSET)
    events: list[str] | None = field(description="The events it gets; null means all.", default=UNSET)
    enabled: bool | None = field(description="Whether it is on.", default=UNSET)

    def changes(self) -> EndpointChanges:
        """As the domain takes it; raises Required where null would clear what cannot be cleared."""
        for name, value in (("url", self.url), ("enabled", self.enabled)):
            if value is None:
                raise Required("This cannot be cleared.", path=(name,))
        return EndpointChanges(
            url=given(self.url),
            events=self.events if isinstance(self.events, list) else None,
            keep_events=self.events is UNSET,
            enabled=self.enabled if isinstance(self.enabled, bool) else None,
        )


@strawberry.input(description="Input of webhookEndpointRotate.")
class WebhookEndpointRotateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The endpoint.")
    grace_seconds: int = field(description="Seconds for which the old secret still signs too, 0 to 604800.", default=86400)


@strawberry.input(description="Input of webhookEndpointDelete.")
class WebhookEndpointDeleteInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The endpoint.")


@strawberry.input(description="Input of webhookDeliveryReplay.")
class WebhookDeliveryReplayInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The delivery.")
