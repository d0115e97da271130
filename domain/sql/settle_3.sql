-- settle_3(calls, wait): as settle_2, and besides: calls that an end user's wallet pays, and bounds of a model that did not answer after all.
--
-- A wallet pays the call's charge times the markup that was kept with the hold, rounded half up to whole micros over the call's whole life, and never
-- more than it has besides what other calls hold of it. What it pays goes to revenue as far as the charge reaches, and what is over to the workspace's
-- cash: a transfer of kind `wallet`, the maker's margin. What it does not pay of the charge is cash's, as without a wallet. What a late settlement gives
-- back to a wallet comes from revenue first, and then from cash as far as there is any.
-- A bound of one model counts the calls that this model answered, or that asked for it by name; from any other call it takes back what it held.
--
-- Results as settle_2's. Where a wallet paid, charge, balance and available are the wallet's; no other client token learns what its workspace has left.
DO $$ BEGIN
  IF to_regtype('settlement_3') IS NULL THEN
    CREATE TYPE settlement_3 AS (
      n int, workspace_id uuid, call_id uuid, by text, result text, account_id uuid, amount bigint, part_ids uuid[], part_amounts bigint[], mode text,
      charge_picousd bigint, list_picousd bigint, charge bigint, list bigint, granted bigint, paid bigint, markup numeric, charged bigint, wallet bigint, token boolean, item jsonb);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION settle_3(p_calls jsonb, p_wait boolean)
