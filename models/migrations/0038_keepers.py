from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [('models', '0037_usage_by_language')]

    initial = False

    operations = [
        ops.AddField(model_name='KeptAnswer', name='upstream', field=fields.CharField(max_length=100, null=True)),
    ]
