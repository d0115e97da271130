from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields

SQL = r'''
-- What was folded before these columns were there; it takes as long as it takes.
SET statement_timeout = 0;
UPDATE usage_cell c SET succeeded = x.succeeded, cancelled = x.cancelled
  FROM (SELECT e.workspace_id, l.level, date_bin('15 minutes', e.at, 'epoch') AS at, CASE l.level WHEN 1 THEN coalesce(e.model, '') ELSE '' END AS model,
               CASE l.level WHEN 2 THEN coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS app_id,
               CASE l.level WHEN 2 THEN coalesce(e.key_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS key_id,
               CASE l.level WHEN 2 THEN e.outcome ELSE '' END AS outcome,
               sum(CASE e.outcome WHEN 'succeeded' THEN e.requests ELSE 0 END) AS succeeded, sum(CASE e.outcome WHEN 'cancelled' THEN e.requests ELSE 0 END) AS cancelled
          FROM usage_event e CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS l (level)
         WHERE e.mode = 'live' AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = e.workspace_id AND q.event_id = e.id)
         GROUP BY 1, 2, 3, 4, 5, 6, 7) x
 WHERE (c.workspace_id, c.level, c.at, c.model, c.app_id, c.key_id, c.outcome) = (x.workspace_id, x.level, x.at, x.model, x.app_id, x.key_id, x.outcome);
RESET statement_timeout;
'''


class Migration(migrations.Migration):
    dependencies = [("models", "0015_deployments")]

    operations = [
        ops.AddField(model_name='UsageCell', name='succeeded', field=fields.BigIntField(default=0, db_default=0)),
        ops.AddField(model_name='UsageCell', name='cancelled', field=fields.BigIntField(default=0, db_default=0)),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
