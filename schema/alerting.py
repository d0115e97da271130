"""The root fields of alerts and webhooks, and what their mutations answer."""

from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import field

from domain.errors import NotFound, Required
from models.enums import Scope
from resolvers import alerts, webhooks
from schema import ids
from schema.access import Requires, requires
from schema.alerts import AlertRule, AlertRuleCreateInput, AlertRuleDeleteInput, AlertRuleUpdateInput
from schema.context import Info
from schema.fields import resolved
from schema.scalars import Secret
from schema.user_errors import Repairable, UserError
from schema.webhooks import (
    WebhookDelivery,
    WebhookDeliveryReplayInput,
    WebhookEndpoint,
    WebhookEndpointCreateInput,
    WebhookEndpointDeleteInput,
    WebhookEndpointRotateInput,
    WebhookEndpointUpdateInput,
)


@strawberry.type(description="Result of alertRuleCreate.")
class AlertRuleCreatePayload:
    """As the contract has it."""

    alert_rule: AlertRule | None = field(description="The rule.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of alertRuleUpdate.")
class AlertRuleUpdatePayload:
    """As the contract has it."""

    alert_rule: AlertRule | None = field(description="The rule.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of alertRuleDelete.")
class AlertRuleDeletePayload:
    """As the contract has it."""

    deleted_alert_rule_id: strawberry.ID | None = field(description="The ID of the rule that is gone.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of webhookEndpointCreate.")
class WebhookEndpointCreatePayload:
    """As the contract has it."""

    webhook_endpoint: WebhookEndpoint | None = field(description="The endpoint.", default=None)
    secret: Secret | None = field(description="The signing secret, shown this once.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of webhookEndpointUpdate.")
class WebhookEndpointUpdatePayload:
    """As the contract has it."""

    webhook_endpoint: WebhookEndpoint | None = field(description="The endpoint.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of webhookEndpointRotate.")
class WebhookEndpointRotatePayload:
    """As the contract has it."""

    webhook_endpoint: WebhookEndpoint | None = field(description="The endpoint.", default=None)
    secret: Secret | None = field(description="The new signing secret, shown this once.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of webhookEndpointDelete.")
