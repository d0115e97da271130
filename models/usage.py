"""What was used: append-only events, the queue of those not yet folded, and the cells that reports read."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import ApiKeyMode, CacheMissReason, PromptPart, TokenCountSource, UsageEventKind, UsageOutcome


class UsageEvent(Model):
    """One fact of usage. A call's first event has its call's id; what changes it later is a new event with differences."""

    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    record_id = fields.UUIDField()
    kind = fields.CharEnumField(UsageEventKind, max_length=12)
    mode = fields.CharEnumField(ApiKeyMode, max_length=8)
    at = fields.DatetimeField()
    created_at = fields.DatetimeField()
    key_id = fields.UUIDField(null=True)
    user_id = fields.UUIDField(null=True)
    client_token_id = fields.UUIDField(null=True)
    app_id = fields.UUIDField(null=True)
    end_user = fields.CharField(max_length=255, null=True)
    conversation = fields.CharField(max_length=255, null=True)
    language = fields.CharField(max_length=35, null=True)
    tags: Any = fields.JSONField(null=True)
    api_name = fields.CharField(max_length=64)
    endpoint = fields.CharField(max_length=100)
    preset = fields.CharField(max_length=64, null=True)
    requested_model = fields.CharField(max_length=200, null=True)
    model = fields.CharField(max_length=200, null=True)
    provider = fields.CharField(max_length=100, null=True)
    streamed = fields.BooleanField()
    outcome = fields.CharEnumField(UsageOutcome, max_length=10)
    http_status = fields.IntField(null=True)
    error_code = fields.CharField(max_length=64, null=True)
    requests = fields.IntField()
    errors = fields.IntField()
    units = fields.BigIntField()
    input_tokens = fields.BigIntField()
    output_tokens = fields.BigIntField()
    cache_read_tokens = fields.BigIntField()
    cache_write_5m_tokens = fields.BigIntField()
    cache_write_1h_tokens = fields.BigIntField()
    reasoning_tokens = fields.BigIntField()
    other_buckets: Any = fields.JSONField(null=True)
    characters = fields.BigIntField()
    lines = fields.BigIntField()
    charge_microusd = fields.BigIntField()
    list_microusd = fields.BigIntField()
    charge_picousd = fields.BigIntField()
    list_picousd = fields.BigIntField()
    upstream_cost_picousd = fields.BigIntField()
    price_id = fields.UUIDField(null=True)
    latency_ms = fields.IntField(null=True)
    first_token_ms = fields.IntField(null=True)
    token_source = fields.CharEnumField(TokenCountSource, max_length=10)
    needs_review = fields.BooleanField()
    api_key_used = fields.CharField(max_length=64, null=True)
    reason = fields.TextField(null=True)
    actor_kind = fields.CharField(max_length=16, null=True)
    actor_id = fields.UUIDField(null=True)
    actor_name = fields.CharField(max_length=200, null=True)
    wallet_microusd = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "usage_event"


class UsagePending(Model):
    """An event that is in no cell yet; written in the event's transaction, deleted in that of the fold."""

    event_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()

    class Meta:
        table = "usage_pending"


class UsageCell(Model):
    """Folded usage of a quarter of an hour, at one of four levels: the workspace, a model, an app with a key and an outcome, or a language (in `model`)."""

    at = fields.DatetimeField(primary_key=True)
    workspace_id = fields.UUIDField()
    level = fields.SmallIntField()
    model = fields.CharField(max_length=200)
    app_id = fields.UUIDField()
    key_id = fields.UUIDField()
    outcome = fields.CharField(max_length=10)
    requests = fields.BigIntField()
    errors = fields.BigIntField()
    units = fields.BigIntField()
    input_tokens = fields.BigIntField()
    output_tokens = fields.BigIntField()
    cache_read_tokens = fields.BigIntField()
    cache_write_5m_tokens = fields.BigIntField()
    cache_write_1h_tokens = fields.BigIntField()
    reasoning_tokens = fields.BigIntField()
    characters = fields.BigIntField()
    lines = fields.BigIntField()
    charge_microusd = fields.BigIntField()
    list_microusd = fields.BigIntField()
    upstream_cost_picousd = fields.BigIntField()
    latency = ArrayField(element_type="bigint", null=True)
    first_token = ArrayField(element_type="bigint", null=True)
    succeeded = fields.BigIntField(default=0, db_default=0)
    cancelled = fields.BigIntField(default=0, db_default=0)
    wallet_microusd = fields.BigIntField(default=0, db_default=0)

    class Meta:
        table = "usage_cell"


