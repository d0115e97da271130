from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from models.enums import ActorKind
from models.ids import uuid7
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [('models', '0018_replays')]

    initial = False

    operations = [
        CreateTable(
            name='MarkupRule',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('model', fields.CharField(null=True, max_length=200)),
                ('workspace_id', fields.UUIDField(null=True)),
                ('numerator', fields.BigIntField()),
                ('denominator', fields.BigIntField()),
                ('effective_from', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('effective_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'markup_rule', 'app': 'models', 'pk_attr': 'id', 'table_description': 'What list values are multiplied with to make charges; model and workspace null for all. It never changes but for its end.'},
            bases=['Model'],
            primary_key='id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (numerator BETWEEN 0 AND 1000000 AND denominator BETWEEN 1 AND 1000000)',
                'CHECK (effective_until IS NULL OR effective_until >= effective_from)',
            ),
        ),
    ]
