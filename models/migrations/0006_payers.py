from tortoise import migrations
from tortoise.migrations import operations as ops
from models.enums import ActorKind
from models.ddl import CreateTable
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields
from uuid import uuid4

SQL = r'''
-- The ORM adds columns without their defaults, which processes of the version before rely on.
ALTER TABLE workspace ALTER COLUMN has_grants SET DEFAULT false;
ALTER TABLE "call" ALTER COLUMN idempotent SET DEFAULT false;
ALTER TABLE attempt ALTER COLUMN reason SET DEFAULT 'first';
ALTER TABLE attempt ALTER COLUMN charged SET DEFAULT false;
CREATE INDEX credit_grant_open ON credit_grant (workspace_id) WHERE closed_at IS NULL;
CREATE INDEX credit_grant_expiring ON credit_grant (expires_at) WHERE closed_at IS NULL;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0005_alerts')]

    initial = False

    operations = [
        ops.AddField(model_name='Workspace', name='has_grants', field=fields.BooleanField(default=False)),
        ops.AddField(model_name='Call', name='route_reason', field=fields.CharField(null=True, max_length=200)),
        ops.AddField(model_name='Call', name='clamp_reason', field=fields.CharField(null=True, max_length=16)),
        ops.AddField(model_name='Call', name='idempotent', field=fields.BooleanField(default=False)),
        ops.AddField(model_name='Attempt', name='reason', field=fields.CharField(default='first', max_length=32)),
        ops.AddField(model_name='Attempt', name='price_id', field=fields.UUIDField(null=True)),
        ops.AddField(model_name='Attempt', name='charged', field=fields.BooleanField(default=False)),
        ops.AddField(model_name='Hold', name='payer', field=fields.CharField(null=True, max_length=8)),
        ops.AddField(model_name='Hold', name='part_ids', field=ArrayField(null=True, element_type='UUID')),
        ops.AddField(model_name='Hold', name='part_amounts', field=ArrayField(null=True, element_type='BIGINT')),
        ops.AddField(model_name='Hold', name='bound_most', field=ArrayField(null=True, element_type='BIGINT')),
        CreateTable(
            name='CreditGrant',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('amount', fields.BigIntField()),
                ('priority', fields.IntField()),
                ('models', ArrayField(null=True, element_type='TEXT')),
                ('apps', ArrayField(null=True, element_type='UUID')),
                ('reason', fields.TextField(unique=False)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('revoked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('closed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'credit_grant', 'app': 'models', 'pk_attr': 'id', 'table_description': 'Promotional credit: its id is that of its account.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id, id) REFERENCES account (workspace_id, id)',
                'CHECK (amount > 0)',
            ),
        ),
        CreateTable(
            name='QuotaConversation',
            fields=[
                ('conversation', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=255)),
                ('workspace_id', fields.UUIDField()),
                ('bound_id', fields.UUIDField()),
                ('seen_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'quota_conversation', 'app': 'models', 'pk_attr': 'conversation', 'table_description': 'A conversation that a quota has counted, and when it was last counted: once in each window.'},
            bases=['Model'],
            primary_key='workspace_id, bound_id, conversation',
            constraints=(
                'FOREIGN KEY (workspace_id, bound_id) REFERENCES bound (workspace_id, id)',
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
