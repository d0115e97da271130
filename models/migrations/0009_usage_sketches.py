from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from tortoise.contrib.postgres.fields import ArrayField
from tortoise import fields
from uuid import uuid4


class Migration(migrations.Migration):
    dependencies = [("models", "0008_usage_feed")]

    operations = [
        ops.AddField(model_name='UsageCell', name='latency', field=ArrayField(null=True, element_type='bigint')),
        ops.AddField(model_name='UsageCell', name='first_token', field=ArrayField(null=True, element_type='bigint')),
        CreateTable(
            name='UsagePerson',
            fields=[
                ('person', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('kind', fields.SmallIntField()),
                ('used_on', fields.DateField()),
                ('app_id', fields.UUIDField()),
            ],
            options={'table': 'usage_person', 'app': 'models', 'pk_attr': 'person', 'table_description': 'An end user or a conversation that was named on a day of UTC, as a number that does not tell the name.'},
            bases=['Model'],
            primary_key='workspace_id, kind, used_on, app_id, person',
        ),
    ]
