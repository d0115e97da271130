from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from models.enums import ActorKind, ApiKeyKind, ApiKeyMode, HoldState, JobStatus, LedgerAccountKind, LimitPer, Measure, Role, SubjectKind, TokenCountSource, TransferKind, UsageEventKind, UsageOutcome
from models.ddl import CreateTable
from models.ids import uuid7
from tortoise.contrib.postgres.fields import ArrayField
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index

SQL = r'''
-- The ledger and the usage events are append-only: the database refuses to change or delete a row, whoever asks.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'table % is append-only', tg_table_name USING errcode = '55000';
END $$;
-- Row triggers, because they are cloned to every partition; a statement trigger would not fire where a partition is addressed by its own name.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transfer FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON price FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON "call" FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON usage_event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON attempt FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON transfer FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON price FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON "call" FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON usage_event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON attempt FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON hold FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_deleted BEFORE DELETE ON hold FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A hold is a state machine: open until it is closed, once.
CREATE FUNCTION guard_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state <> 'open' THEN
    IF new.state = old.state AND old.closed_by = 'sweep' AND new.closed_by = 'late' AND new.amount = old.amount THEN
      RETURN new;  -- a settlement that came after the sweep has posted the difference
    END IF;
    RAISE EXCEPTION 'hold % is already %', old.call_id, old.state USING errcode = '55000';
  END IF;
  IF new.call_id <> old.call_id OR new.workspace_id <> old.workspace_id OR new.account_id IS DISTINCT FROM old.account_id OR new.amount < old.amount THEN
    RAISE EXCEPTION 'hold % may only grow or close', old.call_id USING errcode = '55000';
  END IF;
  RETURN new;
END $$;
CREATE TRIGGER state_machine BEFORE UPDATE ON hold FOR EACH ROW EXECUTE FUNCTION guard_hold();

-- Partitions by the instant inside a uuidv7, a month each, made ahead; the default partition catches a backdated record.
CREATE FUNCTION uuid_at(p_at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
  SELECT (lpad(to_hex((extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;
CREATE TABLE call_default PARTITION OF "call" DEFAULT;
CREATE TABLE hold_default PARTITION OF hold DEFAULT;
CREATE TABLE attempt_default PARTITION OF attempt DEFAULT;
CREATE TABLE usage_event_default PARTITION OF usage_event DEFAULT;
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON call_default FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON hold_default FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON attempt_default FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON usage_event_default FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE INDEX hold_expiring ON hold (expires_at) WHERE state = 'open';
CREATE INDEX hold_open ON hold (workspace_id) WHERE state = 'open';
CREATE INDEX attempt_of_call ON attempt (workspace_id, call_id);
CREATE INDEX usage_event_of_record ON usage_event (workspace_id, record_id);
CREATE INDEX usage_event_by_time ON usage_event (workspace_id, at);
CREATE INDEX transfer_by_debit ON transfer (workspace_id, debit_id, id);
CREATE INDEX transfer_by_credit ON transfer (workspace_id, credit_id, id);
CREATE INDEX transfer_of_call ON transfer (workspace_id, call_id) WHERE call_id IS NOT NULL;
CREATE UNIQUE INDEX one_of_each_kind ON account (workspace_id, kind) WHERE kind NOT IN ('grant', 'wallet');
CREATE UNIQUE INDEX one_place_each ON member (workspace_id, user_id) WHERE removed_at IS NULL;
CREATE INDEX bound_in_force ON bound (workspace_id) WHERE removed_at IS NULL;
CREATE INDEX job_due ON job (next_at) WHERE status IN ('queued', 'running');
ALTER TABLE hold_default SET (fillfactor = 70);
ALTER TABLE account SET (fillfactor = 50);
ALTER TABLE bound_window SET (fillfactor = 50);
'''


