from tortoise import migrations
from tortoise.migrations import operations as ops

SQL = r'''
-- A change of a hold that the state machine allows is told by the trigger's condition, which costs nothing beside the function: an open hold that grows or is
-- closed. Whatever else is asked goes to the function, which knows the two exceptions and refuses the rest. Its first question has no null for an answer any more:
-- where nobody ever set `tallygate.erasing` it made every closing hold compare itself as JSON.
CREATE OR REPLACE FUNCTION guard_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce(current_setting('tallygate.erasing', true), '') = 'on' AND to_jsonb(new) - 'bound_scopes' = to_jsonb(old) - 'bound_scopes' THEN
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
DROP TRIGGER state_machine ON hold;
CREATE TRIGGER state_machine BEFORE UPDATE ON hold FOR EACH ROW
  WHEN (old.state <> 'open' OR new.call_id <> old.call_id OR new.workspace_id <> old.workspace_id OR new.account_id IS DISTINCT FROM old.account_id OR new.amount < old.amount)
  EXECUTE FUNCTION guard_hold();
-- Whose bounds an admission looks for: every place that the call's person has or had in the workspace.
CREATE INDEX member_of_user ON member (workspace_id, user_id);
'''


class Migration(migrations.Migration):
    dependencies = [('models', '0033_disputed_sales')]

    operations = [ops.RunSQL(SQL, reverse_sql='SELECT 1')]
