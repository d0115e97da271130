"""Duties: rows that say what is still to be done."""

from typing import Any

from tortoise import fields
from tortoise.models import Model

from models.enums import JobStatus
from models.ids import uuid7


class Job(Model):
    """A duty, written in the transaction of the fact that caused it. The queue carries its id and nothing else."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField(null=True)
    kind = fields.CharField(max_length=64)
    payload: Any = fields.JSONField()
    status = fields.CharEnumField(JobStatus, max_length=12)
    tries = fields.IntField(default=0)
    next_at = fields.DatetimeField()
    leased_until = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    failure = fields.TextField(null=True)

    class Meta:
        table = "job"


class Clock(Model):
    """When something that recurs was last done: the memory that a worker's schedule does not have."""

    name = fields.CharField(max_length=64, primary_key=True)
    done_at = fields.DatetimeField()

    class Meta:
        table = "clock"
