from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from tortoise import fields

SQL = 'CREATE INDEX kept_answer_age ON kept_answer (created_at)'


class Migration(migrations.Migration):
    dependencies = [('models', '0024_usage_spans')]

    initial = False

    operations = [
        CreateTable(
            name='KeptAnswer',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('workspace_id', fields.UUIDField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'kept_answer', 'app': 'models', 'pk_attr': 'id', 'table_description': 'An answer that its provider keeps, by a hash of the provider\'s id: only the workspace that was given it may go on from it.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                "CHECK (id ~ '^[0-9a-f]{64}$')",
            ),
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
