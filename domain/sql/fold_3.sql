-- usage_delta_3: what each live event adds to each level of cells; the one definition that folding and comparing share.
-- Level 0 is the workspace, 1 a model, 2 an app with a key and an outcome. What a level does not keep apart, or an event does not have, is the
-- nil UUID or ''. Every real zone's day is a whole number of quarters of an hour, counted from the epoch.
CREATE OR REPLACE VIEW usage_delta_3 AS
SELECT e.workspace_id, e.id AS event_id, l.level, date_bin('15 minutes', e.at, 'epoch') AS at,
       CASE l.level WHEN 1 THEN coalesce(e.model, '') ELSE '' END AS model,
       CASE l.level WHEN 2 THEN coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS app_id,
       CASE l.level WHEN 2 THEN coalesce(e.key_id, '00000000-0000-0000-0000-000000000000') ELSE '00000000-0000-0000-0000-000000000000' END AS key_id,
       CASE l.level WHEN 2 THEN e.outcome ELSE '' END AS outcome,
       e.requests, e.errors, e.units, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_5m_tokens, e.cache_write_1h_tokens,
       e.reasoning_tokens, e.characters, e.lines, e.charge_microusd, e.list_microusd, e.upstream_cost_picousd, e.latency_ms, e.first_token_ms,
       CASE e.outcome WHEN 'succeeded' THEN e.requests ELSE 0 END AS succeeded, CASE e.outcome WHEN 'cancelled' THEN e.requests ELSE 0 END AS cancelled
  FROM usage_event e CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS l (level)
 WHERE e.mode = 'live';

-- fold_3(most): add up to `most` queued events to their cells and to the people of their days, take them off the queue, and return how many they were.
--
-- One statement: a reader's snapshot sees an event in the queue or in its cells, never in both or neither, and a fold that dies leaves all as it
-- was. Any number may run at once: each takes events that no other has, and all add to cells in one order. Events are found by their index,
-- whatever the plan cache saw first.
CREATE OR REPLACE FUNCTION fold_3(p_most int) RETURNS bigint LANGUAGE sql SET enable_seqscan = off AS $$
  WITH chosen AS (
    SELECT q.workspace_id, q.event_id FROM usage_pending q ORDER BY q.workspace_id, q.event_id LIMIT p_most FOR UPDATE SKIP LOCKED
  ), taken AS (
    DELETE FROM usage_pending q USING chosen c WHERE q.workspace_id = c.workspace_id AND q.event_id = c.event_id RETURNING q.workspace_id, q.event_id
  ), delta AS (
    SELECT d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome, sum(d.requests)::bigint AS requests, sum(d.errors)::bigint AS errors,
           sum(d.units) AS units, sum(d.input_tokens) AS input_tokens, sum(d.output_tokens) AS output_tokens, sum(d.cache_read_tokens) AS cache_read_tokens,
           sum(d.cache_write_5m_tokens) AS cache_write_5m_tokens, sum(d.cache_write_1h_tokens) AS cache_write_1h_tokens,
           sum(d.reasoning_tokens) AS reasoning_tokens, sum(d.characters) AS characters, sum(d.lines) AS lines, sum(d.charge_microusd) AS charge_microusd,
           sum(d.list_microusd) AS list_microusd, sum(d.upstream_cost_picousd) AS upstream_cost_picousd,
           sketch_of_1(array_agg(sketch_bucket_1(d.latency_ms)) FILTER (WHERE d.latency_ms IS NOT NULL)) AS latency,
           sketch_of_1(array_agg(sketch_bucket_1(d.first_token_ms)) FILTER (WHERE d.first_token_ms IS NOT NULL)) AS first_token,
           sum(d.succeeded) AS succeeded, sum(d.cancelled) AS cancelled
      FROM taken t JOIN usage_delta_3 d ON d.workspace_id = t.workspace_id AND d.event_id = t.event_id
     GROUP BY d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome
     ORDER BY d.workspace_id, d.level, d.at, d.model, d.app_id, d.key_id, d.outcome
  ), added AS (
    INSERT INTO usage_cell AS c (workspace_id, level, at, model, app_id, key_id, outcome, requests, errors, units, input_tokens, output_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, characters, lines, charge_microusd, list_microusd, upstream_cost_picousd, latency, first_token, succeeded, cancelled)
    SELECT * FROM delta
        ON CONFLICT (workspace_id, level, at, model, app_id, key_id, outcome) DO UPDATE
       SET requests = c.requests + excluded.requests, errors = c.errors + excluded.errors, units = c.units + excluded.units,
           input_tokens = c.input_tokens + excluded.input_tokens, output_tokens = c.output_tokens + excluded.output_tokens,
           cache_read_tokens = c.cache_read_tokens + excluded.cache_read_tokens,
           cache_write_5m_tokens = c.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
           cache_write_1h_tokens = c.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
           reasoning_tokens = c.reasoning_tokens + excluded.reasoning_tokens, characters = c.characters + excluded.characters,
           lines = c.lines + excluded.lines, charge_microusd = c.charge_microusd + excluded.charge_microusd,
           list_microusd = c.list_microusd + excluded.list_microusd, upstream_cost_picousd = c.upstream_cost_picousd + excluded.upstream_cost_picousd,
           latency = sketch_add_1(c.latency, excluded.latency), first_token = sketch_add_1(c.first_token, excluded.first_token),
           succeeded = c.succeeded + excluded.succeeded, cancelled = c.cancelled + excluded.cancelled
  ), seen AS (
    INSERT INTO usage_person (workspace_id, kind, used_on, app_id, person)
    SELECT DISTINCT e.workspace_id, p.kind, (e.at AT TIME ZONE 'UTC')::date, coalesce(e.app_id, '00000000-0000-0000-0000-000000000000'), person_1(e.workspace_id, p.name)
      FROM taken t JOIN usage_event e ON e.workspace_id = t.workspace_id AND e.id = t.event_id
     CROSS JOIN LATERAL (VALUES (0::smallint, e.end_user), (1::smallint, e.conversation)) AS p (kind, name)
     WHERE e.mode = 'live' AND p.name IS NOT NULL
     ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT DO NOTHING
  )
  SELECT count(*) FROM taken
$$;
