from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from models.enums import ActorKind

SQL = '''
CREATE INDEX app_allowed_origins ON app USING gin ((manifest -> 'allowedOrigins')) WHERE deleted_at IS NULL;
CREATE INDEX client_token_origins ON client_token USING gin (allowed_origins);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0029_people_compressed')]

    initial = False

    operations = [
        ops.AddField(model_name='App', name='minter_kind', field=fields.CharEnumField(null=True, enum_type=ActorKind, max_length=16)),
        ops.AddField(model_name='App', name='minter_id', field=fields.UUIDField(null=True)),
        ops.AddField(model_name='App', name='minter_name', field=fields.CharField(null=True, max_length=200)),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
