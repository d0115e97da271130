from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from models.enums import IdempotentAnswerState
from models.ddl import CreateTable
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields

SQL = r'''
CREATE INDEX idempotent_answer_expiry ON idempotent_answer (expires_at) WHERE sealed IS NOT NULL;
CREATE INDEX idempotent_answer_age ON idempotent_answer (created_at);
CREATE INDEX attempt_failed ON attempt (upstream, id) WHERE outcome = 'failed';
ALTER TABLE idempotent_answer ALTER COLUMN sealed SET STORAGE EXTERNAL;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0013_renewals')]

    initial = False

    operations = [
        CreateTable(
            name='IdempotentAnswer',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('workspace_id', fields.UUIDField()),
                ('request_hash', fields.CharField(max_length=64)),
                ('call_id', fields.UUIDField()),
                ('state', fields.CharEnumField(enum_type=IdempotentAnswerState, max_length=10)),
                ('sealed', fields.BinaryField(null=True)),
                ('leased_until', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'idempotent_answer', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A call that its client named by a key of its own, and its answer, sealed; a `claimed` one is under way, or was lost with its process.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                "CHECK (id ~ '^[0-9a-f]{64}$')",
                "CHECK ((state = 'answered') = (sealed IS NOT NULL))",
            ),
        ),
        CreateTable(
            name='UpstreamHealth',
            fields=[
                ('process_id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('upstream', fields.CharField(max_length=100)),
                ('seen_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('calls_under_way', fields.IntField()),
                ('cools_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('tries', fields.IntField()),
                ('failures', fields.IntField()),
                ('first_byte_ms', ArrayField(element_type='int')),
                ('limits', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('failed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('failure_code', fields.CharField(null=True, max_length=64)),
                ('failure_message', fields.CharField(null=True, max_length=300)),
                ('failure_retryable', fields.BooleanField(null=True)),
            ],
            options={'table': 'upstream_health', 'app': 'models', 'pk_attr': 'process_id', 'table_description': 'What one process knows of an upstream, written every few seconds so that all processes know it; a row that is old is of a process that is gone.'},
            bases=['Model'],
            primary_key='process_id, upstream',
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
