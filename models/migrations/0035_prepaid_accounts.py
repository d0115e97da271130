from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = """
-- A balance is read before most answers, and a workspace may have a wallet for each of a hundred thousand end users.
CREATE INDEX account_prepaid ON account (workspace_id) WHERE kind IN ('cash', 'grant');
"""


class Migration(migrations.Migration):
    dependencies = [('models', '0034_hold_guard')]

    initial = False

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
