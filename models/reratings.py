"""Re-ratings: what a corrected price would have charged, and what was posted for it."""

from tortoise import fields
from tortoise.models import Model

from models.enums import ActorKind, JobStatus, ReratedCallState
from models.ids import uuid7


class Rerating(Model):
    """A look at the calls of a time with a corrected price, and the posting of what differs.

    `at_workspace` and `at_record` are how far the preview is; `apply_asked_at` is when somebody approved it, `applied_at` when all was posted.
    """

    id = fields.UUIDField(primary_key=True, default=uuid7)
    price_id = fields.UUIDField()
    only_workspace_id = fields.UUIDField(null=True)
    starts_at = fields.DatetimeField()
    ends_at = fields.DatetimeField()
    reason = fields.TextField()
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    applier_kind = fields.CharEnumField(ActorKind, max_length=16, null=True)
    applier_id = fields.UUIDField(null=True)
    applier_name = fields.CharField(max_length=200, null=True)
    status = fields.CharEnumField(JobStatus, max_length=12)
    progress = fields.FloatField(null=True)
    failure = fields.CharField(max_length=300, null=True)
    calls = fields.BigIntField(default=0)
    credited_microusd = fields.BigIntField(default=0)
    charged_microusd = fields.BigIntField(default=0)
    at_workspace = fields.UUIDField(null=True)
    at_record = fields.UUIDField(null=True)
    created_at = fields.DatetimeField()
    previewed_at = fields.DatetimeField(null=True)
    apply_asked_at = fields.DatetimeField(null=True)
    applied_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "rerating"


class ReratingLine(Model):
    """What a re-rating means for one workspace; the rests are what its calls so far leave below a whole microdollar."""

    rerating_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    calls = fields.BigIntField()
    before_microusd = fields.BigIntField()
    after_microusd = fields.BigIntField()
    charge_rest_picousd = fields.BigIntField()
    list_rest_picousd = fields.BigIntField()

    class Meta:
        table = "rerating_line"


class ReratedCall(Model):
    """A call whose amounts a re-rating changes: `charge_picousd` and `list_picousd` are what they should have been, exactly.

    `events` is how many usage events the call had when it was looked at: one that has others when it is posted was changed meanwhile, and is skipped.
    """

    record_id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    rerating_id = fields.UUIDField()
    events = fields.IntField()
    before_microusd = fields.BigIntField()
    change_microusd = fields.BigIntField()
    list_change_microusd = fields.BigIntField()
    charge_picousd = fields.BigIntField()
    list_picousd = fields.BigIntField()
    charge_differs = fields.BooleanField()
    state = fields.CharEnumField(ReratedCallState, max_length=8)
    event_id = fields.UUIDField(null=True)
    posted_at = fields.DatetimeField(null=True)

    class Meta:
        table = "rerated_call"
