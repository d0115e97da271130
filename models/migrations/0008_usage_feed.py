from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = r'''
-- The live request log asks what was written since an instant. Events are written in the order of that instant, many with the same one: the index is small.
CREATE INDEX usage_event_by_writing ON usage_event (created_at);
'''


class Migration(migrations.Migration):
    dependencies = [("models", "0007_payments")]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
