-- close_2(workspace, until, day_cells, hour_cells): sum the quarters of a workspace up into whole days and hours before `until`, an hour of UTC, and
-- return how many spans that made. Days are closed up to the last midnight before `until`, hours up to `until` itself: those of the day under way too.
--
-- A workspace that has fewer than `day_cells` cells by app, key and outcome on a day of use gains nothing by days and has none; with fewer than
-- `hour_cells` it has no hours. The last 30 days decide, once a day. What was closed once goes on being closed.
CREATE OR REPLACE FUNCTION close_2(p_workspace uuid, p_until timestamptz, p_day_cells int, p_hour_cells int) RETURNS bigint
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
     WHERE d.workspace_id = p_workspace AND d.level IN (0, 1, 2) AND d.at >= v_width.since AND d.at < v_width.until
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8;
    GET DIAGNOSTICS v_made = ROW_COUNT;
    v_all := v_all + v_made;
    UPDATE usage_closing s SET days_until = CASE v_width.hours WHEN 24 THEN v_width.until ELSE s.days_until END,
                               hours_until = CASE v_width.hours WHEN 1 THEN v_width.until ELSE s.hours_until END WHERE s.workspace_id = p_workspace;
  END LOOP;
  UPDATE usage_closing s SET looked_until = v_midnight WHERE s.workspace_id = p_workspace AND s.looked_until < v_midnight;
  RETURN v_all;
END $$;
