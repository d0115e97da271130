from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from models.enums import AlertMetric, SubjectKind, WebhookDeliveryStatus
from models.ddl import CreateTable
from models.ids import uuid7
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields

SQL = r'''
CREATE INDEX webhook_delivery_of_endpoint ON webhook_delivery (workspace_id, endpoint_id, id);
CREATE INDEX alert_rule_in_force ON alert_rule (checked_at NULLS FIRST) WHERE removed_at IS NULL AND enabled;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0004_usage_changes')]

    initial = False

    operations = [
        CreateTable(
            name='WebhookEndpoint',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('url', fields.CharField(max_length=2000)),
                ('events', ArrayField(null=True, element_type='text')),
                ('enabled', fields.BooleanField(default=True)),
                ('generation', fields.IntField(default=1)),
                ('previous_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('removed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'webhook_endpoint', 'app': 'models', 'pk_attr': 'id', 'table_description': 'An address that events are sent to. Its signing secret is derived from `generation`, never stored.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=('FOREIGN KEY (workspace_id) REFERENCES workspace (id)',),
        ),
        CreateTable(
            name='WebhookDelivery',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('endpoint_id', fields.UUIDField()),
                ('event', fields.CharField(max_length=64)),
                ('event_id', fields.CharField(max_length=64)),
                ('payload', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('status', fields.CharEnumField(enum_type=WebhookDeliveryStatus, max_length=10)),
                ('tries', fields.IntField(default=0)),
                ('http_status', fields.IntField(null=True)),
                ('failure_code', fields.CharField(null=True, max_length=64)),
                ('failure', fields.CharField(null=True, max_length=300)),
                ('next_try_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('delivered_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'webhook_delivery', 'app': 'models', 'pk_attr': 'id', 'table_description': 'One event for one endpoint, written in the transaction of the event; its duty sends it.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=('FOREIGN KEY (workspace_id, endpoint_id) REFERENCES webhook_endpoint (workspace_id, id)',),
        ),
        CreateTable(
            name='AlertRule',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('name', fields.CharField(max_length=200)),
                ('subject_kind', fields.CharEnumField(enum_type=SubjectKind, max_length=16)),
                ('subject_id', fields.UUIDField()),
                ('metric', fields.CharEnumField(enum_type=AlertMetric, max_length=16)),
                ('threshold', fields.BigIntField()),
                ('window', fields.CharField(null=True, max_length=32)),
                ('endpoint_id', fields.UUIDField(null=True)),
                ('emails', ArrayField(element_type='text')),
                ('enabled', fields.BooleanField(default=True)),
                ('checked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('last_fired_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('quiet_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('fired_for', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('removed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'alert_rule', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A threshold to watch. `quiet_until` ends the window in which it has fired; `fired_for` remembers what has no window of its own.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'FOREIGN KEY (workspace_id, endpoint_id) REFERENCES webhook_endpoint (workspace_id, id)',
                'CHECK (threshold >= 0)',
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
