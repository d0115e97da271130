from tortoise import migrations
from models.ddl import CreateTable
from models.enums import ApiKeyMode
from tortoise import fields
from uuid import uuid4


class Migration(migrations.Migration):
    dependencies = [("models", "0027_erasure")]

    operations = [
        CreateTable(
            name='UsageRetired',
            fields=[
                ('workspace_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('mode', fields.CharEnumField(enum_type=ApiKeyMode, max_length=8)),
                ('before', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('events', fields.BigIntField()),
                ('requests', fields.BigIntField()),
                ('input_tokens', fields.BigIntField()),
                ('output_tokens', fields.BigIntField()),
                ('cache_read_tokens', fields.BigIntField()),
                ('cache_write_5m_tokens', fields.BigIntField()),
                ('cache_write_1h_tokens', fields.BigIntField()),
                ('charge_microusd', fields.BigIntField()),
                ('list_microusd', fields.BigIntField()),
                ('charge_picousd', fields.DecimalField(max_digits=38, decimal_places=0)),
                ('list_picousd', fields.DecimalField(max_digits=38, decimal_places=0)),
                ('wallet_microusd', fields.BigIntField()),
            ],
            options={'table': 'usage_retired', 'app': 'models', 'pk_attr': 'workspace_id', 'table_description': "Until when a workspace's single calls are gone, and what the events that are gone add up to, by mode; no row while all are there."},
            bases=['Model'],
            primary_key='workspace_id, mode',
        ),
    ]
