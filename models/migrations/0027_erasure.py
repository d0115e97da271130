from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = r'''
-- Two changes pass the triggers, when the function that makes them says so in its transaction: `erase_1` takes a name out of these columns alone, and
-- `retire_1` deletes calls whose time is over. The application's role may neither update nor delete, whatever it says.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_op = 'UPDATE' AND current_setting('tallygate.erasing', true) = 'on' AND tg_table_name ~ '^(call|usage_event|audit_event)(_default|_y[0-9]+m[0-9]+)?$'
     AND to_jsonb(new) - ARRAY['end_user', 'conversation', 'tags', 'changes'] = to_jsonb(old) - ARRAY['end_user', 'conversation', 'tags', 'changes'] THEN
    RETURN new;
  END IF;
  IF tg_op = 'DELETE' AND current_setting('tallygate.retiring', true) = 'on' AND tg_table_name ~ '^(call|hold|attempt|usage_event)(_default|_y[0-9]+m[0-9]+)?$' THEN
    RETURN old;
  END IF;
  RAISE EXCEPTION 'table % is append-only', tg_table_name USING errcode = '55000';
END $$;
CREATE OR REPLACE FUNCTION guard_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('tallygate.erasing', true) = 'on' AND to_jsonb(new) - 'bound_scopes' = to_jsonb(old) - 'bound_scopes' THEN
    RETURN new;
  END IF;
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
'''


class Migration(migrations.Migration):
    dependencies = [("models", "0026_watches")]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
