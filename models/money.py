"""The ledger's accounts and transfers, and the versions of prices."""

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from models.enums import ActorKind, BillingCycle, LedgerAccountKind, SubscriptionSource, SubscriptionStatus, TransferKind
from models.ids import uuid7


class Account(Model):
    """An account of a workspace's ledger, in microdollars.

    Spendable kinds (cash, grant, wallet) carry a running balance, `credits - debits`; the service's own kinds carry none, because they
    would be hot, and are summed from transfers. The cash row is the lock of everything that its workspace spends.
    """

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    kind = fields.CharEnumField(LedgerAccountKind, max_length=16)
    credits = fields.BigIntField(default=0)
    debits = fields.BigIntField(default=0)
    held = fields.BigIntField(default=0)
    floor = fields.BigIntField(default=0)
    version = fields.BigIntField(default=0)
    carry_picousd = fields.BigIntField(default=0)
    list_carry_picousd = fields.BigIntField(default=0)
    updated_at = fields.DatetimeField()

    class Meta:
        table = "account"


class Transfer(Model):
    """One posting: `amount` leaves `debit_id` and enters `credit_id`. Never changed, never deleted."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    debit_id = fields.UUIDField()
    credit_id = fields.UUIDField()
    amount = fields.BigIntField()
    kind = fields.CharEnumField(TransferKind, max_length=20)
    ref = fields.CharField(max_length=255)
    call_id = fields.UUIDField(null=True)
    reason = fields.TextField(null=True)
    actor_kind = fields.CharEnumField(ActorKind, max_length=16)
    actor_id = fields.UUIDField(null=True)
    actor_name = fields.CharField(max_length=200)
    debit_balance_after = fields.BigIntField(null=True)
    debit_seq = fields.BigIntField(null=True)
    credit_balance_after = fields.BigIntField(null=True)
    credit_seq = fields.BigIntField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "transfer"


class CatalogueModel(Model):
    """A model of language as clients name it."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    name = fields.CharField(max_length=200, unique=True)
    display_name = fields.CharField(max_length=200)
    aliases = ArrayField(element_type="text")
    vendor = fields.CharField(max_length=100, null=True)
    context_window = fields.IntField(null=True)
    max_output_tokens = fields.IntField(null=True)
    capabilities = ArrayField(element_type="text")
    created_at = fields.DatetimeField()
    retires_at = fields.DatetimeField(null=True)

    class Meta:
        table = "catalogue_model"


class Price(Model):
    """One immutable version of a model's prices; `rows` is a list of `domain.money.catalogue.PriceRow` as JSON."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    model = fields.CharField(max_length=200)
    upstream = fields.CharField(max_length=100, null=True)
    rows: list[dict[str, Any]] = fields.JSONField()
    effective_from = fields.DatetimeField()
    source = fields.CharField(max_length=300)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    created_at = fields.DatetimeField()

    class Meta:
        table = "price"
        indexes = (("model", "effective_from"),)


class MarkupRule(Model):
    """What list values are multiplied with to make charges; model, workspace, tier and app null for all. It never changes but for its end."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    model = fields.CharField(max_length=200, null=True)
    workspace_id = fields.UUIDField(null=True)
    tier = fields.CharField(max_length=64, null=True)
    app_id = fields.UUIDField(null=True)
    numerator = fields.BigIntField()
    denominator = fields.BigIntField()
    effective_from = fields.DatetimeField()
    effective_until = fields.DatetimeField(null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    created_at = fields.DatetimeField()

    class Meta:
        table = "markup_rule"


class Tier(Model):
    """A tier as the tiers file has it; `limits` is a list of {resource, window, most}, most null for no limit. One that left the file is retired."""

    slug = fields.CharField(max_length=64, primary_key=True)
    position = fields.IntField()
    name = fields.CharField(max_length=200)
    product_name = fields.CharField(max_length=200)
    price_cents = fields.BigIntField()
    billing_cycle = fields.CharEnumField(BillingCycle, max_length=10)
    trial_days = fields.IntField()
    presets = ArrayField(element_type="text", null=True)
    limits: Any = fields.JSONField()
    updated_at = fields.DatetimeField()
    retired_at = fields.DatetimeField(null=True)

    class Meta:
        table = "tier"


class Subscription(Model):
    """A workspace's subscription to a tier, kept going by an operator or by Stripe.

    `ends_at` is when a granted one ends by itself, `ended_at` when it was ended. Whether it entitles is `domain.money.subscriptions.entitled`.
    """

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    tier = fields.CharField(max_length=64)
    source = fields.CharEnumField(SubscriptionSource, max_length=10)
    status = fields.CharEnumField(SubscriptionStatus, max_length=20)
    cycle = fields.CharEnumField(BillingCycle, max_length=10)
    current_period_start = fields.DatetimeField()
    current_period_end = fields.DatetimeField()
    trial_ends_at = fields.DatetimeField(null=True)
    grace_ends_at = fields.DatetimeField(null=True)
    ends_at = fields.DatetimeField(null=True)
    cancel_at_period_end = fields.BooleanField(default=False)
    next_tier = fields.CharField(max_length=64, null=True)
    stripe_subscription_id = fields.CharField(max_length=255, null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    reason = fields.TextField(null=True)
    created_at = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)
    looked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "subscription"


class CreditGrant(Model):
    """Promotional credit: its id is that of its account. `closed_at` is when what was left was taken back, or booked as breakage."""

    id = fields.UUIDField(primary_key=True)
    workspace_id = fields.UUIDField()
    amount = fields.BigIntField()
    priority = fields.IntField()
    models = ArrayField(element_type="text", null=True)
    apps = ArrayField(element_type="uuid", null=True)
    reason = fields.TextField()
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)
    closed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "credit_grant"


class QuotaConversation(Model):
    """A conversation that a quota has counted, and when it was last counted: once in each window."""

    conversation = fields.CharField(max_length=255, primary_key=True)
    workspace_id = fields.UUIDField()
    bound_id = fields.UUIDField()
    seen_at = fields.DatetimeField()

    class Meta:
        table = "quota_conversation"
