-- plans_1: the functions of the hot path plan each of their statements once for a session.
--
-- Their keys come out of their argument's rows, so that a plan made for one argument is no better than one for all. But a table of many partitions makes it look
-- cheaper, and Postgres would plan every statement of every call anew: half of what a settlement costs.
DO $$
DECLARE
  v_function regprocedure;
BEGIN
  FOR v_function IN
    SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = 'public' AND p.proname ~ '^(admit|settle|progress)_[0-9]+$' AND p.prokind = 'f'
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function);
  END LOOP;
END $$;
