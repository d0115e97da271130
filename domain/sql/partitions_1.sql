-- partitions_1(from, months): make the partitions of that many months, from the month of an instant on, and return how many were made.
--
-- It runs with its owner's rights, so that the worker, who may create nothing, can make partitions ahead. It waits at most two seconds for a lock, so
-- that nobody queues behind it; a month whose rows are in the default partition already stays there.
CREATE OR REPLACE FUNCTION partitions_1(p_from timestamptz, p_months int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  v_made int := 0;
  v_start timestamptz;
  v_end timestamptz;
  v_table text;
  v_key text;
  v_name text;
  v_taken boolean;
BEGIN
  IF p_months NOT BETWEEN 1 AND 240 OR p_from NOT BETWEEN '1971-01-01Z' AND now() + interval '1 year' THEN
    RAISE EXCEPTION 'no such months';
  END IF;
  PERFORM pg_advisory_xact_lock(7155419226);
  FOR v_start IN SELECT m AT TIME ZONE 'UTC' FROM generate_series(date_trunc('month', p_from AT TIME ZONE 'UTC'),
                   date_trunc('month', p_from AT TIME ZONE 'UTC') + make_interval(months => p_months - 1), interval '1 month') m LOOP
    v_end := (v_start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    FOREACH v_table IN ARRAY ARRAY['call', 'hold', 'attempt', 'usage_event'] LOOP
      v_name := format('%s_y%sm%s', v_table, to_char(v_start AT TIME ZONE 'UTC', 'YYYY'), to_char(v_start AT TIME ZONE 'UTC', 'MM'));
      CONTINUE WHEN to_regclass('public.' || v_name) IS NOT NULL;
      v_key := CASE v_table WHEN 'hold' THEN 'call_id' ELSE 'id' END;
      EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %L AND %I < %L)', v_table || '_default', v_key, uuid_at(v_start), v_key, uuid_at(v_end)) INTO v_taken;
      CONTINUE WHEN v_taken;
      EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', v_name, v_table, uuid_at(v_start), uuid_at(v_end));
      EXECUTE format('CREATE TRIGGER never_truncated BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', v_name);
      v_made := v_made + 1;
    END LOOP;
  END LOOP;
  RETURN v_made;
END $$;
