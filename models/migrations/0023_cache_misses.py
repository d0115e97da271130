from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from models.enums import CacheMissReason, PromptPart
from tortoise import fields

SQL = r'''
CREATE INDEX cache_miss_time ON cache_miss (workspace_id, at);
CREATE INDEX cache_miss_age ON cache_miss (at);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0022_reratings')]

    initial = False

    operations = [
        CreateTable(
            name='CacheMiss',
            fields=[
                ('call_id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('previous_id', fields.UUIDField()),
                ('at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('reason', fields.CharEnumField(enum_type=CacheMissReason, max_length=20)),
                ('part', fields.CharEnumField(null=True, enum_type=PromptPart, max_length=10)),
                ('message_index', fields.IntField(null=True)),
                ('shared_tokens', fields.BigIntField()),
                ('missed_tokens', fields.BigIntField()),
                ('cost_microusd', fields.BigIntField()),
            ],
            options={'table': 'cache_miss', 'app': 'models', 'pk_attr': 'call_id', 'table_description': 'A call that could have read more from the prompt cache than it did, and what that cost; numbers alone, nothing of the prompt, no digest of it.'},
            bases=['Model'],
            primary_key='workspace_id, call_id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (missed_tokens > 0 AND shared_tokens >= 0 AND cost_microusd >= 0)',
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
