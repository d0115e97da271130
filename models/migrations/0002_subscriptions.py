from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from models.enums import ActorKind, BillingCycle, SubscriptionSource, SubscriptionStatus
from models.ddl import CreateTable
from models.ids import uuid7
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields

SQL = r'''
-- The ORM adds the column without its default.
ALTER TABLE workspace ALTER COLUMN overage_allowed SET DEFAULT false;
CREATE UNIQUE INDEX one_of_each_stripe_subscription ON subscription (workspace_id, stripe_subscription_id) WHERE stripe_subscription_id IS NOT NULL;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0001_spine')]

    initial = False

    operations = [
        ops.AddField(model_name='Workspace', name='frozen_at', field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        ops.AddField(model_name='Workspace', name='overage_allowed', field=fields.BooleanField(default=False)),
        ops.CreateModel(
            name='Tier',
            fields=[
                ('slug', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('position', fields.IntField()),
                ('name', fields.CharField(max_length=200)),
                ('product_name', fields.CharField(max_length=200)),
                ('price_cents', fields.BigIntField()),
                ('billing_cycle', fields.CharEnumField(enum_type=BillingCycle, max_length=10)),
                ('trial_days', fields.IntField()),
                ('presets', ArrayField(null=True, element_type='TEXT')),
                ('limits', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('retired_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'tier', 'app': 'models', 'pk_attr': 'slug', 'table_description': 'A tier as the tiers file has it; `limits` is a list of {resource, window, most}, most null for no limit. One that left the file is retired.'},
            bases=['Model'],
        ),
        CreateTable(
            name='Subscription',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('tier', fields.CharField(max_length=64)),
                ('source', fields.CharEnumField(enum_type=SubscriptionSource, max_length=10)),
                ('status', fields.CharEnumField(enum_type=SubscriptionStatus, max_length=20)),
                ('cycle', fields.CharEnumField(enum_type=BillingCycle, max_length=10)),
                ('current_period_start', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('current_period_end', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('trial_ends_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('grace_ends_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('ends_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('cancel_at_period_end', fields.BooleanField(default=False)),
                ('next_tier', fields.CharField(null=True, max_length=64)),
                ('stripe_subscription_id', fields.CharField(null=True, max_length=255)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('reason', fields.TextField(null=True, unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('ended_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'subscription', 'app': 'models', 'pk_attr': 'id', 'table_description': "A workspace's subscription to a tier, kept going by an operator or by Stripe."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'FOREIGN KEY (tier) REFERENCES tier (slug)',
                'CHECK (current_period_start < current_period_end)',
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
