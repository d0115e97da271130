-- Spans: usage of whole hours and whole days of UTC, above the quarters of an hour, of workspaces that are busy enough to gain by them.
--
-- `usage_closing` says for each workspace until when days and hours are closed. Before that instant a span is the sum of its quarters, whoever
-- folds what and when; from it on there are quarters alone. A reader takes spans before the instant and quarters after it, in one snapshot.

-- sketch_sum_1(sketches): one sketch of all that several hold.
CREATE OR REPLACE FUNCTION sketch_tidy_1(p_all bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT array_agg((x.b << 40) + x.n ORDER BY x.b) FROM (SELECT e >> 40 AS b, sum(e & 1099511627775)::bigint AS n FROM unnest(p_all) e GROUP BY 1) x
$$;
CREATE OR REPLACE AGGREGATE sketch_sum_1(bigint[]) (sfunc = array_cat, stype = bigint[], finalfunc = sketch_tidy_1);

-- usage_delta_4: what each live event adds to each level of cells; the one definition that folding and comparing share.
-- Level 0 is the workspace, 1 a model, 2 an app with a key and an outcome. What a level does not keep apart, or an event does not have, is the
-- nil UUID or ''. Every real zone's day is a whole number of quarters of an hour, counted from the epoch.
CREATE OR REPLACE VIEW usage_delta_4 AS
SELECT e.workspace_id, e.id AS event_id, l.level, date_bin('15 minutes', e.at, 'epoch') AS at,
       CASE l.level WHEN 1 THEN coalesce(e.model, '') ELSE '' END AS model,
       CASE l.level WHEN 2 THEN coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS app_id,
       CASE l.level WHEN 2 THEN coalesce(e.key_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS key_id,
       CASE l.level WHEN 2 THEN e.outcome ELSE '' END AS outcome,
       e.requests, e.errors, e.units, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_5m_tokens, e.cache_write_1h_tokens,
       e.reasoning_tokens, e.characters, e.lines, e.charge_microusd, e.list_microusd, e.upstream_cost_picousd, e.wallet_microusd, e.latency_ms, e.first_token_ms,
       CASE e.outcome WHEN 'succeeded' THEN e.requests ELSE 0 END AS succeeded, CASE e.outcome WHEN 'cancelled' THEN e.requests ELSE 0 END AS cancelled
  FROM usage_event e CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS l (level)
 WHERE e.mode = 'live';

-- fold_4(most): add up to `most` queued events to their cells, to the spans that are closed already, and to the people of their days; take them off
-- the queue, and return how many they were.
--
-- One transaction: a reader's snapshot sees an event in the queue or in its cells, never in both or neither, and a fold that dies leaves all as it
-- was. Any number may run at once: each takes events that no other has, and all lock in one order: closings, cells, spans, people. While it holds a
-- workspace's closing, nobody closes days of that workspace: so no event is lost between a span that was just summed up and its quarters.
CREATE OR REPLACE FUNCTION fold_4(p_most int) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  v_workspaces uuid[];
  v_events uuid[];
  v_own uuid[];
  v_days timestamptz[];
  v_hours timestamptz[];
BEGIN
  WITH chosen AS (
    SELECT q.workspace_id, q.event_id FROM usage_pending q ORDER BY q.workspace_id, q.event_id LIMIT p_most FOR UPDATE SKIP LOCKED
  ), taken AS (
    DELETE FROM usage_pending q USING chosen c WHERE q.workspace_id = c.workspace_id AND q.event_id = c.event_id RETURNING q.workspace_id, q.event_id
  )
  SELECT array_agg(t.workspace_id), array_agg(t.event_id) INTO v_workspaces, v_events FROM taken t;
  IF v_events IS NULL THEN
    RETURN 0;
  END IF;

  INSERT INTO usage_closing (workspace_id, days_until, hours_until, looked_until)
  SELECT DISTINCT w, '1970-01-01Z'::timestamptz, '1970-01-01Z'::timestamptz, '1970-01-01Z'::timestamptz FROM unnest(v_workspaces) w
   WHERE NOT EXISTS (SELECT FROM usage_closing s WHERE s.workspace_id = w) ORDER BY w ON CONFLICT DO NOTHING;
  SELECT array_agg(x.workspace_id), array_agg(x.days_until), array_agg(x.hours_until) INTO v_own, v_days, v_hours
    FROM (SELECT s.* FROM usage_closing s WHERE s.workspace_id = ANY (v_workspaces) ORDER BY s.workspace_id FOR SHARE) x;

  INSERT INTO usage_cell AS c (workspace_id, level, at, model, app_id, key_id, outcome, requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens,
      characters, lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
  SELECT d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome, sum(d.requests), sum(d.errors), sum(d.units), sum(d.input_tokens), sum(d.output_tokens), sum(d.cache_read_tokens),
         sum(d.cache_write_5m_tokens), sum(d.cache_write_1h_tokens), sum(d.reasoning_tokens), sum(d.characters), sum(d.lines), sum(d.charge_microusd),
         sum(d.list_microusd), sum(d.upstream_cost_picousd), sum(d.wallet_microusd), sum(d.succeeded), sum(d.cancelled),
         sketch_of_1(array_agg(sketch_bucket_1(d.latency_ms)) FILTER (WHERE d.latency_ms IS NOT NULL)),
         sketch_of_1(array_agg(sketch_bucket_1(d.first_token_ms)) FILTER (WHERE d.first_token_ms IS NOT NULL))
    FROM unnest(v_workspaces, v_events) AS t (workspace_id, event_id) JOIN usage_delta_4 d ON d.workspace_id = t.workspace_id AND d.event_id = t.event_id
   GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
      ON CONFLICT (workspace_id, level, at, model, app_id, key_id, outcome) DO UPDATE
     SET requests = c.requests + excluded.requests, errors = c.errors + excluded.errors, units = c.units + excluded.units,
         input_tokens = c.input_tokens + excluded.input_tokens, output_tokens = c.output_tokens + excluded.output_tokens,
         cache_read_tokens = c.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = c.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = c.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         reasoning_tokens = c.reasoning_tokens + excluded.reasoning_tokens, characters = c.characters + excluded.characters,
         lines = c.lines + excluded.lines, charge_microusd = c.charge_microusd + excluded.charge_microusd,
         list_microusd = c.list_microusd + excluded.list_microusd, upstream_cost_picousd = c.upstream_cost_picousd + excluded.upstream_cost_picousd, wallet_microusd = c.wallet_microusd + excluded.wallet_microusd,
         succeeded = c.succeeded + excluded.succeeded, cancelled = c.cancelled + excluded.cancelled,
         latency = sketch_add_1(c.latency, excluded.latency), first_token = sketch_add_1(c.first_token, excluded.first_token);

  INSERT INTO usage_span AS c (workspace_id, hours, level, at, model, app_id, key_id, outcome, requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens,
      characters, lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
  SELECT d.workspace_id, w.hours, d.level, date_bin(make_interval(hours => w.hours), d.at, 'epoch'), d.model, d.app_id, d.key_id, d.outcome, sum(d.requests), sum(d.errors), sum(d.units), sum(d.input_tokens), sum(d.output_tokens), sum(d.cache_read_tokens),
         sum(d.cache_write_5m_tokens), sum(d.cache_write_1h_tokens), sum(d.reasoning_tokens), sum(d.characters), sum(d.lines), sum(d.charge_microusd),
         sum(d.list_microusd), sum(d.upstream_cost_picousd), sum(d.wallet_microusd), sum(d.succeeded), sum(d.cancelled),
         sketch_of_1(array_agg(sketch_bucket_1(d.latency_ms)) FILTER (WHERE d.latency_ms IS NOT NULL)),
         sketch_of_1(array_agg(sketch_bucket_1(d.first_token_ms)) FILTER (WHERE d.first_token_ms IS NOT NULL))
    FROM unnest(v_own, v_days, v_hours) AS s (workspace_id, days_until, hours_until)
    JOIN unnest(v_workspaces, v_events) AS t (workspace_id, event_id) ON t.workspace_id = s.workspace_id
    JOIN usage_event e ON e.workspace_id = t.workspace_id AND e.id = t.event_id AND e.at < greatest(s.days_until, s.hours_until)
    JOIN usage_delta_4 d ON d.workspace_id = e.workspace_id AND d.event_id = e.id
    JOIN (VALUES (24::smallint), (1::smallint)) AS w (hours) ON d.at < CASE w.hours WHEN 24 THEN s.days_until ELSE s.hours_until END
   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
      ON CONFLICT (workspace_id, hours, level, at, model, app_id, key_id, outcome) DO UPDATE
     SET requests = c.requests + excluded.requests, errors = c.errors + excluded.errors, units = c.units + excluded.units,
         input_tokens = c.input_tokens + excluded.input_tokens, output_tokens = c.output_tokens + excluded.output_tokens,
         cache_read_tokens = c.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = c.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = c.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         reasoning_tokens = c.reasoning_tokens + excluded.reasoning_tokens, characters = c.characters + excluded.characters,
         lines = c.lines + excluded.lines, charge_microusd = c.charge_microusd + excluded.charge_microusd,
         list_microusd = c.list_microusd + excluded.list_microusd, upstream_cost_picousd = c.upstream_cost_picousd + excluded.upstream_cost_picousd, wallet_microusd = c.wallet_microusd + excluded.wallet_microusd,
         succeeded = c.succeeded + excluded.succeeded, cancelled = c.cancelled + excluded.cancelled,
         latency = sketch_add_1(c.latency, excluded.latency), first_token = sketch_add_1(c.first_token, excluded.first_token);

  PERFORM people_1(v_workspaces, v_events);
  RETURN cardinality(v_events);
END $$;

-- fold_3 is called by processes of the version before for as long as one runs: they fold as everybody does.
CREATE OR REPLACE FUNCTION fold_3(p_most int) RETURNS bigint LANGUAGE sql AS $$ SELECT fold_4(p_most) $$;

-- close_1(workspace, until, day_cells, hour_cells): sum the quarters of a workspace up into whole days and hours before `until`, a midnight of UTC, and
-- return how many spans that made.
--
-- A workspace that has fewer than `day_cells` cells by app, key and outcome on a day of use gains nothing by days and has none; with fewer than
-- `hour_cells` it has no hours. The last 30 days decide. What was closed once goes on being closed.
CREATE OR REPLACE FUNCTION close_1(p_workspace uuid, p_until timestamptz, p_day_cells int, p_hour_cells int) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  v_closing usage_closing;
  v_mean float;
  v_made bigint;
  v_all bigint := 0;
  v_width record;
BEGIN
  IF p_until <> date_bin('1 day', p_until, 'epoch') THEN
    RAISE EXCEPTION '% is no midnight of UTC', p_until;
  END IF;
  SELECT * INTO v_closing FROM usage_closing s WHERE s.workspace_id = p_workspace FOR UPDATE;
  IF NOT FOUND OR v_closing.looked_until >= p_until THEN
    RETURN 0;
  END IF;
  SELECT count(*)::float / greatest(count(DISTINCT date_bin('1 day', c.at, 'epoch')), 1) INTO v_mean
    FROM usage_cell c WHERE c.workspace_id = p_workspace AND c.level = 2 AND c.at >= p_until - interval '30 days' AND c.at < p_until;
  FOR v_width IN
    SELECT * FROM (VALUES (24::smallint, v_closing.days_until, p_day_cells), (1::smallint, v_closing.hours_until, p_hour_cells)) AS w (hours, since, cells)
     WHERE w.since < p_until AND (w.since > '1970-01-01Z' OR v_mean >= w.cells)
  LOOP
    INSERT INTO usage_span (workspace_id, hours, level, at, model, app_id, key_id, outcome, requests, errors, units, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens,
      characters, lines, charge_microusd, list_microusd, upstream_cost_picousd, wallet_microusd, succeeded, cancelled, latency, first_token)
    SELECT d.workspace_id, v_width.hours, d.level, date_bin(make_interval(hours => v_width.hours), d.at, 'epoch'), d.model, d.app_id, d.key_id, d.outcome,
           sum(d.requests), sum(d.errors), sum(d.units), sum(d.input_tokens), sum(d.output_tokens), sum(d.cache_read_tokens),
         sum(d.cache_write_5m_tokens), sum(d.cache_write_1h_tokens), sum(d.reasoning_tokens), sum(d.characters), sum(d.lines), sum(d.charge_microusd),
         sum(d.list_microusd), sum(d.upstream_cost_picousd), sum(d.wallet_microusd), sum(d.succeeded), sum(d.cancelled), sketch_sum_1(d.latency), sketch_sum_1(d.first_token)
      FROM usage_cell d
     WHERE d.workspace_id = p_workspace AND d.level IN (0, 1, 2) AND d.at >= v_width.since AND d.at < p_until
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8;
    GET DIAGNOSTICS v_made = ROW_COUNT;
    v_all := v_all + v_made;
    UPDATE usage_closing s SET days_until = CASE v_width.hours WHEN 24 THEN p_until ELSE s.days_until END,
                               hours_until = CASE v_width.hours WHEN 1 THEN p_until ELSE s.hours_until END WHERE s.workspace_id = p_workspace;
  END LOOP;
  UPDATE usage_closing s SET looked_until = p_until WHERE s.workspace_id = p_workspace;
  RETURN v_all;
END $$;
