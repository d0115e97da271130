"""Apps: what a maker registered. In the database the primary key of a workspace's rows is (workspace_id, id)."""

from typing import Any

from tortoise import fields
from tortoise.models import Model

from models.enums import ActorKind
from models.ids import uuid7


class AppName(Model):
    """The directory of slugs over all workspaces; one without an app is a tombstone, kept for the workspace that had it."""

    slug = fields.CharField(max_length=50, primary_key=True)
    workspace_id = fields.UUIDField()
    app_id = fields.UUIDField(null=True)
    taken_at = fields.DatetimeField()

    class Meta:
        table = "app_name"


class App(Model):
    """A front end that usage can be attributed to."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    slug = fields.CharField(max_length=50)
    name = fields.CharField(max_length=200)
    description = fields.TextField(null=True)
    manifest: Any = fields.JSONField()
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    wallet_markup = fields.DecimalField(max_digits=12, decimal_places=6)
    suspended_at = fields.DatetimeField(null=True)
    live_deployment_id = fields.UUIDField(null=True)
    last_version = fields.IntField(default=0)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()
    deleted_at = fields.DatetimeField(null=True)

    class Meta:
        table = "app"
