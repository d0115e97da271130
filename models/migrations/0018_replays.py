from tortoise import migrations
from models.ddl import CreateTable
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [('models', '0017_client_tokens')]

    initial = False

    operations = [
        CreateTable(
            name='Replay',
            fields=[
                ('call_id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('replays', fields.IntField()),
            ],
            options={'table': 'replay', 'app': 'models', 'pk_attr': 'call_id', 'table_description': 'How often a call\'s answer was given again under its idempotency key; no row for never.'},
            bases=['Model'],
            primary_key='workspace_id, call_id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (replays > 0)',
            ),
        ),
    ]
