"""Who changed what."""

from typing import Any

from tortoise import fields
from tortoise.models import Model

from models.enums import ActorKind
from models.ids import uuid7


class AuditEvent(Model):
    """One change, written in its transaction; never changed, never deleted. A change to the service itself has the nil workspace."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    action = fields.CharField(max_length=64)
    actor_kind = fields.CharEnumField(ActorKind, max_length=16)
    actor_id = fields.UUIDField(null=True)
    actor_name = fields.CharField(max_length=200)
    subject_kind = fields.CharField(max_length=40, null=True)
    subject_id = fields.CharField(max_length=200, null=True)
    changes: Any = fields.JSONField()
    reason = fields.TextField(null=True)
    request_id = fields.CharField(max_length=100, null=True)
    address = fields.CharField(max_length=64, null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "audit_event"
