from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = '''
-- A level of cells and spans for languages; `domain/sql/languages_1.sql` fills it, with the functions that go on writing it.
ALTER TABLE usage_cell DROP CONSTRAINT usage_cell_level_check, ADD CONSTRAINT usage_cell_level_check CHECK (level BETWEEN 0 AND 3);
ALTER TABLE usage_span DROP CONSTRAINT usage_span_level_check, ADD CONSTRAINT usage_span_level_check CHECK (level BETWEEN 0 AND 3);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0036_bounds_by_subject')]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
