from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from models.ddl import CreateTable

SQL = """
INSERT INTO balance_watch (workspace_id, armed)
SELECT a.workspace_id, true FROM account a WHERE a.kind IN ('cash', 'grant') GROUP BY a.workspace_id HAVING sum(a.credits - a.debits) >= 5000000;
"""


class Migration(migrations.Migration):
    dependencies = [('models', '0025_kept_answers')]

    initial = False

    operations = [
        CreateTable(
            name='BalanceWatch',
            fields=[
                ('workspace_id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('armed', fields.BooleanField()),
            ],
            options={'table': 'balance_watch', 'app': 'models', 'pk_attr': 'workspace_id', 'table_description': 'Whether a fall of what a workspace has left is still to be told.'},
            bases=['Model'],
            primary_key='workspace_id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
            ),
        ),
        ops.AddField(model_name='AutoTopUp', name='owed_at', field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