class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name='Workspace',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('name', fields.CharField(max_length=200)),
                ('default_timezone', fields.CharField(default='UTC', max_length=64)),
                ('retention_days', fields.IntField(null=True)),
                ('stopped_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'workspace', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A tenant.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='User',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('issuer', fields.CharField(null=True, max_length=400)),
                ('subject', fields.CharField(null=True, max_length=400)),
                ('email', fields.CharField(null=True, db_index=True, max_length=320)),
                ('name', fields.CharField(null=True, max_length=200)),
                ('operator', fields.BooleanField(default=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'users', 'app': 'models', 'unique_together': (('issuer', 'subject'),), 'pk_attr': 'id', 'table_description': "A person, known by an issuer's subject; without one while only an invitation names the address."},
            bases=['Model'],
        ),
        CreateTable(
            name='Member',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('user_id', fields.UUIDField(db_index=True)),
                ('role', fields.CharEnumField(enum_type=Role, max_length=16)),
                ('invited_by', fields.UUIDField(null=True)),
                ('invited_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('invitation_expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('joined_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('removed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'member', 'app': 'models', 'pk_attr': 'id', 'table_description': "A person's place in a workspace, or an open invitation to it; a row that ended keeps `removed_at`."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'FOREIGN KEY (user_id) REFERENCES users (id)',
                'CHECK ((joined_at IS NOT NULL) OR (invitation_expires_at IS NOT NULL))',
            ),
        ),
        CreateTable(
            name='ApiKey',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('name', fields.CharField(null=True, max_length=200)),
                ('kind', fields.CharEnumField(enum_type=ApiKeyKind, max_length=16)),
                ('mode', fields.CharEnumField(enum_type=ApiKeyMode, max_length=8)),
                ('scopes', ArrayField(element_type='TEXT')),
                ('allowed_models', ArrayField(null=True, element_type='TEXT')),
                ('allowed_origins', ArrayField(null=True, element_type='TEXT')),
                ('allowed_addresses', ArrayField(null=True, element_type='TEXT')),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('revoked_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'api_key', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A key: what it may do. Its secrets are child rows, so that rotation keeps the key.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
            ),
        ),
        CreateTable(
            name='ApiKeySecret',
            fields=[
                ('hash', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('workspace_id', fields.UUIDField()),
                ('key_id', fields.UUIDField()),
                ('prefix', fields.CharField(max_length=16)),
                ('suffix', fields.CharField(max_length=4)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('works_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('last_used_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'api_key_secret', 'app': 'models', 'indexes': [Index(fields=['workspace_id', 'key_id'])], 'pk_attr': 'hash', 'table_description': 'The directory of secrets over all workspaces: SHA-256 in hex, never the secret.'},
            bases=['Model'],
            primary_key='hash',
            constraints=(
                'FOREIGN KEY (workspace_id, key_id) REFERENCES api_key (workspace_id, id)',
                "CHECK (hash ~ '^[0-9a-f]{64}$')",
            ),
        ),
        CreateTable(
            name='Bound',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('subject_kind', fields.CharEnumField(enum_type=SubjectKind, max_length=16)),
                ('subject_id', fields.UUIDField()),
                ('measure', fields.CharEnumField(enum_type=Measure, max_length=16)),
                ('window', fields.CharField(max_length=32)),
                ('most', fields.BigIntField()),
                ('per', fields.CharEnumField(enum_type=LimitPer, max_length=16)),
                ('model', fields.CharField(null=True, max_length=200)),
                ('position', fields.IntField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('removed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'bound', 'app': 'models', 'pk_attr': 'id', 'table_description': 'The most that a subject may spend, call or hold in a window.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (most >= 0)',
            ),
        ),
        CreateTable(
            name='BoundWindow',
            fields=[
                ('bound_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('scope', fields.CharField(max_length=300)),
                ('started_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('ends_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('spent', fields.BigIntField()),
                ('held', fields.BigIntField()),
            ],
            options={'table': 'bound_window', 'app': 'models', 'pk_attr': 'bound_id', 'table_description': "What one window of a bound has spent and holds, updated in place; guarded by the lock on the workspace's cash account."},
            bases=['Model'],
            primary_key='workspace_id, bound_id, scope',
            constraints=(
                'FOREIGN KEY (workspace_id, bound_id) REFERENCES bound (workspace_id, id)',
                'CHECK (held >= 0)',
                'CHECK (spent >= 0)',
            ),
        ),
        CreateTable(
            name='Idempotency',
            fields=[
                ('key', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=255)),
                ('scope_id', fields.UUIDField()),
                ('operation', fields.CharField(max_length=64)),
                ('input_hash', fields.CharField(max_length=64)),
                ('subject_id', fields.UUIDField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'idempotency', 'app': 'models', 'pk_attr': 'key', 'table_description': 'What a request with an idempotency key has done; written in the transaction of its effect.'},
            bases=['Model'],
            primary_key='scope_id, operation, key',
        ),
        CreateTable(
            name='Account',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('kind', fields.CharEnumField(enum_type=LedgerAccountKind, max_length=16)),
                ('credits', fields.BigIntField(default=0)),
                ('debits', fields.BigIntField(default=0)),
                ('held', fields.BigIntField(default=0)),
                ('floor', fields.BigIntField(default=0)),
                ('version', fields.BigIntField(default=0)),
                ('carry_picousd', fields.BigIntField(default=0)),
                ('list_carry_picousd', fields.BigIntField(default=0)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'account', 'app': 'models', 'pk_attr': 'id', 'table_description': "An account of a workspace's ledger, in microdollars."},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'FOREIGN KEY (workspace_id) REFERENCES workspace (id)',
                'CHECK (credits >= 0)',
                'CHECK (debits >= 0)',
                'CHECK (held >= 0)',
                'CHECK (floor <= 0)',
                'CONSTRAINT never_below_floor CHECK (credits - debits >= floor)',
                'CHECK (carry_picousd BETWEEN 0 AND 999999)',
                'CHECK (list_carry_picousd BETWEEN 0 AND 999999)',
            ),
        ),
        CreateTable(
            name='Transfer',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('debit_id', fields.UUIDField()),
                ('credit_id', fields.UUIDField()),
                ('amount', fields.BigIntField()),
                ('kind', fields.CharEnumField(enum_type=TransferKind, max_length=20)),
                ('ref', fields.CharField(max_length=255)),
                ('call_id', fields.UUIDField(null=True)),
                ('reason', fields.TextField(null=True, unique=False)),
                ('actor_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('actor_id', fields.UUIDField(null=True)),
                ('actor_name', fields.CharField(max_length=200)),
                ('debit_balance_after', fields.BigIntField(null=True)),
                ('debit_seq', fields.BigIntField(null=True)),
                ('credit_balance_after', fields.BigIntField(null=True)),
                ('credit_seq', fields.BigIntField(null=True)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'transfer', 'app': 'models', 'pk_attr': 'id', 'table_description': 'One posting: `amount` leaves `debit_id` and enters `credit_id`. Never changed, never deleted.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'CHECK (amount > 0)',
                'CHECK (debit_id <> credit_id)',
                'CONSTRAINT booked_once UNIQUE (workspace_id, kind, ref)',
                'FOREIGN KEY (workspace_id, debit_id) REFERENCES account (workspace_id, id)',
                'FOREIGN KEY (workspace_id, credit_id) REFERENCES account (workspace_id, id)',
            ),
        ),
        CreateTable(
            name='Attempt',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('call_id', fields.UUIDField()),
                ('number', fields.IntField()),
                ('upstream', fields.CharField(max_length=100)),
                ('model', fields.CharField(max_length=200)),
                ('outcome', fields.CharEnumField(enum_type=UsageOutcome, max_length=10)),
                ('http_status', fields.IntField(null=True)),
                ('error_code', fields.CharField(null=True, max_length=64)),
                ('usage', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('cost_picousd', fields.BigIntField()),
                ('started_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('first_byte_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'attempt', 'app': 'models', 'pk_attr': 'id', 'table_description': 'One upstream try of a call, with its own usage and cost.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'CHECK (cost_picousd >= 0)',
            ),
            partition_by='RANGE (id)',
        ),
        CreateTable(
            name='Call',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('key_id', fields.UUIDField(null=True)),
                ('key_kind', fields.CharEnumField(enum_type=ApiKeyKind, max_length=16)),
                ('mode', fields.CharEnumField(enum_type=ApiKeyMode, max_length=8)),
                ('user_id', fields.UUIDField(null=True)),
                ('client_token_id', fields.UUIDField(null=True)),
                ('app_id', fields.UUIDField(null=True)),
                ('end_user', fields.CharField(null=True, max_length=255)),
                ('conversation', fields.CharField(null=True, max_length=255)),
                ('language', fields.CharField(null=True, max_length=35)),
                ('tags', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('api_name', fields.CharField(max_length=64)),
                ('endpoint', fields.CharField(max_length=100)),
                ('dialect', fields.CharField(max_length=16)),
                ('preset', fields.CharField(null=True, max_length=64)),
                ('requested_model', fields.CharField(max_length=200)),
                ('model', fields.CharField(max_length=200)),
                ('upstream', fields.CharField(max_length=100)),
                ('price_id', fields.UUIDField(null=True)),
                ('streamed', fields.BooleanField()),
                ('input_tokens', fields.BigIntField()),
                ('requested_max_output', fields.BigIntField(null=True)),
                ('granted_output', fields.BigIntField()),
                ('clamped', fields.BooleanField()),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'call', 'app': 'models', 'pk_attr': 'id', 'table_description': 'One inference request as it was admitted; never changed.'},
            bases=['Model'],
            primary_key='workspace_id, id',
            constraints=(
                'CHECK (input_tokens >= 0)',
                'CHECK (granted_output >= 0)',
            ),
            partition_by='RANGE (id)',
        ),
        ops.CreateModel(
            name='CatalogueModel',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('name', fields.CharField(unique=True, max_length=200)),
                ('display_name', fields.CharField(max_length=200)),
                ('aliases', ArrayField(element_type='TEXT')),
                ('vendor', fields.CharField(null=True, max_length=100)),
                ('context_window', fields.IntField(null=True)),
                ('max_output_tokens', fields.IntField(null=True)),
                ('capabilities', ArrayField(element_type='TEXT')),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('retires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'catalogue_model', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A model of language as clients name it.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Clock',
            fields=[
                ('name', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('done_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'clock', 'app': 'models', 'pk_attr': 'name', 'table_description': "When something that recurs was last done: the memory that a worker's schedule does not have."},
            bases=['Model'],
        ),
        CreateTable(
            name='Hold',
            fields=[
                ('call_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('account_id', fields.UUIDField(null=True)),
                ('amount', fields.BigIntField()),
                ('state', fields.CharEnumField(enum_type=HoldState, max_length=10)),
                ('held_output', fields.BigIntField()),
                ('extensions', fields.IntField(default=0)),
                ('bound_ids', ArrayField(null=True, element_type='UUID')),
                ('bound_scopes', ArrayField(null=True, element_type='TEXT')),
                ('bound_held', ArrayField(null=True, element_type='BIGINT')),
                ('progress', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('progress_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('closed_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('closed_by', fields.CharField(null=True, max_length=10)),
                ('charge_picousd', fields.BigIntField(null=True)),
                ('charge_microusd', fields.BigIntField(null=True)),
            ],
            options={'table': 'hold', 'app': 'models', 'pk_attr': 'call_id', 'table_description': 'What a call has set aside, and how far it is: the one row of a call that changes, until it is closed once.'},
            bases=['Model'],
            primary_key='workspace_id, call_id',
            constraints=(
                'CHECK (amount >= 0)',
                "CHECK ((state = 'open') = (closed_at IS NULL))",
                'CHECK (account_id IS NOT NULL OR amount = 0)',
                "CHECK (state IN ('open', 'settled', 'released'))",
            ),
            partition_by='RANGE (call_id)',
        ),
        ops.CreateModel(
            name='Job',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField(null=True)),
                ('kind', fields.CharField(max_length=64)),
                ('payload', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('status', fields.CharEnumField(enum_type=JobStatus, max_length=12)),
                ('tries', fields.IntField(default=0)),
                ('next_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('leased_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('finished_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('failure', fields.TextField(null=True, unique=False)),
            ],
            options={'table': 'job', 'app': 'models', 'pk_attr': 'id', 'table_description': 'A duty, written in the transaction of the fact that caused it. The queue carries its id and nothing else.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Price',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('model', fields.CharField(max_length=200)),
                ('upstream', fields.CharField(null=True, max_length=100)),
                ('rows', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('effective_from', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('source', fields.CharField(max_length=300)),
                ('creator_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('creator_id', fields.UUIDField(null=True)),
                ('creator_name', fields.CharField(max_length=200)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'price', 'app': 'models', 'indexes': [Index(fields=['model', 'effective_from'])], 'pk_attr': 'id', 'table_description': "One immutable version of a model's prices; `rows` is a list of `domain.money.catalogue.PriceRow` as JSON."},
            bases=['Model'],
        ),
        CreateTable(
            name='UsageCell',
            fields=[
                ('at', fields.DatetimeField(primary_key=True, unique=True, db_index=True, auto_now=False, auto_now_add=False)),
                ('workspace_id', fields.UUIDField()),
                ('level', fields.SmallIntField()),
                ('model', fields.CharField(max_length=200)),
                ('app_id', fields.UUIDField()),
                ('key_id', fields.UUIDField()),
                ('outcome', fields.CharField(max_length=10)),
                ('requests', fields.BigIntField()),
                ('errors', fields.BigIntField()),
                ('units', fields.BigIntField()),
                ('input_tokens', fields.BigIntField()),
                ('output_tokens', fields.BigIntField()),
                ('cache_read_tokens', fields.BigIntField()),
                ('cache_write_5m_tokens', fields.BigIntField()),
                ('cache_write_1h_tokens', fields.BigIntField()),
                ('reasoning_tokens', fields.BigIntField()),
                ('characters', fields.BigIntField()),
                ('lines', fields.BigIntField()),
                ('charge_microusd', fields.BigIntField()),
                ('list_microusd', fields.BigIntField()),
                ('upstream_cost_picousd', fields.BigIntField()),
            ],
            options={'table': 'usage_cell', 'app': 'models', 'pk_attr': 'at', 'table_description': 'Folded usage of a quarter of an hour, at one of three levels: the workspace, a model, or an app with a key and an outcome.'},
            bases=['Model'],
            primary_key='workspace_id, level, at, model, app_id, key_id, outcome',
            constraints=(
                'CHECK (level BETWEEN 0 AND 2)',
            ),
        ),
        CreateTable(
            name='UsageEvent',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('record_id', fields.UUIDField()),
                ('kind', fields.CharEnumField(enum_type=UsageEventKind, max_length=12)),
                ('mode', fields.CharEnumField(enum_type=ApiKeyMode, max_length=8)),
                ('at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('key_id', fields.UUIDField(null=True)),
                ('user_id', fields.UUIDField(null=True)),
                ('client_token_id', fields.UUIDField(null=True)),
                ('app_id', fields.UUIDField(null=True)),
                ('end_user', fields.CharField(null=True, max_length=255)),
                ('conversation', fields.CharField(null=True, max_length=255)),
                ('language', fields.CharField(null=True, max_length=35)),
                ('tags', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('api_name', fields.CharField(max_length=64)),
                ('endpoint', fields.CharField(max_length=100)),
                ('preset', fields.CharField(null=True, max_length=64)),
                ('requested_model', fields.CharField(null=True, max_length=200)),
                ('model', fields.CharField(null=True, max_length=200)),
                ('provider', fields.CharField(null=True, max_length=100)),
                ('streamed', fields.BooleanField()),
                ('outcome', fields.CharEnumField(enum_type=UsageOutcome, max_length=10)),
                ('http_status', fields.IntField(null=True)),
                ('error_code', fields.CharField(null=True, max_length=64)),
                ('requests', fields.IntField()),
                ('errors', fields.IntField()),
                ('units', fields.BigIntField()),
                ('input_tokens', fields.BigIntField()),
                ('output_tokens', fields.BigIntField()),
                ('cache_read_tokens', fields.BigIntField()),
                ('cache_write_5m_tokens', fields.BigIntField()),
                ('cache_write_1h_tokens', fields.BigIntField()),
                ('reasoning_tokens', fields.BigIntField()),
                ('other_buckets', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('characters', fields.BigIntField()),
                ('lines', fields.BigIntField()),
                ('charge_microusd', fields.BigIntField()),
                ('list_microusd', fields.BigIntField()),
                ('charge_picousd', fields.BigIntField()),
                ('list_picousd', fields.BigIntField()),
                ('upstream_cost_picousd', fields.BigIntField()),
                ('price_id', fields.UUIDField(null=True)),
                ('latency_ms', fields.IntField(null=True)),
                ('first_token_ms', fields.IntField(null=True)),
                ('token_source', fields.CharEnumField(enum_type=TokenCountSource, max_length=10)),
                ('needs_review', fields.BooleanField()),
                ('api_key_used', fields.CharField(null=True, max_length=64)),
                ('reason', fields.TextField(null=True, unique=False)),
                ('actor_kind', fields.CharField(null=True, max_length=16)),
                ('actor_id', fields.UUIDField(null=True)),
                ('actor_name', fields.CharField(null=True, max_length=200)),
            ],
            options={'table': 'usage_event', 'app': 'models', 'pk_attr': 'id', 'table_description': "One fact of usage. A call's first event has its call's id; what changes it later is a new event with differences."},
            bases=['Model'],
            primary_key='workspace_id, id',
            partition_by='RANGE (id)',
        ),
        CreateTable(
            name='UsagePending',
            fields=[
                ('event_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
            ],
            options={'table': 'usage_pending', 'app': 'models', 'pk_attr': 'event_id', 'table_description': "An event that is in no cell yet; written in the event's transaction, deleted in that of the fold."},
            bases=['Model'],
            primary_key='workspace_id, event_id',
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
