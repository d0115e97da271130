from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from models.usage import Bits
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields
from uuid import uuid4

SQL = r'''
-- A set of people is a row of 4 KiB that compresses well while it is thin: compressed if need be, but never put aside.
ALTER TABLE usage_people SET (toast_tuple_target = 8160);
-- What was folded before takes the new form; it takes as long as it takes.
SET statement_timeout = 0;
INSERT INTO usage_name (workspace_id, kind, person, number)
SELECT x.workspace_id, x.kind, x.person, row_number() OVER (PARTITION BY x.workspace_id, x.kind ORDER BY x.first_on, x.person) - 1
  FROM (SELECT p.workspace_id, p.kind, p.person, min(p.used_on) AS first_on FROM usage_person p GROUP BY 1, 2, 3) x;
INSERT INTO usage_name_count (workspace_id, kind, names) SELECT n.workspace_id, n.kind, count(*) FROM usage_name n GROUP BY 1, 2;
INSERT INTO usage_people (workspace_id, kind, used_on, app_id, part, people)
SELECT p.workspace_id, p.kind, p.used_on, p.app_id, n.number >> 15, bit_or(set_bit(repeat('0', 32768)::bit(32768), n.number & 32767, 1))
  FROM usage_person p JOIN usage_name n ON n.workspace_id = p.workspace_id AND n.kind = p.kind AND n.person = p.person GROUP BY 1, 2, 3, 4, 5;
TRUNCATE usage_person;
INSERT INTO usage_closing (workspace_id, days_until, hours_until, looked_until)
SELECT DISTINCT c.workspace_id, '1970-01-01Z'::timestamptz, '1970-01-01Z'::timestamptz, '1970-01-01Z'::timestamptz FROM usage_cell c;
RESET statement_timeout;
'''


class Migration(migrations.Migration):
    dependencies = [("models", "0023_cache_misses")]

    operations = [
        CreateTable(
            name='UsageSpan',
            fields=[
                ('at', fields.DatetimeField(primary_key=True, unique=True, db_index=True, auto_now=False, auto_now_add=False)),
                ('workspace_id', fields.UUIDField()),
                ('hours', fields.SmallIntField()),
                ('level', fields.SmallIntField()),
                ('model', fields.CharField(max_length=200)),
                ('app_id', fields.UUIDField()),
                ('key_id', fields.UUIDField()),
                ('outcome', fields.CharField(max_length=10)),
                ('requests', fields.BigIntField()),
                ('errors', fields.BigIntField()),
                ('units', fields.BigIntField()),
                ('input_tokens', fields.BigIntField()),
                ('output_tokens', fields.BigIntField()),
                ('cache_read_tokens', fields.BigIntField()),
                ('cache_write_5m_tokens', fields.BigIntField()),
                ('cache_write_1h_tokens', fields.BigIntField()),
                ('reasoning_tokens', fields.BigIntField()),
                ('characters', fields.BigIntField()),
                ('lines', fields.BigIntField()),
                ('charge_microusd', fields.BigIntField()),
                ('list_microusd', fields.BigIntField()),
                ('upstream_cost_picousd', fields.BigIntField()),
                ('latency', ArrayField(null=True, element_type='bigint')),
                ('first_token', ArrayField(null=True, element_type='bigint')),
                ('succeeded', fields.BigIntField()),
                ('cancelled', fields.BigIntField()),
                ('wallet_microusd', fields.BigIntField()),
            ],
            options={'table': 'usage_span', 'app': 'models', 'pk_attr': 'at', 'table_description': 'Usage of a whole hour or a whole day of UTC (`hours` is 1 or 24), at the levels of cells: the sum of the cells in it, once it is closed.'},
            bases=['Model'],
            primary_key='workspace_id, hours, level, at, model, app_id, key_id, outcome',
            constraints=('CHECK (hours IN (1, 24))', 'CHECK (level BETWEEN 0 AND 2)'),
        ),
        CreateTable(
            name='UsageClosing',
            fields=[
                ('workspace_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('days_until', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('hours_until', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('looked_until', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'usage_closing', 'app': 'models', 'pk_attr': 'workspace_id', 'table_description': "Until when a workspace's days and hours are closed, midnights of UTC: before it spans are whole, from it on there are cells alone.\n\n`looked_until` is the midnight at which it was last asked whether closing would gain anything."},
            bases=['Model'],
            primary_key='workspace_id',
        ),
        CreateTable(
            name='UsageName',
            fields=[
                ('person', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('kind', fields.SmallIntField()),
                ('number', fields.IntField()),
            ],
            options={'table': 'usage_name', 'app': 'models', 'pk_attr': 'person', 'table_description': 'The number of an end user (kind 0) or a conversation (kind 1) in its workspace, found by a hash that does not tell the name.'},
            bases=['Model'],
            primary_key='workspace_id, kind, person',
            constraints=('UNIQUE (workspace_id, kind, number)',),
        ),
        CreateTable(
            name='UsageNameCount',
            fields=[
                ('workspace_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('kind', fields.SmallIntField()),
                ('names', fields.IntField()),
            ],
            options={'table': 'usage_name_count', 'app': 'models', 'pk_attr': 'workspace_id', 'table_description': 'How many numbers of a kind a workspace has given.'},
            bases=['Model'],
            primary_key='workspace_id, kind',
        ),
        CreateTable(
            name='UsagePeople',
            fields=[
                ('used_on', fields.DateField(primary_key=True, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('kind', fields.SmallIntField()),
                ('app_id', fields.UUIDField()),
                ('part', fields.IntField()),
                ('people', Bits()),
            ],
            options={'table': 'usage_people', 'app': 'models', 'pk_attr': 'used_on', 'table_description': 'The end users or conversations that were named on a day of UTC with an app: bit n of `people` is the name whose number is `part` * 32768 + n.'},
            bases=['Model'],
            primary_key='workspace_id, kind, used_on, app_id, part',
        ),
        ops.AlterModelOptions(
            name='UsagePerson',
            options={'table': 'usage_person', 'app': 'models', 'pk_attr': 'person', 'table_description': 'What `usage_people` replaced; empty, and here for the functions of the version before.'},
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
