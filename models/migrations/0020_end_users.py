from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from models.ddl import CreateTable

SQL = '''
CREATE INDEX end_user_last_seen ON end_user (workspace_id, app_id, (coalesce(last_seen_at, first_seen_at)), id);
CREATE INDEX end_user_by_name ON end_user (workspace_id, external_id text_pattern_ops);
CREATE INDEX client_token_of_end_user ON client_token (workspace_id, end_user) WHERE end_user IS NOT NULL;
-- Whom calls and tokens have named before there was this table; the id is that of end_user_id_1.
INSERT INTO end_user (workspace_id, id, app_id, external_id, first_seen_at, last_seen_at)
SELECT x.workspace_id, md5('end user ' || x.workspace_id || ' ' || coalesce(x.app_id::text, '') || ' ' || x.name)::uuid, x.app_id, x.name, min(x.at), max(x.used_at)
  FROM (SELECT e.workspace_id, e.app_id, e.end_user AS name, e.at, e.at AS used_at FROM usage_event e WHERE e.end_user IS NOT NULL
        UNION ALL
        SELECT t.workspace_id, t.app_id, t.end_user, t.created_at, NULL FROM client_token t WHERE t.end_user IS NOT NULL) x
 GROUP BY x.workspace_id, x.app_id, x.name;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0019_markup')]

    initial = False

    operations = [
        CreateTable(
            name='EndUser',
            fields=[
                ('id', fields.UUIDField(primary_key=True, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('app_id', fields.UUIDField(null=True)),
                ('external_id', fields.CharField(max_length=255)),
                ('blocked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('first_seen_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('last_seen_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('wallet_id', fields.UUIDField(null=True)),
            ],
            options={
                'table': 'end_user',
                'app': 'models',
                'pk_attr': 'id',
                'table_description': 'Somebody whom calls or client tokens name, under an app or none; the id is a hash of workspace, app and name, so that a call finds it without a look-up.',
            },
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'FOREIGN KEY (workspace_id, wallet_id) REFERENCES account (workspace_id, id)',
            ),
        ),
        ops.AddField(model_name='UsageEvent', name='wallet_microusd', field=fields.BigIntField(default=0, db_default=0)),
        ops.AddField(model_name='UsageCell', name='wallet_microusd', field=fields.BigIntField(default=0, db_default=0)),
        ops.AddField(model_name='Hold', name='wallet_markup', field=fields.DecimalField(null=True, max_digits=12, decimal_places=6)),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
