import functools
from json import dumps, loads
from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from models.ddl import CreateTable
from models.enums import ActorKind, JobStatus
from models.ids import uuid7

SQL = '''
-- One deployment of an app at a time is on its way: a second one is refused, whichever process asks.
CREATE UNIQUE INDEX one_under_way ON deployment (workspace_id, app_id) WHERE status IN ('queued', 'running');
CREATE INDEX deployment_of_app ON deployment (workspace_id, app_id, id);
CREATE UNIQUE INDEX one_blob_each ON blob (workspace_id, app_id, sha256) WHERE collected_at IS NULL;
CREATE INDEX blob_collected ON blob (collected_at) WHERE collected_at IS NOT NULL AND erased_at IS NULL;
CREATE INDEX file_of_blob ON deployed_file (workspace_id, blob_id);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0014_answers')]

    initial = False

    operations = [
        CreateTable(
            name='Deployment',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('app_id', fields.UUIDField()),
                ('version', fields.IntField()),
                ('message', fields.TextField(null=True, unique=False)),
                ('status', fields.CharEnumField(enum_type=JobStatus, max_length=16)),
                ('digest', fields.CharField(max_length=64)),
                ('file_count', fields.IntField()),
                ('total_bytes', fields.BigIntField()),
                ('done_bytes', fields.BigIntField(default=0)),
                ('log', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('job_id', fields.UUIDField(null=True)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('failure_code', fields.CharField(null=True, max_length=64)),
                ('failure_message', fields.TextField(null=True, unique=False)),
                ('failure_retryable', fields.BooleanField(default=False)),
                ('staged', fields.BooleanField(default=False)),
            ],
            options={'table': 'deployment', 'app': 'models', 'pk_attr': 'id', 'table_description': "One version of an app's files, and how far its publication is."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'UNIQUE (workspace_id, app_id, version)',
                'FOREIGN KEY (workspace_id, app_id) REFERENCES app (workspace_id, id) ON UPDATE CASCADE',
                "CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'cancelled')))",
            ),
        ),
        CreateTable(
            name='Blob',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('app_id', fields.UUIDField()),
                ('sha256', fields.CharField(max_length=64)),
                ('bytes', fields.BigIntField()),
                ('gzip_bytes', fields.BigIntField(null=True)),
                ('brotli_bytes', fields.BigIntField(null=True)),
                ('stored_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('touched_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('collected_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('erased_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'blob', 'app': 'models', 'pk_attr': 'id', 'table_description': 'Content that is kept for an app, once whatever the number of files that have it; whole when `stored_at` is set.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id, app_id) REFERENCES app (workspace_id, id) ON UPDATE CASCADE',
                "CHECK (sha256 ~ '^[0-9a-f]{64}$')",
            ),
        ),
        CreateTable(
            name='DeployedFile',
            fields=[
                ('deployment_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('position', fields.IntField()),
                ('path', fields.TextField(unique=False)),
                ('content_type', fields.CharField(max_length=100)),
                ('bytes', fields.BigIntField()),
                ('sha256', fields.CharField(max_length=64)),
                ('blob_id', fields.UUIDField(null=True)),
            ],
            options={'table': 'deployed_file', 'app': 'models', 'pk_attr': 'deployment_id', 'table_description': 'A file of a deployment, in the order of paths.'},
            bases=['Model'],
            primary_key='workspace_id, deployment_id, position',
            constraints=(
                'FOREIGN KEY (workspace_id, deployment_id) REFERENCES deployment (workspace_id, id) ON UPDATE CASCADE',
                'FOREIGN KEY (workspace_id, blob_id) REFERENCES blob (workspace_id, id) ON UPDATE CASCADE',
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
