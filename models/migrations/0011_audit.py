from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from json import dumps, loads
from models.enums import ActorKind
from models.ddl import CreateTable
from models.ids import uuid7
from tortoise import fields

SQL = r'''
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON audit_event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE INDEX audit_event_of_subject ON audit_event (workspace_id, subject_id, id) WHERE subject_id IS NOT NULL;
CREATE INDEX audit_event_by_id ON audit_event (id);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0010_exports')]

    initial = False

    operations = [
        CreateTable(
            name='AuditEvent',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ('workspace_id', fields.UUIDField()),
                ('action', fields.CharField(max_length=64)),
                ('actor_kind', fields.CharEnumField(enum_type=ActorKind, max_length=16)),
                ('actor_id', fields.UUIDField(null=True)),
                ('actor_name', fields.CharField(max_length=200)),
                ('subject_kind', fields.CharField(null=True, max_length=40)),
                ('subject_id', fields.CharField(null=True, max_length=200)),
                ('changes', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('reason', fields.TextField(null=True, unique=False)),
                ('request_id', fields.CharField(null=True, max_length=100)),
                ('address', fields.CharField(null=True, max_length=64)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'audit_event', 'app': 'models', 'pk_attr': 'id', 'table_description': 'One change, written in its transaction; never changed, never deleted. A change to the service itself has the nil workspace.'},
            bases=['Model'],
            primary_key='workspace_id, id',
        ),
        ops.RunSQL(SQL, reverse_sql='SELECT 1'),
    ]
