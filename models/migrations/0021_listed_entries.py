from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from models.ddl import CreateTable

SQL = """
CREATE INDEX listed_entry_unexplained ON listed_entry (created_at) WHERE explanation IS NULL;
CREATE INDEX stripe_entry_of ON stripe_entry (id);
"""


class Migration(migrations.Migration):
    dependencies = [('models', '0020_end_users')]

    initial = False

    operations = [
        CreateTable(
            name='ListedEntry',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=255)),
                ('type', fields.CharField(max_length=64)),
                ('category', fields.CharField(max_length=64)),
                ('source', fields.CharField(null=True, max_length=255)),
                ('currency', fields.CharField(max_length=3)),
                ('amount_microusd', fields.BigIntField()),
                ('fee_microusd', fields.BigIntField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('explanation', fields.TextField(null=True, unique=False)),
                ('explained_by', fields.CharField(null=True, max_length=200)),
                ('looked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'listed_entry', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A balance transaction as Stripe lists it, whether a transfer books it or not; `explanation` says why none has to.'},
            bases=['Model'],
            primary_key='id',
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
