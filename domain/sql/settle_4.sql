-- settle_4(calls, wait): as settle_3, and cheaper where nothing is unusual.
--
-- A workspace is plain in this group where each of its calls ends for the first time, or had ended, cash pays what they cost, and there is enough of it: no grant or
-- wallet has a part, no sweep was there before, nobody names a call twice. Its calls are read once, while their holds are locked, and written set by set. The calls of
-- any other workspace go to settle_3, with their locks held: what is unusual is decided there and nowhere else. Workspaces share nothing that the order between them
-- could change.
--
-- Locks are taken in settle_3's order: holds by call, then cash by workspace. Results as settle_3's.
DO $$ BEGIN
  IF to_regtype('settlement_4') IS NULL THEN
    CREATE TYPE settlement_4 AS (
      n int, workspace_id uuid, call_id uuid, by text, delivered boolean, charge_picousd bigint, list_picousd bigint,
      model text, provider text, outcome text, http_status int, error_code text, tokens bigint, input_tokens bigint, output_tokens bigint, cache_read_tokens bigint,
      cache_write_5m_tokens bigint, cache_write_1h_tokens bigint, reasoning_tokens bigint, other_buckets jsonb, characters bigint, lines bigint, upstream_cost_picousd bigint,
      price_id uuid, latency_ms int, first_token_ms int, token_source text, needs_review boolean, attempts json,
      state text, closed_by text, payer text, account_id uuid, amount bigint, parts boolean, charged bigint, held_at timestamptz, expires_at timestamptz,
      bound_ids uuid[], bound_scopes text[], bound_held bigint[],
      mode text, called_at timestamptz, key_id uuid, user_id uuid, client_token_id uuid, app_id uuid, end_user text, conversation text, language text, tags jsonb,
      api_name text, endpoint text, preset text, requested_model text, streamed boolean);
    CREATE TYPE purse_4 AS (workspace_id uuid, cash_id uuid, revenue_id uuid, balance bigint, floor bigint, version bigint, carry_picousd bigint, list_carry_picousd bigint);
    CREATE TYPE standing_4 AS (result text, slow boolean, paid bigint, listed bigint, paid_picousd bigint, listed_picousd bigint, balance_after bigint, cash_id uuid, revenue_id uuid, version bigint);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION settle_4(p_calls json, p_wait boolean)