class UsageSpan(Model):
    """Usage of a whole hour or a whole day of UTC (`hours` is 1 or 24), at the levels of cells: the sum of the cells in it, once it is closed."""

    at = fields.DatetimeField(primary_key=True)
    workspace_id = fields.UUIDField()
    hours = fields.SmallIntField()
    level = fields.SmallIntField()
    model = fields.CharField(max_length=200)
    app_id = fields.UUIDField()
    key_id = fields.UUIDField()
    outcome = fields.CharField(max_length=10)
    requests = fields.BigIntField()
    errors = fields.BigIntField()
    units = fields.BigIntField()
    input_tokens = fields.BigIntField()
    output_tokens = fields.BigIntField()
    cache_read_tokens = fields.BigIntField()
    cache_write_5m_tokens = fields.BigIntField()
    cache_write_1h_tokens = fields.BigIntField()
    reasoning_tokens = fields.BigIntField()
    characters = fields.BigIntField()
    lines = fields.BigIntField()
    charge_microusd = fields.BigIntField()
    list_microusd = fields.BigIntField()
    upstream_cost_picousd = fields.BigIntField()
    latency = ArrayField(element_type="bigint", null=True)
    first_token = ArrayField(element_type="bigint", null=True)
    succeeded = fields.BigIntField()
    cancelled = fields.BigIntField()
    wallet_microusd = fields.BigIntField()

    class Meta:
        table = "usage_span"


class UsageClosing(Model):
    """Until when a workspace's days and hours are closed, midnights of UTC: before it spans are whole, from it on there are cells alone.

    `looked_until` is the midnight at which it was last asked whether closing would gain anything.
    """

    workspace_id = fields.UUIDField(primary_key=True)
    days_until = fields.DatetimeField()
    hours_until = fields.DatetimeField()
    looked_until = fields.DatetimeField()

    class Meta:
        table = "usage_closing"


class UsageName(Model):
    """The number of an end user (kind 0) or a conversation (kind 1) in its workspace, found by a hash that does not tell the name."""

    person = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    kind = fields.SmallIntField()
    number = fields.IntField()

    class Meta:
        table = "usage_name"


class UsageNameCount(Model):
    """How many numbers of a kind a workspace has given."""

    workspace_id = fields.UUIDField(primary_key=True)
    kind = fields.SmallIntField()
    names = fields.IntField()

    class Meta:
        table = "usage_name_count"


class Bits(fields.TextField):
    """A bitmap of 32,768 bits, as text of 0 and 1."""

    SQL_TYPE = "BIT(32768)"


class UsagePeople(Model):
    """The end users or conversations that were named on a day of UTC with an app: bit n of `people` is the name whose number is `part` * 32768 + n."""

    used_on = fields.DateField(primary_key=True)
    workspace_id = fields.UUIDField()
    kind = fields.SmallIntField()
    app_id = fields.UUIDField()
    part = fields.IntField()
    people = Bits()

    class Meta:
        table = "usage_people"


class UsageRetired(Model):
    """Until when a workspace's single calls are gone, and what the events that are gone add up to, by mode; no row while all are there."""

    workspace_id = fields.UUIDField(primary_key=True)
    mode = fields.CharEnumField(ApiKeyMode, max_length=8)
    before = fields.DatetimeField()
    events = fields.BigIntField()
    requests = fields.BigIntField()
    input_tokens = fields.BigIntField()
    output_tokens = fields.BigIntField()
    cache_read_tokens = fields.BigIntField()
    cache_write_5m_tokens = fields.BigIntField()
    cache_write_1h_tokens = fields.BigIntField()
    charge_microusd = fields.BigIntField()
    list_microusd = fields.BigIntField()
    charge_picousd = fields.DecimalField(max_digits=38, decimal_places=0)
    list_picousd = fields.DecimalField(max_digits=38, decimal_places=0)
    wallet_microusd = fields.BigIntField()

    class Meta:
        table = "usage_retired"


class UsagePerson(Model):
    """What `usage_people` replaced; empty, and here for the functions of the version before."""

    person = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    kind = fields.SmallIntField()
    used_on = fields.DateField()
    app_id = fields.UUIDField()

    class Meta:
        table = "usage_person"


class CacheMiss(Model):
    """A call that could have read more from the prompt cache than it did, and what that cost; numbers alone, nothing of the prompt, no digest of it."""

    call_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    previous_id = fields.UUIDField()
    at = fields.DatetimeField()
    reason = fields.CharEnumField(CacheMissReason, max_length=20)
    part = fields.CharEnumField(PromptPart, max_length=10, null=True)
    message_index = fields.IntField(null=True)
    shared_tokens = fields.BigIntField()
    missed_tokens = fields.BigIntField()
    cost_microusd = fields.BigIntField()

    class Meta:
        table = "cache_miss"
