"""Reconciliations: what was computed beside what a provider billed."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import ActorKind, JobStatus
from models.ids import uuid7


class Reconciliation(Model):
    """A provider's bill beside our attempts. `bill` is what was sent, null where the provider is asked; the transfer is what approval booked, if anything."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    provider = fields.CharField(max_length=100)
    upstreams = ArrayField(element_type="text")
    source = fields.CharField(max_length=300)
    starts_at = fields.DatetimeField()
    ends_at = fields.DatetimeField()
    bill: Any = fields.JSONField(null=True)
    computed_microusd = fields.BigIntField()
    billed_microusd = fields.BigIntField()
    coverage = fields.FloatField()
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    approver_kind = fields.CharEnumField(ActorKind, max_length=16, null=True)
    approver_id = fields.UUIDField(null=True)
    approver_name = fields.CharField(max_length=200, null=True)
    approved_at = fields.DatetimeField(null=True)
    transfer_workspace_id = fields.UUIDField(null=True)
    transfer_id = fields.UUIDField(null=True)
    status = fields.CharEnumField(JobStatus, max_length=12)
    progress = fields.FloatField(null=True)
    failure = fields.CharField(max_length=300, null=True)
    created_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "reconciliation"


class ReconciliationLine(Model):
    """One item of a bill, on one day where the bill has days; the largest difference stands first."""

    position = fields.IntField(primary_key=True)
    reconciliation_id = fields.UUIDField()
    item = fields.CharField(max_length=200)
    used_on = fields.DateField(null=True)
    computed_picousd = fields.BigIntField()
    billed_picousd = fields.BigIntField()

    class Meta:
        table = "reconciliation_line"