RETURNS TABLE (n int, result text, charge_microusd bigint, balance_microusd bigint, available_microusd bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_items settlement_4[];
  v_purses purse_4[];
  v_stands standing_4[];
  v_slow boolean;
  v_plain boolean;
  v_bounded boolean;
BEGIN
  -- The holds, locked in order of their calls, and what is known of the calls. A locked row is read as it is now, and stays so.
  SELECT array_agg(ROW(c.n, c.workspace_id, c.call_id, c.by, c.delivered, c.charge_picousd, c.list_picousd,
           c.model, c.provider, c.outcome, c.http_status, c.error_code, c.tokens, c.input_tokens, c.output_tokens, c.cache_read_tokens,
           c.cache_write_5m_tokens, c.cache_write_1h_tokens, c.reasoning_tokens, c.other_buckets, c.characters, c.lines, c.upstream_cost_picousd,
           c.price_id, c.latency_ms, c.first_token_ms, c.token_source, c.needs_review, c.attempts,
           h.state, h.closed_by, h.payer, h.account_id, h.amount, h.part_ids IS NOT NULL, h.charge_microusd, h.created_at, h.expires_at, h.bound_ids, h.bound_scopes, h.bound_held,
           k.mode, k.created_at, k.key_id, k.user_id, k.client_token_id, k.app_id, k.end_user, k.conversation, coalesce(c.language, k.language), k.tags,
           k.api_name, k.endpoint, k.preset, k.requested_model, k.streamed)::settlement_4 ORDER BY c.n)
    INTO v_items
    FROM (SELECT * FROM json_to_recordset(p_calls) AS c (n int, workspace_id uuid, call_id uuid, by text, delivered boolean, charge_picousd bigint, list_picousd bigint,
            language text, model text, provider text, outcome text, http_status int, error_code text, tokens bigint, input_tokens bigint, output_tokens bigint,
            cache_read_tokens bigint, cache_write_5m_tokens bigint, cache_write_1h_tokens bigint, reasoning_tokens bigint, other_buckets jsonb, characters bigint, lines bigint,
            upstream_cost_picousd bigint, price_id uuid, latency_ms int, first_token_ms int, token_source text, needs_review boolean, attempts json)
           ORDER BY c.call_id OFFSET 0) c
    LEFT JOIN LATERAL (SELECT * FROM hold h WHERE h.workspace_id = c.workspace_id AND h.call_id = c.call_id FOR NO KEY UPDATE) h ON true
    LEFT JOIN LATERAL (SELECT * FROM "call" k WHERE k.workspace_id = c.workspace_id AND k.id = c.call_id OFFSET 0) k ON true;

  IF p_wait THEN
    SELECT array_agg(ROW(l.workspace_id, l.id, l.revenue_id, l.credits - l.debits, l.floor, l.version, l.carry_picousd, l.list_carry_picousd)::purse_4) INTO v_purses FROM (
      SELECT a.*, (SELECT r.id FROM account r WHERE r.workspace_id = a.workspace_id AND r.kind = 'revenue') AS revenue_id
        FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (ARRAY(SELECT i.workspace_id FROM unnest(v_items) i))
      ORDER BY a.workspace_id FOR NO KEY UPDATE OF a) l;
  ELSE
    SELECT array_agg(ROW(l.workspace_id, l.id, l.revenue_id, l.credits - l.debits, l.floor, l.version, l.carry_picousd, l.list_carry_picousd)::purse_4) INTO v_purses FROM (
      SELECT a.*, (SELECT r.id FROM account r WHERE r.workspace_id = a.workspace_id AND r.kind = 'revenue') AS revenue_id
        FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (ARRAY(SELECT i.workspace_id FROM unnest(v_items) i))
      ORDER BY a.workspace_id FOR NO KEY UPDATE OF a SKIP LOCKED) l;
  END IF;

  -- Where each stands, and whole micros in order, with one carry for each workspace: what all so far cost, less what all before did.
  SELECT array_agg(ROW(z.result, z.slow OR z.paid_so_far / 1000000 > z.balance - z.floor, z.paid_so_far / 1000000 - (z.paid_so_far - z.paid_picousd) / 1000000,
           z.listed_so_far / 1000000 - (z.listed_so_far - z.listed_picousd) / 1000000, z.paid_picousd, z.listed_picousd, z.balance - z.paid_so_far / 1000000,
           z.cash_id, z.revenue_id, z.version)::standing_4 ORDER BY z.n),
         bool_or(z.slow OR z.paid_so_far / 1000000 > z.balance - z.floor), bool_or(z.result = 'settled' AND z.bound_ids IS NOT NULL)
    INTO v_stands, v_slow, v_bounded
    FROM (SELECT y.*, (y.carry_picousd + sum(y.paid_picousd) OVER w)::bigint AS paid_so_far, (y.list_carry_picousd + sum(y.listed_picousd) OVER w)::bigint AS listed_so_far
            FROM (SELECT x.*, CASE WHEN x.result = 'settled' AND x.mode = 'live' AND x.payer IS DISTINCT FROM 'quota' THEN x.charge_picousd ELSE 0 END AS paid_picousd,
                         CASE WHEN x.result = 'settled' AND x.mode = 'live' THEN x.list_picousd ELSE 0 END AS listed_picousd
                    FROM (SELECT i.n, i.workspace_id, i.mode, i.payer, i.charge_picousd, i.list_picousd, i.bound_ids, p.cash_id, p.revenue_id, p.balance, p.floor, p.version, p.carry_picousd, p.list_carry_picousd,
                                 CASE
                                   WHEN i.state IS NULL THEN 'unknown'
                                   WHEN p.cash_id IS NULL THEN 'busy'
                                   WHEN i.state = 'open' AND i.by = 'sweep' AND i.expires_at > v_now THEN 'alive'
                                   WHEN i.state = 'open' THEN 'settled'
                                   WHEN i.closed_by = 'sweep' AND i.by <> 'sweep' THEN 'late'
                                   ELSE 'done'
                                 END AS result,
                                 coalesce(i.parts OR i.closed_by = 'sweep' AND i.by <> 'sweep', false) OR i.charge_picousd < 0 OR i.list_picousd < 0 OR count(*) OVER (PARTITION BY i.call_id) > 1 AS slow
                            FROM unnest(v_items) i LEFT JOIN unnest(v_purses) p ON p.workspace_id = i.workspace_id) x) y
          WINDOW w AS (PARTITION BY y.workspace_id ORDER BY y.n)) z;

  IF v_slow THEN
    SELECT array_agg(ROW(CASE WHEN x.slow_together THEN 'slow' ELSE x.result END, x.slow_together, x.paid, x.listed, x.paid_picousd, x.listed_picousd, x.balance_after, x.cash_id, x.revenue_id, x.version)::standing_4
             ORDER BY x.n), bool_or(NOT x.slow_together)
      INTO v_stands, v_plain
      FROM (SELECT i.*, bool_or(i.slow) OVER (PARTITION BY i.workspace_id) AS slow_together FROM unnest(v_items, v_stands) i) x;
    IF NOT v_plain THEN
      RETURN QUERY SELECT * FROM settle_3(p_calls::jsonb, p_wait);
      RETURN;
    END IF;
  END IF;

  -- What the balance pays.
  INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, actor_kind, actor_name, debit_balance_after, debit_seq, created_at)
  SELECT i.workspace_id, uuidv7(), i.cash_id, i.revenue_id, i.paid, 'charge', i.call_id::text, i.call_id, 'system', 'settlement', i.balance_after,
         i.version + row_number() OVER (PARTITION BY i.workspace_id ORDER BY i.n), v_now
    FROM unnest(v_items, v_stands) i WHERE i.result = 'settled' AND i.paid > 0;
  UPDATE account a
     SET held = a.held - x.released, debits = a.debits + x.paid, version = a.version + x.moves, updated_at = v_now,
         carry_picousd = a.carry_picousd + x.paid_picousd - x.paid * 1000000, list_carry_picousd = a.list_carry_picousd + x.listed_picousd - x.listed * 1000000
    FROM (SELECT i.workspace_id, i.cash_id, coalesce(sum(i.amount) FILTER (WHERE i.account_id IS NOT NULL), 0)::bigint AS released, sum(i.paid)::bigint AS paid,
                 count(*) FILTER (WHERE i.paid > 0) AS moves, sum(i.listed)::bigint AS listed, sum(i.paid_picousd)::bigint AS paid_picousd, sum(i.listed_picousd)::bigint AS listed_picousd
            FROM unnest(v_items, v_stands) i WHERE i.result = 'settled' GROUP BY 1, 2) x
   WHERE a.workspace_id = x.workspace_id AND a.id = x.cash_id AND (x.released, x.paid_picousd, x.listed_picousd) <> (0, 0, 0);

  -- The bounds give back what was held and keep what was spent; one of one model keeps it only from calls that this model answered, or that asked for it by name.
  IF v_bounded THEN
    UPDATE bound_window w
       SET held = w.held - x.held, spent = greatest(w.spent + x.spent, 0)
      FROM (SELECT g.workspace_id, g.bound_id, g.scope, g.held,
                   CASE WHEN d.model IS NULL THEN CASE d.measure WHEN 'money' THEN g.paid WHEN 'tokens' THEN g.tokens WHEN 'list' THEN g.listed ELSE 0 END
                        ELSE (SELECT sum(CASE WHEN d.model = i.model OR d.model = i.requested_model
                                              THEN CASE d.measure WHEN 'money' THEN i.paid WHEN 'tokens' THEN i.tokens WHEN 'list' THEN i.listed ELSE 0 END
                                              WHEN d.measure = 'calls'
                                                AND (SELECT v.started_at FROM bound_window v WHERE v.workspace_id = g.workspace_id AND v.bound_id = g.bound_id AND v.scope = g.scope) <= i.held_at THEN -1
                                              ELSE 0 END)::bigint
                                FROM (SELECT j.*, unnest(j.bound_ids) AS bound_id, unnest(j.bound_scopes) AS scope
                                        FROM unnest(v_items, v_stands) j WHERE j.result = 'settled' AND j.workspace_id = g.workspace_id) i
                               WHERE i.bound_id = g.bound_id AND i.scope = g.scope) END AS spent
              FROM (SELECT b.workspace_id, b.bound_id, b.scope, sum(b.held)::bigint AS held, sum(b.paid)::bigint AS paid, sum(b.listed)::bigint AS listed, sum(b.tokens)::bigint AS tokens
                      FROM (SELECT i.workspace_id, i.paid, i.listed, i.tokens, unnest(i.bound_ids) AS bound_id, unnest(i.bound_scopes) AS scope, unnest(i.bound_held) AS held
                              FROM unnest(v_items, v_stands) i WHERE i.result = 'settled' AND i.bound_ids IS NOT NULL) b
                     GROUP BY 1, 2, 3 OFFSET 0) g
             CROSS JOIN LATERAL (SELECT d.model, d.measure FROM bound d WHERE d.workspace_id = g.workspace_id AND d.id = g.bound_id OFFSET 0) d) x
     WHERE w.workspace_id = x.workspace_id AND w.bound_id = x.bound_id AND w.scope = x.scope;
  END IF;

  -- What was used, and every try.
  WITH event AS (
    INSERT INTO usage_event (workspace_id, id, record_id, kind, mode, at, created_at, key_id, user_id, client_token_id, app_id, end_user, conversation, language, tags,
        api_name, endpoint, preset, requested_model, model, provider, streamed, outcome, http_status, error_code, requests, errors, units,
        input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, other_buckets, characters, lines,
        charge_microusd, list_microusd, charge_picousd, list_picousd, upstream_cost_picousd, price_id, latency_ms, first_token_ms, token_source, needs_review, wallet_microusd)
    SELECT i.workspace_id, i.call_id, i.call_id, 'call', i.mode, i.called_at, v_now, i.key_id, i.user_id, i.client_token_id, i.app_id, i.end_user, i.conversation, i.language, i.tags,
        i.api_name, i.endpoint, i.preset, i.requested_model, i.model, i.provider, i.streamed, i.outcome, i.http_status, i.error_code, 1, (i.outcome = 'failed')::int, i.tokens,
        i.input_tokens, i.output_tokens, i.cache_read_tokens, i.cache_write_5m_tokens, i.cache_write_1h_tokens, i.reasoning_tokens, i.other_buckets, i.characters, i.lines,
        i.paid, i.listed, i.paid_picousd, i.listed_picousd, i.upstream_cost_picousd, i.price_id, i.latency_ms, i.first_token_ms, i.token_source, i.needs_review, 0
      FROM unnest(v_items, v_stands) i WHERE i.result = 'settled'
    RETURNING workspace_id, id, mode)
  INSERT INTO usage_pending (workspace_id, event_id) SELECT e.workspace_id, e.id FROM event e WHERE e.mode = 'live';
  INSERT INTO attempt (workspace_id, id, call_id, number, upstream, model, outcome, http_status, error_code, usage, cost_picousd, started_at, first_byte_at, finished_at, reason, price_id, charged)
  SELECT i.workspace_id, t.id, i.call_id, t.number, t.upstream, t.model, t.outcome, t.http_status, t.error_code, t.usage, t.cost_picousd, t.started_at, t.first_byte_at, t.finished_at, t.reason, t.price_id, t.charged
    FROM unnest(v_items, v_stands) i
    CROSS JOIN LATERAL json_to_recordset(i.attempts) AS t (id uuid, number int, upstream text, model text, outcome text, http_status int, error_code text,
      usage jsonb, cost_picousd bigint, started_at timestamptz, first_byte_at timestamptz, finished_at timestamptz, reason text, price_id uuid, charged boolean)
   WHERE i.result = 'settled'
      ON CONFLICT DO NOTHING;

  UPDATE hold h
     SET state = CASE WHEN i.delivered THEN 'settled' ELSE 'released' END, closed_at = v_now, closed_by = i.by, charge_picousd = i.paid_picousd, charge_microusd = i.paid
    FROM unnest(v_items, v_stands) i
   WHERE h.workspace_id = i.workspace_id AND h.call_id = i.call_id AND i.result = 'settled';

  RETURN QUERY
    SELECT r.* FROM (
      SELECT i.n, i.result, CASE i.result WHEN 'settled' THEN i.paid ELSE i.charged END, a.credits - a.debits, CASE WHEN a.id IS NOT NULL THEN greatest(a.credits - a.debits - a.held - a.floor, 0) END
        FROM unnest(v_items, v_stands) i
        LEFT JOIN LATERAL (SELECT a.id, a.credits, a.debits, a.held, a.floor FROM account a WHERE a.workspace_id = i.workspace_id AND a.kind = 'cash' AND i.client_token_id IS NULL OFFSET 0) a ON true
       WHERE i.result <> 'slow'
       UNION ALL
      SELECT s.* FROM settle_3((SELECT jsonb_agg(e.value) FROM json_array_elements(p_calls) e JOIN unnest(v_items, v_stands) i ON i.n = (e.value ->> 'n')::int AND i.result = 'slow'), p_wait) s
       WHERE v_slow) r (n, result, charge, balance, available)
     ORDER BY r.n;
END $$;
