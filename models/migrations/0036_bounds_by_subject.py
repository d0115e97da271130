from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = r'''
-- An admission looks for bounds by subject, and others by their own id. Of indexes that begin with the workspace Postgres takes any for plans that it makes while the table
-- is small, and then reads all bounds of a workspace to find one; this one it can take for nothing else.
CREATE INDEX bound_by_subject ON bound (subject_id, workspace_id);
DROP INDEX bound_of_subject;
DROP INDEX bound_in_force;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0035_prepaid_accounts')]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
