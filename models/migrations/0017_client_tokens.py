from tortoise import fields, migrations
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.migrations import operations as ops

from models.ddl import CreateTable
from models.enums import ActorKind
from models.ids import uuid7

SQL = '''
CREATE INDEX client_token_of_app ON client_token (workspace_id, app_id, id);
CREATE INDEX client_token_of_key ON client_token (workspace_id, key_id);
CREATE INDEX bound_of_subject ON bound (workspace_id, subject_id);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0016_usage_runs')]

    initial = False

    operations = [
        CreateTable(
            name='ClientToken',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('app_id', fields.UUIDField(null=True)),
                ('end_user', fields.CharField(null=True, max_length=255)),
                ('key_id', fields.UUIDField(null=True)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('allowed_origins', ArrayField(null=True, element_type='TEXT')),
                ('allowed_models', ArrayField(null=True, element_type='TEXT')),
                ('spend_cap', fields.BigIntField(null=True)),
                ('request_cap', fields.BigIntField(null=True)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('revoked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'client_token', 'app': 'models', 'pk_attr': 'id', 'table_description': "A short-lived token that a browser holds; what it has spent is kept as a bound's."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'FOREIGN KEY (workspace_id, key_id) REFERENCES api_key (workspace_id, id)',
                "CHECK (expires_at <= created_at + interval '900 seconds')",
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