RETURNS TABLE (n int, result text, charge_microusd bigint, balance_microusd bigint, available_microusd bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_items settlement_3[];
  v_locked uuid[];
  v_late boolean;
  v_granted boolean;
  v_hard uuid[];
  v_item record;
  v_workspace uuid;
  v_balance bigint;
  v_floor bigint;
  v_paid bigint;
  v_left bigint;
  v_part record;
  v_grant account;
  v_back bigint;
  v_cash account;
BEGIN
  PERFORM FROM (SELECT DISTINCT c.call_id, c.workspace_id FROM jsonb_to_recordset(p_calls) AS c (workspace_id uuid, call_id uuid) ORDER BY c.call_id) c,
       LATERAL (SELECT FROM hold h WHERE h.workspace_id = c.workspace_id AND h.call_id = c.call_id FOR NO KEY UPDATE) h;

  IF p_wait THEN
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id IN (SELECT c.workspace_id FROM jsonb_to_recordset(p_calls) AS c (workspace_id uuid))
      ORDER BY a.workspace_id FOR NO KEY UPDATE) l;
  ELSE
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id IN (SELECT c.workspace_id FROM jsonb_to_recordset(p_calls) AS c (workspace_id uuid))
      ORDER BY a.workspace_id FOR NO KEY UPDATE SKIP LOCKED) l;
  END IF;

  -- Where each stands; a call that is named twice is settled once, by its own end rather than by a sweep's. For a late one, the picos are the difference.
  SELECT array_agg(ROW(x.n, x.workspace_id, x.call_id, x.by,
           CASE
             WHEN x.state IS NULL THEN 'unknown'
             WHEN x.twin > 1 THEN 'done'
             WHEN NOT x.workspace_id = ANY (coalesce(v_locked, '{}')) THEN 'busy'
             WHEN x.state = 'open' AND x.by = 'sweep' AND x.expires_at > v_now THEN 'alive'
             WHEN x.state = 'open' THEN 'settled'
             WHEN x.closed_by = 'sweep' AND x.by <> 'sweep' THEN 'late'
             ELSE 'done'
           END,
           x.account_id, x.amount, x.part_ids, x.part_amounts, x.mode,
           CASE WHEN x.mode = 'live' AND x.payer IS DISTINCT FROM 'quota' THEN x.charge_picousd - CASE WHEN x.state <> 'open' THEN coalesce(x.charged_picousd, 0) ELSE 0 END ELSE 0 END,
           CASE WHEN x.mode = 'live' THEN x.list_picousd ELSE 0 END,
           0, 0, 0, 0, CASE x.payer WHEN 'wallet' THEN x.wallet_markup END, coalesce(x.charged, 0), 0, x.token, x.item)::settlement_3 ORDER BY x.n)
    INTO v_items
    FROM (SELECT c.*, e.value AS item, h.state, h.closed_by, h.account_id, h.amount, h.part_ids, h.part_amounts, h.payer, h.expires_at, h.charge_picousd AS charged_picousd, h.charge_microusd AS charged, h.wallet_markup,
                 k.mode, k.token, row_number() OVER (PARTITION BY c.workspace_id, c.call_id ORDER BY c.by = 'sweep', c.n) AS twin
            FROM jsonb_array_elements(p_calls) e,
                 LATERAL jsonb_to_record(e.value) AS c (n int, workspace_id uuid, call_id uuid, by text, charge_picousd bigint, list_picousd bigint)
            LEFT JOIN LATERAL (SELECT * FROM hold h WHERE h.workspace_id = c.workspace_id AND h.call_id = c.call_id OFFSET 0) h ON true
            LEFT JOIN LATERAL (SELECT k.mode, k.client_token_id IS NOT NULL AS token FROM "call" k WHERE k.workspace_id = c.workspace_id AND k.id = c.call_id OFFSET 0) k ON true) x;

  -- What the first event of a late one said. This is rare and stands apart: no other settlement reads usage events, where a plan kept from a
  -- partition's first minutes takes the wrong index and reads a workspace's whole month for each call.
  SELECT coalesce(bool_or(i.result = 'late'), false), coalesce(bool_or(i.part_ids IS NOT NULL AND i.result IN ('settled', 'late')), false) INTO v_late, v_granted FROM unnest(v_items) i;
  IF v_late THEN
    SELECT array_agg(ROW(i.n, i.workspace_id, i.call_id, i.by, i.result, i.account_id, i.amount, i.part_ids, i.part_amounts, i.mode, i.charge_picousd,
             i.list_picousd - CASE WHEN i.mode = 'live' THEN coalesce(v.list_picousd, 0) ELSE 0 END, 0, 0, 0, 0, i.markup, i.charged, 0, i.token,
             CASE WHEN v.id IS NULL THEN i.item ELSE i.item || jsonb_build_object('units_before', v.units, 'charge_before', v.charge_microusd,
               'list_before', v.list_microusd, 'wallet_before', v.wallet_microusd, 'charge_picousd_before', v.charge_picousd, 'list_picousd_before', v.list_picousd) END)::settlement_3 ORDER BY i.n)
      INTO v_items
      FROM unnest(v_items) i
      LEFT JOIN LATERAL (SELECT * FROM usage_event v WHERE i.result = 'late' AND v.workspace_id = i.workspace_id AND v.id = i.call_id OFFSET 0) v ON true;
  END IF;

  -- Whole micros, in order, with one carry for each workspace.
  SELECT array_agg(ROW(i.n, i.workspace_id, i.call_id, i.by, i.result, i.account_id, i.amount, i.part_ids, i.part_amounts, i.mode, i.charge_picousd, i.list_picousd,
           coalesce(q.charge, 0), coalesce(q.list, 0), 0, coalesce(q.charge, 0), i.markup, i.charged, 0, i.token, i.item)::settlement_3 ORDER BY i.n)
    INTO v_items
    FROM unnest(v_items) i
    LEFT JOIN (
      SELECT j.n,
             div_floor_1(a.carry_picousd + sum(j.charge_picousd) OVER w) - div_floor_1(a.carry_picousd + sum(j.charge_picousd) OVER w - j.charge_picousd) AS charge,
             div_floor_1(a.list_carry_picousd + sum(j.list_picousd) OVER w) - div_floor_1(a.list_carry_picousd + sum(j.list_picousd) OVER w - j.list_picousd) AS list
        FROM unnest(v_items) j JOIN account a ON a.workspace_id = j.workspace_id AND a.kind = 'cash'
       WHERE j.result IN ('settled', 'late')
      WINDOW w AS (PARTITION BY j.workspace_id ORDER BY j.n)) q ON q.n = i.n;

  -- The grants' parts, call by call, each with its transfer: few calls have any.
  FOR v_place IN 1 .. CASE WHEN v_granted THEN array_length(v_items, 1) ELSE 0 END LOOP
    CONTINUE WHEN v_items[v_place].part_ids IS NULL OR v_items[v_place].result NOT IN ('settled', 'late');
    v_left := v_items[v_place].charge;
    IF v_items[v_place].markup IS NOT NULL THEN  -- the one part is a wallet's
      SELECT floor((v_items[v_place].charged + v_left) * v_items[v_place].markup + 0.5)::bigint
             - coalesce(sum(CASE WHEN t.debit_id = v_items[v_place].part_ids[1] THEN t.amount WHEN t.credit_id = v_items[v_place].part_ids[1] THEN -t.amount END), 0)
        INTO v_paid FROM transfer t
       WHERE v_items[v_place].result = 'late' AND t.workspace_id = v_items[v_place].workspace_id AND t.call_id = v_items[v_place].call_id;
      v_back := CASE v_items[v_place].result WHEN 'settled' THEN v_items[v_place].part_amounts[1] ELSE 0 END;
      UPDATE account a SET held = a.held - v_back, updated_at = v_now WHERE a.workspace_id = v_items[v_place].workspace_id AND a.id = v_items[v_place].part_ids[1]
      RETURNING * INTO v_grant;
      SELECT * INTO v_cash FROM account a WHERE a.workspace_id = v_items[v_place].workspace_id AND a.kind = 'cash';
      v_paid := least(v_paid, greatest(v_grant.credits - v_grant.debits - v_grant.held, 0));
      v_left := CASE WHEN v_paid >= 0 THEN least(v_paid, greatest(v_left, 0)) ELSE greatest(v_paid, least(v_left, 0)) END;  -- to revenue, or back from it
      v_back := CASE WHEN v_paid >= 0 THEN v_paid - v_left ELSE greatest(v_paid - v_left, -greatest(v_cash.credits - v_cash.debits - v_cash.floor, 0)) END;  -- the margin
      FOR v_part IN
        SELECT m.kind, m.ref, m.amount, CASE WHEN m.amount > 0 THEN v_grant.id ELSE m.other END AS debit, CASE WHEN m.amount > 0 THEN m.other ELSE v_grant.id END AS credit, m.cash
          FROM (SELECT CASE v_items[v_place].result WHEN 'late' THEN 'late' ELSE 'charge' END AS kind, v_items[v_place].call_id || ':' || v_grant.id AS ref, v_left AS amount, r.id AS other, false AS cash
                  FROM account r WHERE r.workspace_id = v_items[v_place].workspace_id AND r.kind = 'revenue'
                UNION ALL
                SELECT 'wallet', v_items[v_place].call_id || CASE v_items[v_place].result WHEN 'late' THEN ':margin:late' ELSE ':margin' END, v_back, v_cash.id, true) m
         WHERE m.amount <> 0
      LOOP
        UPDATE account a SET debits = a.debits + greatest(v_part.amount, 0), credits = a.credits + greatest(-v_part.amount, 0), version = a.version + 1
         WHERE a.workspace_id = v_items[v_place].workspace_id AND a.id = v_grant.id RETURNING * INTO v_grant;
        IF v_part.cash THEN
          UPDATE account a SET credits = a.credits + greatest(v_part.amount, 0), debits = a.debits + greatest(-v_part.amount, 0), version = a.version + 1,
                 floor = least(0, greatest(a.floor, a.credits - a.debits + v_part.amount)), updated_at = v_now
           WHERE a.workspace_id = v_items[v_place].workspace_id AND a.id = v_cash.id RETURNING * INTO v_cash;
        END IF;
        INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, actor_kind, actor_name, debit_balance_after, debit_seq, credit_balance_after,
                              credit_seq, created_at)
        VALUES (v_grant.workspace_id, uuidv7(), v_part.debit, v_part.credit, abs(v_part.amount), v_part.kind, v_part.ref, v_items[v_place].call_id, 'system', 'settlement',
                CASE WHEN v_part.amount > 0 THEN v_grant.credits - v_grant.debits WHEN v_part.cash THEN v_cash.credits - v_cash.debits END,
                CASE WHEN v_part.amount > 0 THEN v_grant.version WHEN v_part.cash THEN v_cash.version END,
                CASE WHEN v_part.amount < 0 THEN v_grant.credits - v_grant.debits WHEN v_part.cash THEN v_cash.credits - v_cash.debits END,
                CASE WHEN v_part.amount < 0 THEN v_grant.version WHEN v_part.cash THEN v_cash.version END, v_now);
      END LOOP;
      v_items[v_place].wallet := v_left + v_back;
      v_items[v_place].granted := v_left;
      v_items[v_place].paid := v_items[v_place].charge - v_left;
      CONTINUE;
    END IF;
    IF v_left < 0 THEN  -- what was written off is nobody's to get back, and what cash paid is cash's
      SELECT least(0, v_left + coalesce(sum(t.amount), 0)) INTO v_left FROM transfer t
       WHERE t.workspace_id = v_items[v_place].workspace_id AND t.call_id = v_items[v_place].call_id
         AND (t.kind = 'write_off' OR (t.kind = 'charge' AND t.ref = v_items[v_place].call_id::text));
    END IF;
    v_items[v_place].granted := v_left;
    FOR v_part IN
      SELECT p.id, p.held, p.place, NULL::bigint AS took FROM unnest(v_items[v_place].part_ids, v_items[v_place].part_amounts) WITH ORDINALITY AS p (id, held, place)
       WHERE v_items[v_place].result = 'settled'
       UNION ALL
      SELECT p.id, 0, -p.place, t.amount FROM unnest(v_items[v_place].part_ids) WITH ORDINALITY AS p (id, place)
        JOIN transfer t ON t.workspace_id = v_items[v_place].workspace_id AND t.kind = 'charge' AND t.ref = v_items[v_place].call_id || ':' || p.id
       WHERE v_items[v_place].result = 'late' AND v_left < 0
       ORDER BY place
    LOOP
      v_paid := CASE WHEN v_part.took IS NULL THEN least(greatest(v_left, 0), v_part.held) ELSE greatest(v_left, -v_part.took) END;
      v_left := v_left - v_paid;
      UPDATE account a SET held = a.held - v_part.held, debits = a.debits + greatest(v_paid, 0), credits = a.credits + greatest(-v_paid, 0),
             version = a.version + (v_paid <> 0)::int, updated_at = v_now
       WHERE a.workspace_id = v_items[v_place].workspace_id AND a.id = v_part.id RETURNING * INTO v_grant;
      INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, actor_kind, actor_name, debit_balance_after, debit_seq, credit_balance_after,
                            credit_seq, created_at)
      SELECT r.workspace_id, uuidv7(), CASE WHEN v_paid > 0 THEN v_grant.id ELSE r.id END, CASE WHEN v_paid > 0 THEN r.id ELSE v_grant.id END, abs(v_paid),
             CASE v_items[v_place].result WHEN 'late' THEN 'late' ELSE 'charge' END, v_items[v_place].call_id || ':' || v_grant.id, v_items[v_place].call_id, 'system', 'settlement',
             CASE WHEN v_paid > 0 THEN v_grant.credits - v_grant.debits END, CASE WHEN v_paid > 0 THEN v_grant.version END,
             CASE WHEN v_paid < 0 THEN v_grant.credits - v_grant.debits END, CASE WHEN v_paid < 0 THEN v_grant.version END, v_now
        FROM account r WHERE r.workspace_id = v_items[v_place].workspace_id AND r.kind = 'revenue' AND v_paid <> 0;
    END LOOP;
    v_items[v_place].granted := v_items[v_place].granted - v_left;
    v_items[v_place].paid := v_items[v_place].charge - v_items[v_place].granted;
  END LOOP;

  -- What is there pays them. A workspace that cannot pay all, or that gets something back, is reckoned call by call.
  SELECT array_agg(x.workspace_id) INTO v_hard FROM (
    SELECT i.workspace_id FROM unnest(v_items) i JOIN account a ON a.workspace_id = i.workspace_id AND a.kind = 'cash'
     GROUP BY i.workspace_id HAVING sum(i.charge - i.granted) > min(a.credits - a.debits - a.floor) OR min(i.charge - i.granted) < 0) x;
  IF v_hard IS NOT NULL THEN
    FOR v_item IN
      SELECT i.workspace_id, i.call_id, i.charge - i.granted AS charge, i.place FROM (SELECT j.*, row_number() OVER (ORDER BY j.n) AS place FROM unnest(v_items) j) i
       WHERE i.workspace_id = ANY (v_hard) AND i.charge <> i.granted ORDER BY i.workspace_id, i.place
    LOOP
      IF v_workspace IS DISTINCT FROM v_item.workspace_id THEN
        v_workspace := v_item.workspace_id;
        SELECT a.credits - a.debits, a.floor INTO v_balance, v_floor FROM account a WHERE a.workspace_id = v_workspace AND a.kind = 'cash';
      END IF;
      IF v_item.charge > 0 THEN
        v_paid := least(v_item.charge, v_balance - v_floor);
      ELSE
        SELECT least(0, v_item.charge + coalesce(sum(t.amount), 0)) INTO v_paid FROM transfer t
         WHERE t.workspace_id = v_workspace AND t.call_id = v_item.call_id AND t.kind = 'write_off';
      END IF;
      v_balance := v_balance - v_paid;
      v_floor := CASE WHEN v_paid < 0 THEN least(0, greatest(v_floor, v_balance)) ELSE v_floor END;
      v_items[v_item.place].paid := v_paid;
    END LOOP;
  END IF;

  -- The transfers: what the balance pays, what nobody can pay, what a late settlement gives back.
  INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, actor_kind, actor_name, debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
  SELECT i.workspace_id, uuidv7(),
         CASE WHEN i.paid > 0 THEN a.id ELSE r.id END, CASE WHEN i.paid > 0 THEN r.id ELSE a.id END,
         abs(i.paid), CASE i.result WHEN 'late' THEN 'late' ELSE 'charge' END, i.call_id::text, i.call_id, 'system', 'settlement',
         CASE WHEN i.paid > 0 THEN a.credits - a.debits - i.so_far END, CASE WHEN i.paid > 0 THEN a.version + i.place END,
         CASE WHEN i.paid < 0 THEN a.credits - a.debits - i.so_far END, CASE WHEN i.paid < 0 THEN a.version + i.place END, v_now
    FROM (SELECT j.*, sum(j.paid) OVER w AS so_far, row_number() OVER w AS place FROM unnest(v_items) j WHERE j.paid <> 0
          WINDOW w AS (PARTITION BY j.workspace_id ORDER BY j.n)) i
    JOIN account a ON a.workspace_id = i.workspace_id AND a.kind = 'cash'
    JOIN account r ON r.workspace_id = i.workspace_id AND r.kind = 'revenue';
  INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, actor_kind, actor_name, created_at)
  SELECT i.workspace_id, uuidv7(), CASE WHEN i.charge > i.granted + i.paid THEN o.id ELSE r.id END, CASE WHEN i.charge > i.granted + i.paid THEN r.id ELSE o.id END,
         abs(i.charge - i.granted - i.paid), 'write_off', i.call_id::text || CASE i.result WHEN 'late' THEN ':late' ELSE '' END, i.call_id, 'system', 'settlement', v_now
    FROM unnest(v_items) i
    JOIN account o ON o.workspace_id = i.workspace_id AND o.kind = 'write_offs'
    JOIN account r ON r.workspace_id = i.workspace_id AND r.kind = 'revenue'
   WHERE i.charge <> i.granted + i.paid AND i.result IN ('settled', 'late');

  UPDATE account a
     SET held = a.held - x.released, debits = a.debits + x.debited, credits = a.credits + x.credited, version = a.version + x.moves,
         floor = CASE WHEN x.credited > 0 THEN least(0, greatest(a.floor, a.credits - a.debits + x.credited - x.debited)) ELSE a.floor END,
         carry_picousd = a.carry_picousd + x.charge_picousd - x.charge * 1000000, list_carry_picousd = a.list_carry_picousd + x.list_picousd - x.list * 1000000,
         updated_at = v_now
    FROM (SELECT i.workspace_id, coalesce(sum(i.amount) FILTER (WHERE i.result = 'settled' AND i.account_id IS NOT NULL), 0)::bigint AS released,
                 coalesce(sum(i.paid) FILTER (WHERE i.paid > 0), 0)::bigint AS debited, coalesce(-sum(i.paid) FILTER (WHERE i.paid < 0), 0)::bigint AS credited,
                 count(*) FILTER (WHERE i.paid <> 0) AS moves, sum(i.charge)::bigint AS charge, sum(i.list)::bigint AS list,
                 sum(i.charge_picousd)::bigint AS charge_picousd, sum(i.list_picousd)::bigint AS list_picousd
            FROM unnest(v_items) i WHERE i.result IN ('settled', 'late') GROUP BY i.workspace_id) x
   WHERE a.workspace_id = x.workspace_id AND a.kind = 'cash'
     AND (x.released, x.debited, x.credited, x.charge_picousd, x.list_picousd) <> (0, 0, 0, 0, 0);

  -- The bounds give back what was held and keep what was spent. What a late settlement takes back may have been spent in a window that is over.
  UPDATE bound_window w
     SET held = w.held - x.held, spent = greatest(w.spent + x.spent, 0)
    FROM (SELECT i.workspace_id, b.bound_id, b.scope, sum(CASE WHEN i.settled THEN b.held ELSE 0 END)::bigint AS held,
                 sum(CASE WHEN d.model IS NULL OR d.model = i.model OR d.model = (SELECT k.requested_model FROM "call" k WHERE k.workspace_id = i.workspace_id AND k.id = i.call_id)
                          THEN CASE d.measure WHEN 'money' THEN i.charge WHEN 'tokens' THEN i.tokens WHEN 'list' THEN i.list ELSE 0 END
                          WHEN d.measure = 'calls' AND i.settled AND v.started_at <= h.created_at THEN -1 ELSE 0 END)::bigint AS spent
            FROM (SELECT j.workspace_id, j.call_id, j.charge, j.list, j.result = 'settled' AS settled, j.item ->> 'model' AS model,
                         (j.item ->> 'tokens')::bigint - coalesce((j.item ->> 'units_before')::bigint, 0) AS tokens
                    FROM unnest(v_items) j WHERE j.result IN ('settled', 'late') OFFSET 0) i
            CROSS JOIN LATERAL (SELECT h.bound_ids, h.bound_scopes, h.bound_held, h.created_at FROM hold h
                                 WHERE h.workspace_id = i.workspace_id AND h.call_id = i.call_id AND h.bound_ids IS NOT NULL OFFSET 0) h
            CROSS JOIN LATERAL unnest(h.bound_ids, h.bound_scopes, h.bound_held) AS b (bound_id, scope, held)
            JOIN bound d ON d.workspace_id = i.workspace_id AND d.id = b.bound_id
            JOIN bound_window v ON v.workspace_id = i.workspace_id AND v.bound_id = b.bound_id AND v.scope = b.scope
           GROUP BY 1, 2, 3) x
   WHERE w.workspace_id = x.workspace_id AND w.bound_id = x.bound_id AND w.scope = x.scope;

  -- What was used. A late settlement takes the swept event back as it was, by its negation, and writes the whole anew: outcome and model may be
  -- others now. So a record, and every cell, is always the sum of its events.
  IF v_late THEN
    WITH event AS (
      INSERT INTO usage_event (workspace_id, id, record_id, kind, mode, at, created_at, key_id, user_id, client_token_id, app_id, end_user, conversation, language, tags,
          api_name, endpoint, preset, requested_model, model, provider, streamed, outcome, http_status, error_code, requests, errors, units,
          input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, other_buckets, characters, lines,
          charge_microusd, list_microusd, charge_picousd, list_picousd, upstream_cost_picousd, price_id, token_source, needs_review, wallet_microusd)
      SELECT v.workspace_id, uuidv7(), v.record_id, 'late', v.mode, v.at, v_now, v.key_id, v.user_id, v.client_token_id, v.app_id, v.end_user, v.conversation, v.language, v.tags,
          v.api_name, v.endpoint, v.preset, v.requested_model, v.model, v.provider, v.streamed, v.outcome, v.http_status, v.error_code, -v.requests, -v.errors, -v.units,
          -v.input_tokens, -v.output_tokens, -v.cache_read_tokens, -v.cache_write_5m_tokens, -v.cache_write_1h_tokens, -v.reasoning_tokens,
          (SELECT jsonb_object_agg(o.key, -(o.value)::bigint) FROM jsonb_each_text(v.other_buckets) o), -v.characters, -v.lines,
          -v.charge_microusd, -v.list_microusd, -v.charge_picousd, -v.list_picousd, -v.upstream_cost_picousd, v.price_id, v.token_source, false, -v.wallet_microusd
        FROM unnest(v_items) i
        CROSS JOIN LATERAL (SELECT * FROM usage_event v WHERE v.workspace_id = i.workspace_id AND v.id = i.call_id OFFSET 0) v
       WHERE i.result = 'late'
      RETURNING workspace_id, id, mode)
    INSERT INTO usage_pending (workspace_id, event_id) SELECT e.workspace_id, e.id FROM event e WHERE e.mode = 'live';
  END IF;
  WITH event AS (
    INSERT INTO usage_event (workspace_id, id, record_id, kind, mode, at, created_at, key_id, user_id, client_token_id, app_id, end_user, conversation, language, tags,
        api_name, endpoint, preset, requested_model, model, provider, streamed, outcome, http_status, error_code, requests, errors, units,
        input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, other_buckets, characters, lines,
        charge_microusd, list_microusd, charge_picousd, list_picousd, upstream_cost_picousd, price_id, latency_ms, first_token_ms, token_source, needs_review, wallet_microusd)
    SELECT i.workspace_id, CASE i.result WHEN 'late' THEN uuidv7() ELSE i.call_id END, i.call_id, CASE i.result WHEN 'late' THEN 'late' ELSE 'call' END, k.mode,
        k.created_at, v_now, k.key_id, k.user_id, k.client_token_id, k.app_id, k.end_user, k.conversation, coalesce(c.language, k.language), k.tags,
        k.api_name, k.endpoint, k.preset, k.requested_model, c.model, c.provider, k.streamed, c.outcome, c.http_status, c.error_code, 1, (c.outcome = 'failed')::int,
        c.tokens, c.input_tokens, c.output_tokens, c.cache_read_tokens, c.cache_write_5m_tokens, c.cache_write_1h_tokens, c.reasoning_tokens, c.other_buckets,
        c.characters, c.lines, coalesce(c.charge_before, 0) + i.charge, coalesce(c.list_before, 0) + i.list,
        coalesce(c.charge_picousd_before, 0) + i.charge_picousd, coalesce(c.list_picousd_before, 0) + i.list_picousd, c.upstream_cost_picousd, c.price_id, c.latency_ms, c.first_token_ms,
        c.token_source, c.needs_review, coalesce(c.wallet_before, 0) + i.wallet
      FROM unnest(v_items) i
      CROSS JOIN LATERAL (SELECT * FROM "call" k WHERE k.workspace_id = i.workspace_id AND k.id = i.call_id OFFSET 0) k
      CROSS JOIN LATERAL jsonb_to_record(i.item) AS c (language text, model text, provider text, outcome text, http_status int, error_code text, tokens bigint,
        input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_5m_tokens bigint, cache_write_1h_tokens bigint, reasoning_tokens bigint,
        other_buckets jsonb, characters bigint, lines bigint, upstream_cost_picousd bigint, price_id uuid, latency_ms int, first_token_ms int,
        token_source text, needs_review boolean, charge_before bigint, list_before bigint, charge_picousd_before bigint, list_picousd_before bigint,
        wallet_before bigint)
     WHERE i.result IN ('settled', 'late')
    RETURNING workspace_id, id, mode)
  INSERT INTO usage_pending (workspace_id, event_id) SELECT e.workspace_id, e.id FROM event e WHERE e.mode = 'live';
  INSERT INTO attempt (workspace_id, id, call_id, number, upstream, model, outcome, http_status, error_code, usage, cost_picousd, started_at, first_byte_at, finished_at, reason, price_id, charged)
  SELECT i.workspace_id, t.id, i.call_id, t.number, t.upstream, t.model, t.outcome, t.http_status, t.error_code, t.usage, t.cost_picousd, t.started_at, t.first_byte_at, t.finished_at, t.reason, t.price_id, t.charged
    FROM unnest(v_items) i
    CROSS JOIN LATERAL jsonb_to_recordset(i.item -> 'attempts') AS t (id uuid, number int, upstream text, model text, outcome text, http_status int, error_code text,
      usage jsonb, cost_picousd bigint, started_at timestamptz, first_byte_at timestamptz, finished_at timestamptz, reason text, price_id uuid, charged boolean)
   WHERE i.result IN ('settled', 'late')
      ON CONFLICT DO NOTHING;

  UPDATE hold h
     SET state = CASE WHEN h.state <> 'open' THEN h.state WHEN (i.item ->> 'delivered')::boolean THEN 'settled' ELSE 'released' END,
         closed_at = coalesce(h.closed_at, v_now), closed_by = CASE i.result WHEN 'late' THEN 'late' ELSE i.by END,
         charge_picousd = coalesce(h.charge_picousd, 0) + i.charge_picousd, charge_microusd = coalesce(h.charge_microusd, 0) + i.charge
    FROM unnest(v_items) i
   WHERE h.workspace_id = i.workspace_id AND h.call_id = i.call_id AND i.result IN ('settled', 'late');

  RETURN QUERY SELECT i.n, i.result, CASE WHEN i.markup IS NULL THEN h.charge_microusd ELSE floor(h.charge_microusd * i.markup + 0.5)::bigint END, a.credits - a.debits,
                      CASE WHEN a.id IS NOT NULL THEN greatest(a.credits - a.debits - a.held - a.floor, 0) END
                 FROM unnest(v_items) i
                 LEFT JOIN account a ON a.workspace_id = i.workspace_id AND CASE WHEN i.markup IS NOT NULL THEN a.id = i.part_ids[1] ELSE a.kind = 'cash' AND i.token IS NOT TRUE END
                 LEFT JOIN LATERAL (SELECT h.charge_microusd FROM hold h WHERE h.workspace_id = i.workspace_id AND h.call_id = i.call_id OFFSET 0) h ON true
                ORDER BY i.n;
END $$;