class WebhookEndpointDeletePayload:
    """As the contract has it."""

    deleted_webhook_endpoint_id: strawberry.ID | None = field(description="The ID of the endpoint that is gone.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type(description="Result of webhookDeliveryReplay.")
class WebhookDeliveryReplayPayload:
    """As the contract has it."""

    webhook_delivery: WebhookDelivery | None = field(description="The new delivery.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


def _row(kind: str, global_id: str, what: str) -> UUID:
    found = ids.uuid_of(kind, global_id)
    if found is None:
        raise NotFound(what, path=("id",))
    return found


@strawberry.type
class AlertQueries:
    """Reads of alerts and webhooks."""

    @resolved("What to watch and whom to tell, oldest first. Requires scope `ALERTS_READ`.", extensions=requires(Scope.ALERTS_READ))
    async def alert_rules(self, info: Info) -> list[AlertRule] | None:
        """Read them."""
        return [AlertRule.of(rule) for rule in await alerts.every(info.context)]

    @resolved("Addresses that events are sent to, oldest first. Requires scope `ALERTS_READ`.", extensions=requires(Scope.ALERTS_READ))
    async def webhook_endpoints(self, info: Info) -> list[WebhookEndpoint] | None:
        """Read them."""
        return [WebhookEndpoint.of(endpoint) for endpoint in await webhooks.every(info.context)]


@strawberry.type
class AlertMutations:
    """Writes of alerts and webhooks."""

    @resolved("Watch a threshold. Requires scope `ALERTS_WRITE`.", extensions=[Repairable(AlertRuleCreatePayload), Requires(Scope.ALERTS_WRITE)])
    async def alert_rule_create(
        self, info: Info, input: Annotated[AlertRuleCreateInput, strawberry.argument(description="What to watch.")]
    ) -> AlertRuleCreatePayload | None:
        """Make a rule."""
        return AlertRuleCreatePayload(alert_rule=AlertRule.of(await alerts.create(info.context, input.new())))

    @resolved(
        "Change an alert rule, or switch it. Requires scope `ALERTS_WRITE`.",
        extensions=[Repairable(AlertRuleUpdatePayload), Requires(Scope.ALERTS_WRITE)],
    )
    async def alert_rule_update(
        self, info: Info, input: Annotated[AlertRuleUpdateInput, strawberry.argument(description="What to change.")]
    ) -> AlertRuleUpdatePayload | None:
        """Change a rule."""
        rule = await alerts.update(info.context, _row("AlertRule", input.id, "alert rule"), input.changes())
        return AlertRuleUpdatePayload(alert_rule=AlertRule.of(rule))

    @resolved("Delete an alert rule. Requires scope `ALERTS_WRITE`.", extensions=[Repairable(AlertRuleDeletePayload), Requires(Scope.ALERTS_WRITE)])
    async def alert_rule_delete(
        self, info: Info, input: Annotated[AlertRuleDeleteInput, strawberry.argument(description="The rule.")]
    ) -> AlertRuleDeletePayload | None:
        """Delete a rule."""
        gone = await alerts.remove(info.context, _row("AlertRule", input.id, "alert rule"))
        return AlertRuleDeletePayload(deleted_alert_rule_id=ids.encode("AlertRule", gone))

    @resolved(
        "Send events to an address. The payload's `secret` is shown this once. Requires scope `ALERTS_WRITE`.",
        extensions=[Repairable(WebhookEndpointCreatePayload), Requires(Scope.ALERTS_WRITE)],
    )
    async def webhook_endpoint_create(
        self, info: Info, input: Annotated[WebhookEndpointCreateInput, strawberry.argument(description="The endpoint.")]
    ) -> WebhookEndpointCreatePayload | None:
        """Make an endpoint."""
        events = input.events if isinstance(input.events, list) else None
        endpoint, secret = await webhooks.create(info.context, input.url, events)
        return WebhookEndpointCreatePayload(webhook_endpoint=WebhookEndpoint.of(endpoint), secret=Secret(secret))

    @resolved(
        "Change an endpoint, or switch it. Requires scope `ALERTS_WRITE`.",
        extensions=[Repairable(WebhookEndpointUpdatePayload), Requires(Scope.ALERTS_WRITE)],
    )
    async def webhook_endpoint_update(
        self, info: Info, input: Annotated[WebhookEndpointUpdateInput, strawberry.argument(description="What to change.")]
    ) -> WebhookEndpointUpdatePayload | None:
        """Change an endpoint."""
        if input.url is None:
            raise Required("This cannot be cleared.", path=("url",))
        endpoint = await webhooks.update(info.context, _row("WebhookEndpoint", input.id, "webhook endpoint"), input.changes())
        return WebhookEndpointUpdatePayload(webhook_endpoint=WebhookEndpoint.of(endpoint))

    @resolved(
        "Give an endpoint a new signing secret; both sign until the grace period ends. Requires scope `ALERTS_WRITE`.",
        extensions=[Repairable(WebhookEndpointRotatePayload), Requires(Scope.ALERTS_WRITE)],
    )
    async def webhook_endpoint_rotate(
        self, info: Info, input: Annotated[WebhookEndpointRotateInput, strawberry.argument(description="The endpoint.")]
    ) -> WebhookEndpointRotatePayload | None:
        """Give an endpoint a new secret."""
        endpoint, secret = await webhooks.rotate(info.context, _row("WebhookEndpoint", input.id, "webhook endpoint"), input.grace_seconds)
        return WebhookEndpointRotatePayload(webhook_endpoint=WebhookEndpoint.of(endpoint), secret=Secret(secret))

    @resolved(
        "Delete an endpoint. What waits for it is dropped. Requires scope `ALERTS_WRITE`.",
        extensions=[Repairable(WebhookEndpointDeletePayload), Requires(Scope.ALERTS_WRITE)],
    )
    async def webhook_endpoint_delete(
        self, info: Info, input: Annotated[WebhookEndpointDeleteInput, strawberry.argument(description="The endpoint.")]
    ) -> WebhookEndpointDeletePayload | None:
        """Delete an endpoint."""
        gone = await webhooks.remove(info.context, _row("WebhookEndpoint", input.id, "webhook endpoint"))
        return WebhookEndpointDeletePayload(deleted_webhook_endpoint_id=ids.encode("WebhookEndpoint", gone))

    @resolved(
        "Send a delivery again, under the same event ID. Requires scope `ALERTS_WRITE`.",
        extensions=[Repairable(WebhookDeliveryReplayPayload), Requires(Scope.ALERTS_WRITE)],
    )
    async def webhook_delivery_replay(
        self, info: Info, input: Annotated[WebhookDeliveryReplayInput, strawberry.argument(description="The delivery.")]
    ) -> WebhookDeliveryReplayPayload | None:
        """Send it again."""
        delivery = await webhooks.replay(info.context, _row("WebhookDelivery", input.id, "webhook delivery"))
        return WebhookDeliveryReplayPayload(webhook_delivery=WebhookDelivery.of(delivery))
