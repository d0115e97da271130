-- A level of cells by language (migration 0037): days, hours and quarters of an hour for reports by language, which read single calls before.

-- usage_delta_4: what each live event adds to each level of cells; the one definition that folding and comparing share, and whoever folds already.
-- Level 0 is the workspace, 1 a model, 2 an app with a key and an outcome, 3 a language, which stands where a model does at level 1. What a level does not
-- keep apart, or an event does not have, is the nil UUID or ''. Every real zone's day is a whole number of quarters of an hour, counted from the epoch.
CREATE OR REPLACE VIEW usage_delta_4 AS
SELECT e.workspace_id, e.id AS event_id, l.level, date_bin('15 minutes', e.at, 'epoch') AS at,
       CASE l.level WHEN 1 THEN coalesce(e.model, '') WHEN 3 THEN coalesce(e.language, '') ELSE '' END AS model,
       CASE l.level WHEN 2 THEN coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS app_id,
       CASE l.level WHEN 2 THEN coalesce(e.key_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS key_id,
       CASE l.level WHEN 2 THEN e.outcome ELSE '' END AS outcome,
       e.requests, e.errors, e.units, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_5m_tokens, e.cache_write_1h_tokens,
       e.reasoning_tokens, e.characters, e.lines, e.charge_microusd, e.list_microusd, e.upstream_cost_picousd, e.wallet_microusd, e.latency_ms, e.first_token_ms,
       CASE e.outcome WHEN 'succeeded' THEN e.requests ELSE 0 END AS succeeded, CASE e.outcome WHEN 'cancelled' THEN e.requests ELSE 0 END AS cancelled
  FROM usage_event e CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint)) AS l (level)
 WHERE e.mode = 'live';

-- close_3(workspace, until, day_cells, hour_cells): sum the quarters of a workspace up into whole days and hours before `until`, an hour of UTC, and
-- return how many spans that made. Days are closed up to the last midnight before `until`, hours up to `until` itself: those of the day under way too.
--
-- A workspace that has fewer than `day_cells` cells by app, key and outcome on a day of use gains nothing by days and has none; with fewer than
-- `hour_cells` it has no hours. The last 30 days decide, once a day. What was closed once goes on being closed.
CREATE OR REPLACE FUNCTION close_3(p_workspace uuid, p_until timestamptz, p_day_cells int, p_hour_cells int) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  v_midnight timestamptz := date_bin('1 day', p_until, 'epoch');
  v_closing usage_closing;
  v_mean float := 0;
  v_made bigint;
  v_all bigint := 0;
  v_width record;
