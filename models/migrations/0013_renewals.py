from tortoise import migrations
from tortoise.migrations import operations as ops
from models.ddl import CreateTable
from models.enums import InvoiceStatus
from models.ids import uuid7
from tortoise import fields


class Migration(migrations.Migration):
    dependencies = [('models', '0012_books')]

    initial = False

    operations = [
        CreateTable(
            name='Invoice',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('stripe_invoice_id', fields.CharField(max_length=255)),
                ('number', fields.CharField(null=True, max_length=100)),
                ('status', fields.CharEnumField(enum_type=InvoiceStatus, max_length=16)),
                ('description', fields.TextField(null=True, unique=False)),
                ('amount_microusd', fields.BigIntField()),
                ('url', fields.TextField(null=True, unique=False)),
                ('pdf_url', fields.TextField(null=True, unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'invoice', 'app': 'models', 'pk_attr': 'id', 'table_description': "An invoice of Stripe's, as it was last read."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'UNIQUE (workspace_id, stripe_invoice_id)',
            ),
        ),
        ops.AddField(model_name='Subscription', name='looked_at', field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        ops.RunSQL('CREATE INDEX subscription_at_stripe ON subscription (stripe_subscription_id) WHERE stripe_subscription_id IS NOT NULL', reverse_sql='SELECT 1'),
    ]
