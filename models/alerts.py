"""Alert rules, and the signed messages that leave: endpoints and what was sent to each."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import AlertMetric, SubjectKind, WebhookDeliveryStatus
from models.ids import uuid7


class WebhookEndpoint(Model):
    """An address that events are sent to. Its signing secret is derived from `generation`, never stored."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    url = fields.CharField(max_length=2000)
    events = ArrayField(element_type="text", null=True)
    enabled = fields.BooleanField(default=True)
    generation = fields.IntField(default=1)
    previous_until = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "webhook_endpoint"


class WebhookDelivery(Model):
    """One event for one endpoint, written in the transaction of the event; its duty sends it."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    endpoint_id = fields.UUIDField()
    event = fields.CharField(max_length=64)
    event_id = fields.CharField(max_length=64)
    payload: Any = fields.JSONField()
    status = fields.CharEnumField(WebhookDeliveryStatus, max_length=10)
    tries = fields.IntField(default=0)
    http_status = fields.IntField(null=True)
    failure_code = fields.CharField(max_length=64, null=True)
    failure = fields.CharField(max_length=300, null=True)
    next_try_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    delivered_at = fields.DatetimeField(null=True)

    class Meta:
        table = "webhook_delivery"


class AlertRule(Model):
    """A threshold to watch. `quiet_until` ends the window in which it has fired; `fired_for` remembers what has no window of its own."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    name = fields.CharField(max_length=200)
    subject_kind = fields.CharEnumField(SubjectKind, max_length=16)
    subject_id = fields.UUIDField()
    metric = fields.CharEnumField(AlertMetric, max_length=16)
    threshold = fields.BigIntField()
    window = fields.CharField(max_length=32, null=True)
    endpoint_id = fields.UUIDField(null=True)
    emails = ArrayField(element_type="text")
    enabled = fields.BooleanField(default=True)
    checked_at = fields.DatetimeField(null=True)
    last_fired_at = fields.DatetimeField(null=True)
    quiet_until = fields.DatetimeField(null=True)
    fired_for: Any = fields.JSONField()
    created_at = fields.DatetimeField()
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "alert_rule"
