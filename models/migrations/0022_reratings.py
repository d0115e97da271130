from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from models.enums import ActorKind, JobStatus, ReratedCallState
from models.ids import uuid7
from tortoise import fields

SQL = r'''
CREATE INDEX rerated_call_open ON rerated_call (rerating_id, workspace_id, record_id) WHERE state = 'open';
CREATE INDEX rerated_call_of_record ON rerated_call (workspace_id, record_id) WHERE state = 'posted';
CREATE INDEX rerating_line_by_size ON rerating_line (rerating_id, abs(after_microusd - before_microusd));
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0021_listed_entries')]

    initial = False

    operations = [
        CreateTable(
            name='Rerating',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('price_id', fields.UUIDField()),
                ('only_workspace_id', fields.UUIDField(null=True)),
                ('starts_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('ends_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('reason', fields.TextField(unique=False)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('applier_kind', fields.CharEnumField(null=True, enum_type=ActorKind, max_length=16)),
                ('applier_id', fields.UUIDField(null=True)),
                ('applier_name', fields.CharField(null=True, max_length=200)),
                ('status', fields.CharEnumField(enum_type=JobStatus, max_length=12)),
                ('progress', fields.FloatField(null=True)),
                ('failure', fields.CharField(null=True, max_length=300)),
                ('calls', fields.BigIntField(default=0)),
                ('credited_microusd', fields.BigIntField(default=0)),
                ('charged_microusd', fields.BigIntField(default=0)),
                ('at_workspace', fields.UUIDField(null=True)),
                ('at_record', fields.UUIDField(null=True)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('previewed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('apply_asked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('applied_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'rerating', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A look at the calls of a time with a corrected price, and the posting of what differs.'},
            bases=['Model'],
            primary_key='id',
            constraints=(
                'FOREIGN KEY (price_id) REFERENCES price (id)',
                'FOREIGN KEY (only_workspace_id) REFERENCES workspace (id)',
                'CHECK (starts_at < ends_at)',
                'CHECK (applied_at IS NULL OR apply_asked_at IS NOT NULL)',
            ),
        ),
        CreateTable(
            name='ReratingLine',
            fields=[
                ('rerating_id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('calls', fields.BigIntField()),
                ('before_microusd', fields.BigIntField()),
                ('after_microusd', fields.BigIntField()),
                ('charge_rest_picousd', fields.BigIntField()),
                ('list_rest_picousd', fields.BigIntField()),
            ],
            options={'table': 'rerating_line', 'app': 'models', 'pk_attr': 'rerating_id', 'table_description': 'What a re-rating means for one workspace; the rests are what its calls so far leave below a whole microdollar.'},
            bases=['Model'],
            primary_key='workspace_id, rerating_id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'FOREIGN KEY (rerating_id) REFERENCES rerating (id)',
            ),
        ),
        CreateTable(
            name='ReratedCall',
            fields=[
                ('record_id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('rerating_id', fields.UUIDField()),
                ('events', fields.IntField()),
                ('before_microusd', fields.BigIntField()),
                ('change_microusd', fields.BigIntField()),
                ('list_change_microusd', fields.BigIntField()),
                ('charge_picousd', fields.BigIntField()),
                ('list_picousd', fields.BigIntField()),
                ('charge_differs', fields.BooleanField()),
                ('state', fields.CharEnumField(enum_type=ReratedCallState, max_length=8)),
                ('event_id', fields.UUIDField(null=True)),
                ('posted_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'rerated_call', 'app': 'models', 'pk_attr': 'record_id', 'table_description': 'A call whose amounts a re-rating changes.'},
            bases=['Model'],
            primary_key='workspace_id, rerating_id, record_id',
            constraints=(
                'FOREIGN KEY (workspace_id, rerating_id) REFERENCES rerating_line (workspace_id, rerating_id)',
                'CHECK (charge_picousd >= 0 AND list_picousd >= 0 AND before_microusd + change_microusd >= 0)',
                "CHECK ((state = 'posted') = (posted_at IS NOT NULL))",
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
