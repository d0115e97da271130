-- What is over: single calls whose time to be kept has passed go, and every sum stays, because cells, spans and sets of people stay.
--
-- `usage_retired` has, for each workspace, the instant before which single calls are gone, and what the events that are gone add up to, so that the
-- audit still closes. Reports before that instant read no single call. An event goes by the instant of its id, and what is read of single calls
-- begins a day after that: whatever two clocks said of one call, it is read from its cell.

-- retired_1(events, workspace, before, ids): note the sums of events that are about to go, and until when calls are gone.
CREATE OR REPLACE FUNCTION retired_1(p_events regclass, p_workspace uuid, p_before timestamptz, p_ids uuid[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_all bigint;
BEGIN
  EXECUTE format($q$
    WITH gone AS (
      INSERT INTO usage_retired AS r (workspace_id, mode, before, events, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
                                      cache_write_1h_tokens, charge_microusd, list_microusd, charge_picousd, list_picousd, wallet_microusd)
      SELECT e.workspace_id, e.mode, $2 + interval '1 day', count(*), sum(e.requests), sum(e.input_tokens), sum(e.output_tokens), sum(e.cache_read_tokens),
             sum(e.cache_write_5m_tokens), sum(e.cache_write_1h_tokens), sum(e.charge_microusd), sum(e.list_microusd), sum(e.charge_picousd),
             sum(e.list_picousd), sum(e.wallet_microusd)
        FROM %s e WHERE ($1 IS NULL OR (e.workspace_id = $1 AND e.id = ANY ($3))) GROUP BY 1, 2 ORDER BY 1, 2
          ON CONFLICT (workspace_id, mode) DO UPDATE
         SET before = greatest(r.before, excluded.before), events = r.events + excluded.events, requests = r.requests + excluded.requests,
             input_tokens = r.input_tokens + excluded.input_tokens, output_tokens = r.output_tokens + excluded.output_tokens,
             cache_read_tokens = r.cache_read_tokens + excluded.cache_read_tokens,
             cache_write_5m_tokens = r.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
             cache_write_1h_tokens = r.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
             charge_microusd = r.charge_microusd + excluded.charge_microusd, list_microusd = r.list_microusd + excluded.list_microusd,
             charge_picousd = r.charge_picousd + excluded.charge_picousd, list_picousd = r.list_picousd + excluded.list_picousd,
             wallet_microusd = r.wallet_microusd + excluded.wallet_microusd
      RETURNING r.workspace_id)
    SELECT count(*) FROM gone$q$, p_events) INTO v_all USING p_workspace, p_before, p_ids;
  RETURN v_all;
END $$;

-- retire_1(workspace, before, most): delete at most `most` events of a workspace that are older than a midnight of UTC, with their calls, and return
-- how many; those that are not folded yet, and calls that are open, stay. It waits for nobody, and nobody for it.
CREATE OR REPLACE FUNCTION retire_1(p_workspace uuid, p_before timestamptz, p_most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_end uuid := uuid_at(p_before);
  v_ids uuid[];
BEGIN
  IF p_before > now() - interval '1 day' OR p_before <> date_bin('1 day', p_before, 'epoch') THEN
    RAISE EXCEPTION 'calls are kept for a day at least, and go by days of UTC';
  END IF;
  SELECT array_agg(x.id) INTO v_ids FROM (
    SELECT e.id FROM usage_event e
     WHERE e.workspace_id = p_workspace AND e.id < v_end
       AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = e.workspace_id AND q.event_id = e.id)
     ORDER BY e.id LIMIT p_most) x;
  IF v_ids IS NULL THEN
    RETURN 0;
  END IF;
  PERFORM set_config('tallygate.retiring', 'on', true);
  PERFORM retired_1('usage_event', p_workspace, p_before, v_ids);
  DELETE FROM usage_event e WHERE e.workspace_id = p_workspace AND e.id = ANY (v_ids);
  DELETE FROM attempt t WHERE t.workspace_id = p_workspace AND t.call_id = ANY (v_ids);
  DELETE FROM hold h WHERE h.workspace_id = p_workspace AND h.call_id = ANY (v_ids) AND h.state <> 'open';
  DELETE FROM "call" k WHERE k.workspace_id = p_workspace AND k.id = ANY (v_ids);
  PERFORM set_config('tallygate.retiring', '', true);
  RETURN cardinality(v_ids);
END $$;

-- retire_month_1(before): drop the oldest month of calls that is over before an instant, of all workspaces at once; true when there was one.
--
-- What it adds up to is summed first, while readers go on and nobody could write into so old a month anyway. Only then the parents are locked, for
-- as long as a catalogue change takes, and never waited for longer than a tenth of a second: whoever reads at that moment is waited for by
-- nobody, the transaction is given up, and the next try may come at any time.
CREATE OR REPLACE FUNCTION retire_month_1(p_before timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
  v_month text;
  v_start timestamptz;
  v_end timestamptz;
  v_open boolean;
  v_table text;
BEGIN
  IF p_before > now() - interval '1 day' THEN
    RAISE EXCEPTION 'calls are kept for a day at least';
  END IF;
  PERFORM pg_advisory_xact_lock(7155419226);
  SELECT substring(c.relname FROM '_(y[0-9]{4}m[0-9]{2})$') INTO v_month FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'usage_event'::regclass AND c.relname ~ '_y[0-9]{4}m[0-9]{2}$' ORDER BY c.relname LIMIT 1;
  v_start := to_timestamp(v_month || ' 00:00+00', '"y"YYYY"m"MM HH24:MITZH');
  v_end := (v_start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
  IF v_month IS NULL OR v_end > p_before THEN
    RETURN false;
  END IF;
  IF EXISTS (SELECT FROM usage_pending q WHERE q.event_id >= uuid_at(v_start) AND q.event_id < uuid_at(v_end)) THEN
    RETURN false;
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM hold h WHERE h.state = ''open'' AND h.call_id >= %L AND h.call_id < %L)', uuid_at(v_start), uuid_at(v_end)) INTO v_open;
  IF v_open THEN
    RETURN false;
  END IF;
  EXECUTE format('LOCK TABLE %I IN SHARE MODE', 'usage_event_' || v_month);
  PERFORM retired_1(('usage_event_' || v_month)::regclass, NULL, v_end, NULL);
  FOREACH v_table IN ARRAY ARRAY['call', 'hold', 'attempt', 'usage_event'] LOOP
    IF to_regclass(v_table || '_' || v_month) IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', v_table, v_table || '_' || v_month);
      EXECUTE format('DROP TABLE %I', v_table || '_' || v_month);
    END IF;
  END LOOP;
  RETURN true;
END $$;
