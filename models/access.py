"""Workspaces, people, keys. In the database the primary key of a workspace's rows is (workspace_id, id)."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import ActorKind, ApiKeyKind, ApiKeyMode, LimitPer, Measure, Role, SubjectKind
from models.ids import uuid7


class Workspace(Model):
    """A tenant."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    name = fields.CharField(max_length=200)
    default_timezone = fields.CharField(max_length=64, default="UTC")
    retention_days = fields.IntField(null=True)
    stopped_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()
    frozen_at = fields.DatetimeField(null=True)
    overage_allowed = fields.BooleanField(default=False)
    has_grants = fields.BooleanField(default=False)

    class Meta:
        table = "workspace"


class User(Model):
    """A person, known by an issuer's subject; without one while only an invitation names the address."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    issuer = fields.CharField(max_length=400, null=True)
    subject = fields.CharField(max_length=400, null=True)
    email = fields.CharField(max_length=320, null=True, db_index=True)
    name = fields.CharField(max_length=200, null=True)
    operator = fields.BooleanField(default=False)
    created_at = fields.DatetimeField()

    class Meta:
        table = "users"
        unique_together = (("issuer", "subject"),)


class Member(Model):
    """A person's place in a workspace, or an open invitation to it; a row that ended keeps `removed_at`."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    user_id = fields.UUIDField(db_index=True)
    role = fields.CharEnumField(Role, max_length=16)
    invited_by = fields.UUIDField(null=True)
    invited_at = fields.DatetimeField(null=True)
    invitation_expires_at = fields.DatetimeField(null=True)
    joined_at = fields.DatetimeField(null=True)
    removed_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "member"


class ApiKey(Model):
    """A key: what it may do. Its secrets are child rows, so that rotation keeps the key."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    name = fields.CharField(max_length=200, null=True)
    kind = fields.CharEnumField(ApiKeyKind, max_length=16)
    mode = fields.CharEnumField(ApiKeyMode, max_length=8)
    scopes = ArrayField(element_type="text")
    allowed_models = ArrayField(element_type="text", null=True)
    allowed_origins = ArrayField(element_type="text", null=True)
    allowed_addresses = ArrayField(element_type="text", null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "api_key"


class ApiKeySecret(Model):
    """The directory of secrets over all workspaces: SHA-256 in hex, never the secret."""

    hash = fields.CharField(max_length=64, primary_key=True)
    workspace_id = fields.UUIDField()
    key_id = fields.UUIDField()
    prefix = fields.CharField(max_length=16)
    suffix = fields.CharField(max_length=4)
    created_at = fields.DatetimeField()
    works_until = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "api_key_secret"
        indexes = (("workspace_id", "key_id"),)


class Bound(Model):
    """The most that a subject may spend, call or hold in a window."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    subject_kind = fields.CharEnumField(SubjectKind, max_length=16)
    subject_id = fields.UUIDField()
    measure = fields.CharEnumField(Measure, max_length=16)
    window = fields.CharField(max_length=32)
    most = fields.BigIntField()
    per = fields.CharEnumField(LimitPer, max_length=16)
    model = fields.CharField(max_length=200, null=True)
    position = fields.IntField()
    created_at = fields.DatetimeField()
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "bound"


class BoundWindow(Model):
    """What one window of a bound has spent and holds, updated in place; guarded by the lock on the workspace's cash account."""

    bound_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    scope = fields.CharField(max_length=300)
    started_at = fields.DatetimeField(null=True)
    ends_at = fields.DatetimeField(null=True)
    spent = fields.BigIntField()
    held = fields.BigIntField()

    class Meta:
        table = "bound_window"


class Idempotency(Model):
    """What a request with an idempotency key has done; written in the transaction of its effect."""

    key = fields.CharField(max_length=255, primary_key=True)
    scope_id = fields.UUIDField()
    operation = fields.CharField(max_length=64)
    input_hash = fields.CharField(max_length=64)
    subject_id = fields.UUIDField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "idempotency"


class ClientToken(Model):
    """A short-lived token that a browser holds; what it has spent is kept as a bound's."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    app_id = fields.UUIDField(null=True)
    end_user = fields.CharField(max_length=255, null=True)
    key_id = fields.UUIDField(null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    allowed_origins: Any = ArrayField("TEXT", null=True)
    allowed_models: Any = ArrayField("TEXT", null=True)
    spend_cap = fields.BigIntField(null=True)
    request_cap = fields.BigIntField(null=True)
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "client_token"


class EndUser(Model):
    """Somebody whom calls or client tokens name, under an app or none; the id is a hash of workspace, app and name, so that a call finds it without a look-up.

    `wallet_id` is the account that pays its calls in place of the workspace's cash; null until credit is first moved there.
    """

    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    app_id = fields.UUIDField(null=True)
    external_id = fields.CharField(max_length=255)
    blocked_at = fields.DatetimeField(null=True)
    first_seen_at = fields.DatetimeField()
    last_seen_at = fields.DatetimeField(null=True)
    wallet_id = fields.UUIDField(null=True)

    class Meta:
        table = "end_user"
