import functools
from json import dumps, loads

from tortoise import fields, migrations

from models.ddl import CreateTable
from models.enums import ActorKind
from models.ids import uuid7


class Migration(migrations.Migration):
    dependencies = [('models', '0002_subscriptions')]

    initial = False

    operations = [
        CreateTable(
            name='App',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('slug', fields.CharField(max_length=50)),
                ('name', fields.CharField(max_length=200)),
                ('description', fields.TextField(null=True, unique=False)),
                ('manifest', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('wallet_markup', fields.DecimalField(max_digits=12, decimal_places=6)),
                ('suspended_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('live_deployment_id', fields.UUIDField(null=True)),
                ('last_version', fields.IntField(default=0)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('deleted_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'app', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A front end that usage can be attributed to.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (wallet_markup >= 0)',
            ),
        ),
        CreateTable(
            name='AppName',
            fields=[
                ('slug', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=50)),
                ('workspace_id', fields.UUIDField()),
                ('app_id', fields.UUIDField(null=True)),
                ('taken_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'app_name', 'app': 'models', 'pk_attr': 'slug', 'table_description': 'The directory of slugs over all workspaces; one without an app is a tombstone, kept for the workspace that had it.'},
            bases=['Model'],
            primary_key='slug',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                "CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$')",
            ),
        ),
    ]
