from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = r'''
-- Nearly every record is one event, found by its own id. Only what changed it later is looked for by the record: an index of those alone.
CREATE INDEX usage_event_changes ON usage_event (workspace_id, record_id) WHERE id <> record_id;
DROP INDEX usage_event_of_record;
'''


class Migration(migrations.Migration):
    dependencies = [("models", "0003_apps")]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
