"""What is bought and given back through Stripe, and what Stripe has told."""

from tortoise import fields
from tortoise.models import Model

from models.enums import ActorKind, DisputeStatus, InvoiceStatus, RefundStatus, TopUpStatus, TransferKind
from models.ids import uuid7


class TopUp(Model):
    """A payment for credit, written before Stripe hears of it; `version` counts what was applied, `look_at` is when to ask Stripe again."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    status = fields.CharEnumField(TopUpStatus, max_length=12)
    amount_microusd = fields.BigIntField()
    credited_microusd = fields.BigIntField(null=True)
    automatic = fields.BooleanField(default=False)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    return_url = fields.TextField(null=True)
    method_id = fields.CharField(max_length=255, null=True)
    session_id = fields.CharField(max_length=255, null=True)
    session_url = fields.TextField(null=True)
    session_expires_at = fields.DatetimeField(null=True)
    payment_id = fields.CharField(max_length=255, null=True)
    receipt_url = fields.TextField(null=True)
    failure_code = fields.CharField(max_length=100, null=True)
    failure_message = fields.TextField(null=True)
    created_at = fields.DatetimeField()
    paid_at = fields.DatetimeField(null=True)
    fulfilled_at = fields.DatetimeField(null=True)
    version = fields.IntField(default=0)
    looked_at = fields.DatetimeField(null=True)
    look_at = fields.DatetimeField(null=True)

    class Meta:
        table = "top_up"


class Refund(Model):
    """Money of a top-up given back; made here, before Stripe hears of it, or found at Stripe."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    top_up_id = fields.UUIDField()
    stripe_refund_id = fields.CharField(max_length=255, null=True)
    amount_microusd = fields.BigIntField()
    status = fields.CharEnumField(RefundStatus, max_length=12)
    reason = fields.TextField(null=True)
    creator_kind = fields.CharEnumField(ActorKind, max_length=16)
    creator_id = fields.UUIDField(null=True)
    creator_name = fields.CharField(max_length=200)
    created_at = fields.DatetimeField()

    class Meta:
        table = "refund"


class Dispute(Model):
    """A payment contested at the customer's bank: a top-up's, or an invoice's."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    top_up_id = fields.UUIDField(null=True)
    invoice_id = fields.UUIDField(null=True)
    stripe_dispute_id = fields.CharField(max_length=255)
    amount_microusd = fields.BigIntField()
    status = fields.CharEnumField(DisputeStatus, max_length=12)
    reason = fields.CharField(max_length=100)
    created_at = fields.DatetimeField()
    closed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "dispute"


class StripeObject(Model):
    """The directory over all workspaces: whose a customer, session, payment or subscription at Stripe is, and which row of theirs it stands for."""

    id = fields.CharField(max_length=255, primary_key=True)
    kind = fields.CharField(max_length=16)
    workspace_id = fields.UUIDField(db_index=True)
    subject_id = fields.UUIDField()

    class Meta:
        table = "stripe_object"


class StripeEntry(Model):
    """A balance transaction of Stripe's, and the transfer that books it; `amount_microusd` is signed as Stripe has it."""

    id = fields.CharField(max_length=255, primary_key=True)
    workspace_id = fields.UUIDField()
    transfer_kind = fields.CharEnumField(TransferKind, max_length=20)
    transfer_ref = fields.CharField(max_length=255)
    amount_microusd = fields.BigIntField()
    fee_microusd = fields.BigIntField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "stripe_entry"


class StripeEvent(Model):
    """The inbox: an event that Stripe told of, once. What happened is read from the object itself, so nothing else of it is kept."""

    id = fields.CharField(max_length=255, primary_key=True)
    type = fields.CharField(max_length=100)
    object_id = fields.CharField(max_length=255)
    payment_id = fields.CharField(max_length=255, null=True)
    created_at = fields.DatetimeField()
    received_at = fields.DatetimeField()
    applied_at = fields.DatetimeField(null=True)
    outcome = fields.CharField(max_length=32, null=True)

    class Meta:
        table = "stripe_event"


class AutoTopUp(Model):
    """Whether and how a workspace's credit is bought without asking; `pending_id` is the one top-up under way."""

    workspace_id = fields.UUIDField(primary_key=True)
    enabled = fields.BooleanField(default=False)
    threshold_microusd = fields.BigIntField(null=True)
    amount_microusd = fields.BigIntField(null=True)
    daily_cap_microusd = fields.BigIntField(null=True)
    cooldown_seconds = fields.IntField(default=300)
    tried_at = fields.DatetimeField(null=True)
    pending_id = fields.UUIDField(null=True)
    failure_code = fields.CharField(max_length=100, null=True)
    failure_message = fields.TextField(null=True)
    failure_retryable = fields.BooleanField(default=False)
    updated_at = fields.DatetimeField()
    owed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "auto_top_up"


class BalanceWatch(Model):
    """Whether a fall of what a workspace has left is still to be told."""

    workspace_id = fields.UUIDField(primary_key=True)
    armed = fields.BooleanField()

    class Meta:
        table = "balance_watch"


class Invoice(Model):
    """An invoice of Stripe's, as it was last read."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    workspace_id = fields.UUIDField()
    stripe_invoice_id = fields.CharField(max_length=255)
    number = fields.CharField(max_length=100, null=True)
    status = fields.CharEnumField(InvoiceStatus, max_length=16)
    description = fields.TextField(null=True)
    amount_microusd = fields.BigIntField()
    url = fields.TextField(null=True)
    pdf_url = fields.TextField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "invoice"


class ListedEntry(Model):
    """A balance transaction as Stripe lists it, whether a transfer books it or not; `explanation` says why none has to."""

    id = fields.CharField(max_length=255, primary_key=True)
    type = fields.CharField(max_length=64)
    category = fields.CharField(max_length=64)
    source = fields.CharField(max_length=255, null=True)
    currency = fields.CharField(max_length=3)
    amount_microusd = fields.BigIntField()
    fee_microusd = fields.BigIntField()
    created_at = fields.DatetimeField()
    explanation = fields.TextField(null=True)
    explained_by = fields.CharField(max_length=200, null=True)
    looked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "listed_entry"
