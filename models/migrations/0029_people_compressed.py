from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = r'''
-- A target of almost a page kept sets of people from being compressed at all; without it a thin set takes some ten bytes instead of 4 KiB.
ALTER TABLE usage_people RESET (toast_tuple_target);
SET statement_timeout = 0;
UPDATE usage_people SET people = people | people;
RESET statement_timeout;
'''


class Migration(migrations.Migration):
    dependencies = [("models", "0028_retention")]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
