"""Apps: what a maker registered. In the database the primary key of a workspace's rows is (workspace_id, id)."""

from typing import Any

from tortoise import fields
from tortoise.models import Model

from models.enums import ActorKind, JobStatus
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
    minter_kind = fields.CharEnumField(ActorKind, max_length=16, null=True)
    minter_id = fields.UUIDField(null=True)
    minter_name = fields.CharField(max_length=200, null=True)

    class Meta:
        table = "app"


class Deployment(Model):
    """One version of an app's files, and how far its publication is."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    app_id = fields.UUIDField()
    version = fields.IntField()
    message = fields.TextField(null=True)
    status = fields.CharEnumField(JobStatus, max_length=16)
    digest = fields.CharField(max_length=64)
    file_count = fields.IntField()
    total_bytes = fields.BigIntField()
    done_bytes = fields.BigIntField(default=0)
    log: Any = fields.JSONField()
    job_id = fields.UUIDField(null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    created_at = fields.DatetimeField()
    finished_at = fields.DatetimeField(null=True)
    failure_code = fields.CharField(max_length=64, null=True)
    failure_message = fields.TextField(null=True)
    failure_retryable = fields.BooleanField(default=False)
    staged = fields.BooleanField(default=False)

    class Meta:
        table = "deployment"


class Blob(Model):
    """Content that is kept for an app, once whatever the number of files that have it; whole when `stored_at` is set."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    app_id = fields.UUIDField()
    sha256 = fields.CharField(max_length=64)
    bytes = fields.BigIntField()
    gzip_bytes = fields.BigIntField(null=True)
    brotli_bytes = fields.BigIntField(null=True)
    stored_at = fields.DatetimeField(null=True)
    touched_at = fields.DatetimeField()
    collected_at = fields.DatetimeField(null=True)
    erased_at = fields.DatetimeField(null=True)

    class Meta:
        table = "blob"


class DeployedFile(Model):
    """A file of a deployment, in the order of paths."""

    deployment_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    position = fields.IntField()
    path = fields.TextField()
    content_type = fields.CharField(max_length=100)
    bytes = fields.BigIntField()
    sha256 = fields.CharField(max_length=64)
    blob_id = fields.UUIDField(null=True)

    class Meta:
        table = "deployed_file"
