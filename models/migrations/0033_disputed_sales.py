from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

SQL = """
ALTER TABLE dispute ALTER COLUMN top_up_id DROP NOT NULL;
ALTER TABLE dispute ADD FOREIGN KEY (workspace_id, invoice_id) REFERENCES invoice (workspace_id, id);
ALTER TABLE dispute ADD CHECK (num_nonnulls(top_up_id, invoice_id) = 1);
"""


class Migration(migrations.Migration):
    dependencies = [('models', '0032_reconciliations')]

    initial = False

    operations = [
        ops.AddField(model_name='Dispute', name='invoice_id', field=fields.UUIDField(null=True)),
        ops.AlterField(model_name='Dispute', name='top_up_id', field=fields.UUIDField(null=True)),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
