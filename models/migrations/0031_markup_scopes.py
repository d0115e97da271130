from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

SQL = """
ALTER TABLE markup_rule ADD FOREIGN KEY (tier) REFERENCES tier (slug);
"""


class Migration(migrations.Migration):
    dependencies = [('models', '0030_public_tokens')]

    initial = False

    operations = [
        ops.AddField(model_name='MarkupRule', name='tier', field=fields.CharField(null=True, max_length=64)),
        ops.AddField(model_name='MarkupRule', name='app_id', field=fields.UUIDField(null=True)),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
