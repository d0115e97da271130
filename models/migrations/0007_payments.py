from tortoise import migrations
from tortoise.migrations import operations as ops
from models.enums import ActorKind, DisputeStatus, RefundStatus, TopUpStatus, TransferKind
from models.ddl import CreateTable
from models.ids import uuid7
from uuid import uuid4
from tortoise import fields
SQL = r'''
CREATE INDEX top_up_to_look_at ON top_up (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX top_up_fulfilled ON top_up (workspace_id, paid_at) WHERE status = 'fulfilled';
CREATE INDEX refund_of_top_up ON refund (workspace_id, top_up_id);
CREATE UNIQUE INDEX refund_known_once ON refund (workspace_id, stripe_refund_id) WHERE stripe_refund_id IS NOT NULL;
CREATE INDEX dispute_of_top_up ON dispute (workspace_id, top_up_id);
CREATE UNIQUE INDEX one_customer_each ON stripe_object (workspace_id) WHERE kind = 'customer';
CREATE INDEX stripe_event_waiting ON stripe_event (received_at) WHERE applied_at IS NULL;
CREATE INDEX auto_top_up_on ON auto_top_up (workspace_id) WHERE enabled;
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0006_payers')]

    initial = False

    operations = [
        CreateTable(
            name='TopUp',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('status', fields.CharEnumField(description='OPEN: open\nPENDING: pending\nFULFILLED: fulfilled\nFAILED: failed\nEXPIRED: expired', enum_type=TopUpStatus, max_length=12)),
                ('amount_microusd', fields.BigIntField()),
                ('credited_microusd', fields.BigIntField(null=True)),
                ('automatic', fields.BooleanField(default=False)),
                ('creator_kind', fields.CharEnumField(description='USER: user\nAPI_KEY: api_key\nOPERATOR: operator\nSYSTEM: system', enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('return_url', fields.TextField(null=True, unique=False)),
                ('method_id', fields.CharField(null=True, max_length=255)),
                ('session_id', fields.CharField(null=True, max_length=255)),
                ('session_url', fields.TextField(null=True, unique=False)),
                ('session_expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('payment_id', fields.CharField(null=True, max_length=255)),
                ('receipt_url', fields.TextField(null=True, unique=False)),
                ('failure_code', fields.CharField(null=True, max_length=100)),
                ('failure_message', fields.TextField(null=True, unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('paid_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('fulfilled_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('version', fields.IntField(default=0)),
                ('looked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('look_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'top_up', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A payment for credit, written before Stripe hears of it; `version` counts what was applied, `look_at` is when to ask Stripe again.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (amount_microusd > 0)',
                "CHECK ((status = 'fulfilled') = (fulfilled_at IS NOT NULL))",
            ),
        ),
        CreateTable(
            name='AutoTopUp',
            fields=[
                ('workspace_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('enabled', fields.BooleanField(default=False)),
                ('threshold_microusd', fields.BigIntField(null=True)),
                ('amount_microusd', fields.BigIntField(null=True)),
                ('daily_cap_microusd', fields.BigIntField(null=True)),
                ('cooldown_seconds', fields.IntField(default=300)),
                ('tried_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('pending_id', fields.UUIDField(null=True)),
                ('failure_code', fields.CharField(null=True, max_length=100)),
                ('failure_message', fields.TextField(null=True, unique=False)),
                ('failure_retryable', fields.BooleanField(default=False)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'auto_top_up', 'app': 'models', 'pk_attr': 'workspace_id', 'table_description': "Whether and how a workspace's credit is bought without asking; `pending_id` is the one top-up under way."},
            bases=['Model'],
            primary_key='workspace_id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (cooldown_seconds >= 60)',
            ),
        ),
        CreateTable(
            name='Refund',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('top_up_id', fields.UUIDField()),
                ('stripe_refund_id', fields.CharField(null=True, max_length=255)),
                ('amount_microusd', fields.BigIntField()),
                ('status', fields.CharEnumField(description='PENDING: pending\nSUCCEEDED: succeeded\nFAILED: failed\nCANCELLED: cancelled', enum_type=RefundStatus, max_length=12)),
                ('reason', fields.TextField(null=True, unique=False)),
                ('creator_kind', fields.CharEnumField(description='USER: user\nAPI_KEY: api_key\nOPERATOR: operator\nSYSTEM: system', enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'refund', 'app': 'models', 'pk_attr': 'id', 'table_description': 'Money of a top-up given back; made here, before Stripe hears of it, or found at Stripe.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id, top_up_id) REFERENCES top_up (workspace_id, id)',
                'CHECK (amount_microusd > 0)',
            ),
        ),
        CreateTable(
            name='Dispute',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('top_up_id', fields.UUIDField()),
                ('stripe_dispute_id', fields.CharField(max_length=255)),
                ('amount_microusd', fields.BigIntField()),
                ('status', fields.CharEnumField(description='INQUIRY: inquiry\nOPEN: open\nWON: won\nLOST: lost', enum_type=DisputeStatus, max_length=12)),
                ('reason', fields.CharField(max_length=100)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('closed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'dispute', 'app': 'models', 'pk_attr': 'id', 'table_description': "A payment contested at the customer's bank."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id, top_up_id) REFERENCES top_up (workspace_id, id)',
                'CONSTRAINT known_once UNIQUE (workspace_id, stripe_dispute_id)',
                'CHECK (amount_microusd > 0)',
            ),
        ),
        CreateTable(
            name='StripeObject',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=255)),
                ('kind', fields.CharField(max_length=16)),
                ('workspace_id', fields.UUIDField(db_index=True)),
                ('subject_id', fields.UUIDField()),
            ],
            options={'table': 'stripe_object', 'app': 'models', 'pk_attr': 'id', 'table_description': 'The directory over all workspaces: whose a customer, session, payment or subscription at Stripe is, and which row of theirs it stands for.'},
            bases=['Model'],
            primary_key='id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
            ),
        ),
        CreateTable(
            name='StripeEntry',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=255)),
                ('workspace_id', fields.UUIDField()),
                ('transfer_kind', fields.CharEnumField(description='TOP_UP: top_up\nGRANT: grant\nCHARGE: charge\nLATE: late\nCORRECTION: correction\nREFUND: refund\nREFUND_FAILURE: refund_failure\nDISPUTE: dispute\nDISPUTE_REVERSAL: dispute_reversal\nWALLET: wallet\nADJUSTMENT: adjustment\nEXPIRY: expiry\nWRITE_OFF: write_off\nFEE: fee', enum_type=TransferKind, max_length=20)),
                ('transfer_ref', fields.CharField(max_length=255)),
                ('amount_microusd', fields.BigIntField()),
                ('fee_microusd', fields.BigIntField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'stripe_entry', 'app': 'models', 'pk_attr': 'id', 'table_description': "A balance transaction of Stripe's, and the transfer that books it; `amount_microusd` is signed as Stripe has it."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
            ),
        ),
        CreateTable(
            name='StripeEvent',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=255)),
                ('type', fields.CharField(max_length=100)),
                ('object_id', fields.CharField(max_length=255)),
                ('payment_id', fields.CharField(null=True, max_length=255)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('received_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('applied_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('outcome', fields.CharField(null=True, max_length=32)),
            ],
            options={'table': 'stripe_event', 'app': 'models', 'pk_attr': 'id', 'table_description': 'The inbox: an event that Stripe told of, once. What happened is read from the object itself, so nothing else of it is kept.'},
            bases=['Model'],
            primary_key='id',
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
