from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [('models', '0011_audit')]

    initial = False

    operations = [
        ops.CreateModel(
            name='BooksCheck',
            fields=[
                ('name', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('broken', fields.BigIntField()),
                ('difference', fields.BigIntField()),
                ('checked_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'books_check', 'app': 'models', 'pk_attr': 'name', 'table_description': 'One check of the books, as the last look found it.'},
            bases=['Model'],
        ),
    ]
