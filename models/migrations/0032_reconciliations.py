from tortoise import migrations
import functools
from json import dumps, loads
from models.ddl import CreateTable
from models.enums import ActorKind, JobStatus
from models.ids import uuid7
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [('models', '0031_markup_scopes')]

    initial = False

    operations = [
        CreateTable(
            name='Reconciliation',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('provider', fields.CharField(max_length=100)),
                ('upstreams', ArrayField(element_type='text')),
                ('source', fields.CharField(max_length=300)),
                ('starts_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('ends_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('bill', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('computed_microusd', fields.BigIntField()),
                ('billed_microusd', fields.BigIntField()),
                ('coverage', fields.FloatField()),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('approver_kind', fields.CharEnumField(null=True, enum_type=ActorKind, max_length=16)),
                ('approver_id', fields.UUIDField(null=True)),
                ('approver_name', fields.CharField(null=True, max_length=200)),
                ('approved_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('transfer_workspace_id', fields.UUIDField(null=True)),
                ('transfer_id', fields.UUIDField(null=True)),
                ('status', fields.CharEnumField(enum_type=JobStatus, max_length=12)),
                ('progress', fields.FloatField(null=True)),
                ('failure', fields.CharField(null=True, max_length=300)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'reconciliation', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A provider\'s bill beside our attempts.'},
            bases=['Model'],
            primary_key='id',
            constraints=(
                'FOREIGN KEY (transfer_workspace_id, transfer_id) REFERENCES transfer (workspace_id, id)',
                'CHECK (starts_at < ends_at)',
                'CHECK (coverage BETWEEN 0 AND 1)',
            ),
        ),
        CreateTable(
            name='ReconciliationLine',
            fields=[
                ('position', fields.IntField(primary_key=True, unique=True, db_index=True)),
                ('reconciliation_id', fields.UUIDField()),
                ('item', fields.CharField(max_length=200)),
                ('used_on', fields.DateField(null=True)),
                ('computed_picousd', fields.BigIntField()),
                ('billed_picousd', fields.BigIntField()),
            ],
            options={'table': 'reconciliation_line', 'app': 'models', 'pk_attr': 'position', 'table_description': 'One item of a bill, on one day where the bill has days; the largest difference stands first.'},
            bases=['Model'],
            primary_key='reconciliation_id, position',
            constraints=('FOREIGN KEY (reconciliation_id) REFERENCES reconciliation (id)',),
        ),
    ]
