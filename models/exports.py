"""Files made from reports and lists."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import ActorKind, ExportColumns, ExportDataset, ExportFormat, JobStatus
from models.ids import uuid7


class Export(Model):
    """A file made in the background. `question` and `scopes` are what it reads, with the rights of whoever asked, as they were."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    dataset = fields.CharEnumField(ExportDataset, max_length=16)
    format = fields.CharEnumField(ExportFormat, max_length=12)
    columns = fields.CharEnumField(ExportColumns, max_length=8)
    question: Any = fields.JSONField()
    scopes = ArrayField(element_type="text")
    user_id = fields.UUIDField(null=True)
    key_id = fields.UUIDField(null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    status = fields.CharEnumField(JobStatus, max_length=12)
    rows = fields.BigIntField(default=0)
    bytes = fields.BigIntField(default=0)
    progress = fields.FloatField(null=True)
    tries = fields.IntField(default=0)
    failure_code = fields.CharField(max_length=64, null=True)
    failure = fields.CharField(max_length=300, null=True)
    object = fields.CharField(max_length=200, null=True)
    created_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField(null=True)

    class Meta:
        table = "export"