BEGIN
  IF p_until <> date_bin('1 hour', p_until, 'epoch') THEN
    RAISE EXCEPTION '% is no hour of UTC', p_until;
  END IF;
  SELECT * INTO v_closing FROM usage_closing s WHERE s.workspace_id = p_workspace FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  IF v_closing.looked_until < v_midnight THEN
    SELECT count(*)::float / greatest(count(DISTINCT date_bin('1 day', c.at, 'epoch')), 1) INTO v_mean
      FROM usage_cell c WHERE c.workspace_id = p_workspace AND c.level = 2 AND c.at >= v_midnight - interval '30 days' AND c.at < v_midnight;
  END IF;
  FOR v_width IN
    SELECT * FROM (VALUES (24::smallint, v_closing.days_until, v_midnight, p_day_cells), (1::smallint, v_closing.hours_until, p_until, p_hour_cells))
        AS w (hours, since, until, cells)
     WHERE w.since < w.until AND (w.since > '1970-01-01Z' OR (v_closing.looked_until < v_midnight AND v_mean >= w.cells))
  LOOP
    INSERT INTO usage_span (workspace_id, hours, level, at, model, app_id, key_id, outcome, requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens,
      characters, lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
    SELECT d.workspace_id, v_width.hours, d.level, date_bin(make_interval(hours => v_width.hours), d.at, 'epoch'), d.model, d.app_id, d.key_id, d.outcome,
           sum(d.requests), sum(d.errors), sum(d.units), sum(d.input_tokens), sum(d.output_tokens), sum(d.cache_read_tokens),
         sum(d.cache_write_5m_tokens), sum(d.cache_write_1h_tokens), sum(d.reasoning_tokens), sum(d.characters), sum(d.lines), sum(d.charge_microusd),
         sum(d.list_microusd), sum(d.upstream_cost_picousd), sum(d.wallet_microusd), sum(d.succeeded), sum(d.cancelled), sketch_sum_1(d.latency), sketch_sum_1(d.first_token)
      FROM usage_cell d
     WHERE d.workspace_id = p_workspace AND d.level IN (0, 1, 2, 3) AND d.at >= v_width.since AND d.at < v_width.until
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8;
    GET DIAGNOSTICS v_made = ROW_COUNT;
    v_all := v_all + v_made;
    UPDATE usage_closing s SET days_until = CASE v_width.hours WHEN 24 THEN v_width.until ELSE s.days_until END,
                               hours_until = CASE v_width.hours WHEN 1 THEN v_width.until ELSE s.hours_until END WHERE s.workspace_id = p_workspace;
  END LOOP;
  UPDATE usage_closing s SET looked_until = v_midnight WHERE s.workspace_id = p_workspace AND s.looked_until < v_midnight;
  RETURN v_all;
END $$;

-- close_1 and close_2 are called by processes of the versions before for as long as one runs: they close as everybody does.
CREATE OR REPLACE FUNCTION close_2(p_workspace uuid, p_until timestamptz, p_day_cells int, p_hour_cells int) RETURNS bigint LANGUAGE sql AS $$
  SELECT close_3(p_workspace, p_until, p_day_cells, p_hour_cells)
$$;
CREATE OR REPLACE FUNCTION close_1(p_workspace uuid, p_until timestamptz, p_day_cells int, p_hour_cells int) RETURNS bigint LANGUAGE sql AS $$
  SELECT close_3(p_workspace, p_until, p_day_cells, p_hour_cells)
$$;

-- What was folded before this level was there, once, in the transaction that brings the level: all of it or nothing. `still_1` has waited for folds of the
-- old kind, and those that wait for it go on with the new view. Calls whose time is over are gone: what they used stands with no language, so that the sums
-- stay what they are.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM usage_cell c WHERE c.level = 0) OR EXISTS (SELECT FROM usage_cell c WHERE c.level = 3) THEN
    RETURN;
  END IF;
  INSERT INTO usage_cell (workspace_id, level, at, model, app_id, key_id, outcome,
        requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, characters,
        lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
  SELECT d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome,
         sum(d.requests), sum(d.errors), sum(d.units), sum(d.input_tokens), sum(d.output_tokens), sum(d.cache_read_tokens), sum(d.cache_write_5m_tokens),
         sum(d.cache_write_1h_tokens), sum(d.reasoning_tokens), sum(d.characters), sum(d.lines), sum(d.charge_microusd), sum(d.list_microusd),
         sum(d.upstream_cost_picousd), sum(d.wallet_microusd), sum(d.succeeded), sum(d.cancelled),
         sketch_of_1(array_agg(sketch_bucket_1(d.latency_ms)) FILTER (WHERE d.latency_ms IS NOT NULL)),
         sketch_of_1(array_agg(sketch_bucket_1(d.first_token_ms)) FILTER (WHERE d.first_token_ms IS NOT NULL))
    FROM usage_delta_4 d
   WHERE d.level = 3 AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = d.workspace_id AND q.event_id = d.event_id)
     AND NOT EXISTS (SELECT FROM usage_retired r WHERE r.workspace_id = d.workspace_id AND d.at < r.before)
   GROUP BY 1, 2, 3, 4, 5, 6, 7;
  INSERT INTO usage_cell (workspace_id, level, at, model, app_id, key_id, outcome,
        requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, characters,
        lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
  SELECT c.workspace_id, 3, c.at, c.model, c.app_id, c.key_id, c.outcome,
         c.requests, c.errors, c.units, c.input_tokens, c.output_tokens, c.cache_read_tokens, c.cache_write_5m_tokens, c.cache_write_1h_tokens,
         c.reasoning_tokens, c.characters, c.lines, c.charge_microusd, c.list_microusd, c.upstream_cost_picousd, c.wallet_microusd, c.succeeded, c.cancelled,
         c.latency, c.first_token
    FROM usage_cell c
   WHERE c.level = 0 AND EXISTS (SELECT FROM usage_retired r WHERE r.workspace_id = c.workspace_id AND c.at < r.before);
  INSERT INTO usage_span (workspace_id, hours, level, at, model, app_id, key_id, outcome,
        requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, characters,
        lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
  SELECT d.workspace_id, w.hours, d.level, date_bin(make_interval(hours => w.hours), d.at, 'epoch'), d.model, d.app_id, d.key_id, d.outcome,
         sum(d.requests), sum(d.errors), sum(d.units), sum(d.input_tokens), sum(d.output_tokens), sum(d.cache_read_tokens), sum(d.cache_write_5m_tokens),
         sum(d.cache_write_1h_tokens), sum(d.reasoning_tokens), sum(d.characters), sum(d.lines), sum(d.charge_microusd), sum(d.list_microusd),
         sum(d.upstream_cost_picousd), sum(d.wallet_microusd), sum(d.succeeded), sum(d.cancelled),
         sketch_sum_1(d.latency), sketch_sum_1(d.first_token)
    FROM usage_closing s
    JOIN (VALUES (24::smallint), (1::smallint)) AS w (hours) ON true
    JOIN usage_cell d ON d.workspace_id = s.workspace_id AND d.level = 3 AND d.at < CASE w.hours WHEN 24 THEN s.days_until ELSE s.hours_until END
   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
END $$;
