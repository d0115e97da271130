"""Alert rules."""

import datetime
from typing import Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.errors import NotFound, Required
from domain.usage.alerts import IN_MONEY, NewRule, RuleChanges, RuleView, Threshold
from models import enums
from models.enums import AlertMetric, Scope, SubjectKind
from schema import ids
from schema.access import check
from schema.amounts import Money
from schema.context import Info
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Node
from schema.scalars import EmailAddress, MicroUsd, SafeInt, Window
from schema.webhooks import WebhookEndpoint

SUBJECTS = {SubjectKind.WORKSPACE: "Workspace", SubjectKind.KEY: "ApiKey", SubjectKind.APP: "App"}
READING = {SubjectKind.KEY: Scope.KEYS_READ, SubjectKind.APP: Scope.APPS_READ}
"""What an alert can watch, as global IDs name it, and what a caller needs to see it."""


@strawberry.type(description="A threshold to watch. It fires once in each window.")
class AlertRule(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    name: str = field(description="The display name.")
    metric: enums.AlertMetric = field(description="What it measures.")
    amount: Money | None = field(description="The threshold, for an amount of money; null for another metric.")
    count: SafeInt | None = field(description="The threshold, for a count or percentage; null for money.")
    window: Window | None = field(description="The window; null for BALANCE and BUDGET_PERCENT, which have none or their own.")
    emails: list[EmailAddress] = field(description="Addresses to tell.")
    enabled: bool = field(description="Whether it is on.")
    last_fired_at: datetime.datetime | None = field(description="When it last fired.")
    created_at: datetime.datetime = field(description="When it was made.")
    watched: strawberry.Private[tuple[SubjectKind, UUID]]
    endpoint_key: strawberry.Private[UUID | None]

    @resolved("The workspace, key or app it watches.")
    async def subject(self, info: Info) -> Node:
        """Load it."""
        from schema.refetch import refetch

        kind, key = self.watched
        if kind in READING:
            check(info.context, READING[kind])
        found = await refetch(info.context, ids.encode(SUBJECTS[kind], key))
        assert found is not None, "workspaces and keys stay in their tables, and a rule goes with its app"
        return found

    @resolved("The endpoint to tell; null for e-mail only.")
    async def webhook_endpoint(self, info: Info) -> WebhookEndpoint | None:
        """Load it."""
        found = await info.context.webhook_endpoints.load(self.endpoint_key) if self.endpoint_key else None
        return WebhookEndpoint.of(found) if found else None

    @classmethod
    def of(cls, rule: RuleView) -> Self:
        """The rule as GraphQL shows it."""
        money = rule.metric in IN_MONEY
        return cls(
            id=ids.encode("AlertRule", rule.id),
            name=rule.name,
            metric=rule.metric,
            amount=Money.of(rule.threshold) if money else None,
            count=None if money else SafeInt(rule.threshold),
            window=None if rule.window is None else Window(rule.window),
            emails=[EmailAddress(email) for email in rule.emails],
            enabled=rule.enabled,
            last_fired_at=rule.last_fired_at,
            created_at=rule.created_at,
            watched=(rule.subject_kind, rule.subject_id),
            endpoint_key=rule.endpoint_id,
        )


@strawberry.input(description="When an alert fires: exactly one of these.", one_of=True)
class AlertThreshold:
    """As the contract has it."""

    spend: MicroUsd | None = field(description="The charge of the window reaches this.", default=UNSET)
    balance: MicroUsd | None = field(description="What can be spent falls below this.", default=UNSET)
    tokens: SafeInt | None = field(description="The tokens of the window reach this.", default=UNSET)
    errors: SafeInt | None = field(description="The failed calls of the window reach this.", default=UNSET)
    budget_percent: int | None = field(description="Any budget of the subject is used to this percentage.", default=UNSET)

    def wanted(self) -> Threshold:
        """As the domain takes it."""
        given = {
            AlertMetric.SPEND: self.spend,
            AlertMetric.BALANCE: self.balance,
            AlertMetric.TOKENS: self.tokens,
            AlertMetric.ERRORS: self.errors,
            AlertMetric.BUDGET_PERCENT: self.budget_percent,
        }
        return next(Threshold(metric, value) for metric, value in given.items() if isinstance(value, int))


@strawberry.input(description="Input of alertRuleCreate.")
class AlertRuleCreateInput:
    """As the contract has it."""

    name: str = field(description="The display name.")
    subject_id: strawberry.ID | None = field(description="The key or app to watch; the whole workspace when absent.", default=UNSET)
    threshold: AlertThreshold = field(description="When it fires.")
    window: Window | None = field(description="The window, for spend, tokens and errors; `day` when absent.", default=UNSET)
    webhook_endpoint_id: strawberry.ID | None = field(description="The endpoint to tell.", default=UNSET)
    emails: list[EmailAddress] = field(description="Addresses to tell.", default_factory=list)

    def new(self) -> NewRule:
        """As the domain takes it; raises NotFound for an ID of something else."""
        return NewRule(
            name=self.name,
            threshold=self.threshold.wanted(),
            subject=None if (subject_id := given(self.subject_id)) is None else _subject(subject_id),
            window=self.window or None,
            endpoint_id=_endpoint(self.webhook_endpoint_id),
            emails=self.emails,
        )


@strawberry.input(description="Input of alertRuleUpdate. An absent field stays as it is; null clears it.")
class AlertRuleUpdateInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The rule.")
    name: str | None = field(description="The display name; it cannot be cleared.", default=UNSET)
    threshold: AlertThreshold | None = field(description="When it fires; it cannot be cleared.", default=UNSET)
    window: Window | None = field(description="The window.", default=UNSET)
    webhook_endpoint_id: strawberry.ID | None = field(description="The endpoint to tell; null means e-mail only.", default=UNSET)
    emails: list[EmailAddress] | None = field(description="Addresses to tell; replaces the old list.", default=UNSET)
    enabled: bool | None = field(description="Whether it is on.", default=UNSET)

    def changes(self) -> RuleChanges:
        """As the domain takes it; raises Required where null would clear what cannot be cleared."""
        for name, value in (("name", self.name), ("threshold", self.threshold)):
            if value is None:
                raise Required("This cannot be cleared.", path=(name,))
        return RuleChanges(
            name=given(self.name),
            threshold=self.threshold.wanted() if isinstance(self.threshold, AlertThreshold) else None,
            window=self.window or None,
            endpoint_id=_endpoint(self.webhook_endpoint_id),
            clear_endpoint=self.webhook_endpoint_id is None,
            emails=[] if self.emails is None else self.emails if isinstance(self.emails, list) else None,
            enabled=self.enabled if isinstance(self.enabled, bool) else None,
        )


@strawberry.input(description="Input of alertRuleDelete.")
class AlertRuleDeleteInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The rule.")


def _subject(global_id: str) -> tuple[SubjectKind, UUID]:
    for kind, name in SUBJECTS.items():
        key = ids.uuid_of(name, global_id)
        if key is not None:
            return kind, key
    raise NotFound("key or app", path=("subjectId",))


def _endpoint(global_id: str | None) -> UUID | None:
    if global_id is None or global_id is UNSET:
        return None
    key = ids.uuid_of("WebhookEndpoint", global_id)
    if key is None:
        raise NotFound("webhook endpoint", path=("webhookEndpointId",))
    return key
