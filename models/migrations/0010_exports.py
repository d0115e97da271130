from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from models.enums import ActorKind, ExportColumns, ExportDataset, ExportFormat, JobStatus
from models.ddl import CreateTable
from models.ids import uuid7
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields

SQL = r'''
CREATE INDEX export_expiring ON export (expires_at) WHERE object IS NOT NULL;
CREATE INDEX export_by_link ON export (id);
CREATE INDEX export_under_way ON export (workspace_id) WHERE status IN ('queued', 'running');
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0009_usage_sketches')]

    initial = False

    operations = [
        CreateTable(
            name='Export',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('dataset', fields.CharEnumField(enum_type=ExportDataset, max_length=16)),
                ('format', fields.CharEnumField(enum_type=ExportFormat, max_length=12)),
                ('columns', fields.CharEnumField(enum_type=ExportColumns, max_length=8)),
                ('question', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('scopes', ArrayField(element_type='text')),
                ('user_id', fields.UUIDField(null=True)),
                ('key_id', fields.UUIDField(null=True)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('status', fields.CharEnumField(enum_type=JobStatus, max_length=12)),
                ('rows', fields.BigIntField(default=0)),
                ('bytes', fields.BigIntField(default=0)),
                ('progress', fields.FloatField(null=True)),
                ('tries', fields.IntField(default=0)),
                ('failure_code', fields.CharField(null=True, max_length=64)),
                ('failure', fields.CharField(null=True, max_length=300)),
                ('object', fields.CharField(null=True, max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'export', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A file made in the background. `question` and `scopes` are what it reads, with the rights of whoever asked, as they were.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=('FOREIGN KEY (workspace_id) REFERENCES workspace (id)',),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
