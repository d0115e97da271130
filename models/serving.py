"""Inference calls: what was admitted, what is held, and every upstream try. Partitioned by ranges of the call's uuidv7."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import ApiKeyKind, ApiKeyMode, HoldState, IdempotentAnswerState, UsageOutcome


class Call(Model):
    """One inference request as it was admitted; never changed."""

    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    key_id = fields.UUIDField(null=True)
    key_kind = fields.CharEnumField(ApiKeyKind, max_length=16)
    mode = fields.CharEnumField(ApiKeyMode, max_length=8)
    user_id = fields.UUIDField(null=True)
    client_token_id = fields.UUIDField(null=True)
    app_id = fields.UUIDField(null=True)
    end_user = fields.CharField(max_length=255, null=True)
    conversation = fields.CharField(max_length=255, null=True)
    language = fields.CharField(max_length=35, null=True)
    tags: dict[str, str] | None = fields.JSONField(null=True)
    api_name = fields.CharField(max_length=64)
    endpoint = fields.CharField(max_length=100)
    dialect = fields.CharField(max_length=16)
    preset = fields.CharField(max_length=64, null=True)
    requested_model = fields.CharField(max_length=200)
    model = fields.CharField(max_length=200)
    upstream = fields.CharField(max_length=100)
    price_id = fields.UUIDField(null=True)
    streamed = fields.BooleanField()
    input_tokens = fields.BigIntField()
    requested_max_output = fields.BigIntField(null=True)
    granted_output = fields.BigIntField()
    clamped = fields.BooleanField()
    created_at = fields.DatetimeField()
    route_reason = fields.CharField(max_length=200, null=True)
    clamp_reason = fields.CharField(max_length=16, null=True)
    idempotent = fields.BooleanField(default=False)

    class Meta:
        table = "call"


class Hold(Model):
    """What a call has set aside, and how far it is: the one row of a call that changes, until it is closed once.

    `payer` is `cash`, `quota`, `wallet`, or null for a call that costs nothing; `amount` is held of `account_id`, `part_amounts` of the grants in
    `part_ids`, which pay first, or of the one wallet there, which pays the charge times `wallet_markup`. `bound_most` has the limit of a quota as
    it was when the call was let in, and null for every other bound.
    """

    call_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    account_id = fields.UUIDField(null=True)
    amount = fields.BigIntField()
    state = fields.CharEnumField(HoldState, max_length=10)
    held_output = fields.BigIntField()
    extensions = fields.IntField(default=0)
    bound_ids = ArrayField(element_type="uuid", null=True)
    bound_scopes = ArrayField(element_type="text", null=True)
    bound_held = ArrayField(element_type="bigint", null=True)
    progress: Any = fields.JSONField(null=True)
    progress_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField()
    created_at = fields.DatetimeField()
    closed_at = fields.DatetimeField(null=True)
    closed_by = fields.CharField(max_length=10, null=True)
    charge_picousd = fields.BigIntField(null=True)
    charge_microusd = fields.BigIntField(null=True)
    payer = fields.CharField(max_length=8, null=True)
    part_ids = ArrayField(element_type="uuid", null=True)
    part_amounts = ArrayField(element_type="bigint", null=True)
    bound_most = ArrayField(element_type="bigint", null=True)
    wallet_markup = fields.DecimalField(max_digits=12, decimal_places=6, null=True)

    class Meta:
        table = "hold"


class Attempt(Model):
    """One upstream try of a call, with its own usage and cost."""

    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    call_id = fields.UUIDField()
    number = fields.IntField()
    upstream = fields.CharField(max_length=100)
    model = fields.CharField(max_length=200)
    outcome = fields.CharEnumField(UsageOutcome, max_length=10)
    http_status = fields.IntField(null=True)
    error_code = fields.CharField(max_length=64, null=True)
    usage: Any = fields.JSONField()
    cost_picousd = fields.BigIntField()
    started_at = fields.DatetimeField()
    first_byte_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField()
    reason = fields.CharField(max_length=32, default="first")
    price_id = fields.UUIDField(null=True)
    charged = fields.BooleanField(default=False)

    class Meta:
        table = "attempt"


class IdempotentAnswer(Model):
    """A call that its client named by a key of its own, and its answer, sealed; a `claimed` one is under way, or was lost with its process.

    `id` is a hash of workspace, API key and idempotency key; none of the latter two is stored, and the answer is sealed with a key made of both.
    """

    id = fields.CharField(max_length=64, primary_key=True)
    workspace_id = fields.UUIDField()
    request_hash = fields.CharField(max_length=64)
    call_id = fields.UUIDField()
    state = fields.CharEnumField(IdempotentAnswerState, max_length=10)
    sealed = fields.BinaryField(null=True)
    leased_until = fields.DatetimeField()
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)

    class Meta:
        table = "idempotent_answer"


class UpstreamHealth(Model):
    """What one process knows of an upstream, written every few seconds so that all processes know it; a row that is old is of a process that is gone."""

    process_id = fields.UUIDField(primary_key=True)
    upstream = fields.CharField(max_length=100)
    seen_at = fields.DatetimeField()
    calls_under_way = fields.IntField()
    cools_until = fields.DatetimeField(null=True)
    tries = fields.IntField()
    failures = fields.IntField()
    first_byte_ms = ArrayField(element_type="int")
    limits: Any = fields.JSONField()
    failed_at = fields.DatetimeField(null=True)
    failure_code = fields.CharField(max_length=64, null=True)
    failure_message = fields.CharField(max_length=300, null=True)
    failure_retryable = fields.BooleanField(null=True)

    class Meta:
        table = "upstream_health"


class Replay(Model):
    """How often a call's answer was given again under its idempotency key; no row for never."""

    call_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    replays = fields.IntField()

    class Meta:
        table = "replay"


class KeptAnswer(Model):
    """An answer that its provider keeps, by a hash of the provider's id: only the workspace that was given it may go on from it."""

    id = fields.CharField(max_length=64, primary_key=True)
    workspace_id = fields.UUIDField()
    created_at = fields.DatetimeField()
    upstream = fields.CharField(max_length=100, null=True)

    class Meta:
        table = "kept_answer"
