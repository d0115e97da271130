-- correct_2(workspace, record, event, units, charge, void, ...): as correct_1, and besides: records that an end user's wallet paid.
--
-- A wallet pays the new charge times the markup of its call, and never more than it paid before: what is dearer now is cash's. What it gets back comes
-- from revenue as far as it went there, and its margin from cash, below its floor if need be.
CREATE OR REPLACE FUNCTION correct_2(p_workspace uuid, p_record uuid, p_event uuid, p_units bigint, p_charge bigint, p_void boolean,
                                     p_reason text, p_actor_kind text, p_actor_id uuid, p_actor_name text)
RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_revenue uuid;
  v_cash uuid;
  v_last usage_event;
  v_sum record;
  v_charge bigint;
  v_units bigint;
  v_change bigint;
  v_rest bigint;
  v_payer record;
  v_account account;
  v_again bigint[];
  v_ids uuid[];
  v_back bigint[];
  v_wallet uuid;
  v_markup numeric;
  v_spent bigint := 0;
  v_due bigint := 0;
  v_margin bigint := 0;
  v_other account;
BEGIN
  SELECT a.id INTO v_cash FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'cash' FOR NO KEY UPDATE;
  SELECT e.* INTO v_last FROM usage_event e
   WHERE e.workspace_id = p_workspace AND e.record_id = p_record AND e.kind IN ('call', 'manual', 'late') AND (e.id = p_record OR e.id <> e.record_id)
   ORDER BY e.created_at DESC, e.id DESC LIMIT 1;
  IF NOT FOUND OR v_cash IS NULL THEN
    RETURN 'unknown';
  END IF;
  SELECT sum(e.units)::bigint AS units, sum(e.requests)::int AS requests, sum(e.errors)::int AS errors, sum(e.input_tokens)::bigint AS input_tokens,
         sum(e.output_tokens)::bigint AS output_tokens, sum(e.cache_read_tokens)::bigint AS cache_read_tokens,
         sum(e.cache_write_5m_tokens)::bigint AS cache_write_5m_tokens, sum(e.cache_write_1h_tokens)::bigint AS cache_write_1h_tokens,
         sum(e.reasoning_tokens)::bigint AS reasoning_tokens, sum(e.characters)::bigint AS characters, sum(e.lines)::bigint AS lines,
         sum(e.charge_microusd)::bigint AS charge, sum(e.list_microusd)::bigint AS list, bool_or(e.kind = 'void') AS voided
    INTO v_sum FROM usage_event e WHERE e.workspace_id = p_workspace AND e.record_id = p_record AND (e.id = p_record OR e.id <> e.record_id);
  IF v_sum.voided THEN
    RETURN 'voided';
  END IF;
  v_units := CASE WHEN p_void THEN 0 ELSE coalesce(p_units, v_sum.units) END;
  v_charge := CASE WHEN p_void OR v_last.mode <> 'live' THEN 0 ELSE coalesce(p_charge, v_sum.charge) END;
  v_change := v_charge - v_sum.charge;
  IF NOT p_void AND v_change = 0 AND v_units = v_sum.units THEN
    RETURN 'same';
  END IF;

  IF v_change <> 0 THEN
    SELECT a.id INTO STRICT v_revenue FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'revenue';
    SELECT array_agg(x.id ORDER BY x.place, x.id), array_agg(x.paid ORDER BY x.place, x.id) INTO v_ids, v_back
      FROM (SELECT a.id, sum(CASE WHEN t.credit_id = v_revenue THEN t.amount ELSE -t.amount END)::bigint AS paid,
                   CASE a.kind WHEN 'write_offs' THEN 0 WHEN 'cash' THEN 1 ELSE 2 END AS place
              FROM transfer t JOIN account a ON a.workspace_id = t.workspace_id AND a.id = CASE WHEN t.credit_id = v_revenue THEN t.debit_id ELSE t.credit_id END
             WHERE t.workspace_id = p_workspace AND t.call_id = p_record AND v_revenue IN (t.debit_id, t.credit_id)
             GROUP BY a.id, a.kind HAVING sum(CASE WHEN t.credit_id = v_revenue THEN t.amount ELSE -t.amount END) <> 0) x;
    IF coalesce((SELECT sum(b) FROM unnest(v_back) b), 0) <> v_sum.charge OR EXISTS (SELECT FROM unnest(v_back) b WHERE b < 0) THEN
      RAISE EXCEPTION 'the transfers of record % are not its charge', p_record;
    END IF;
    IF NOT v_cash = ANY (coalesce(v_ids, '{}')) THEN
      v_ids := v_ids || v_cash;
      v_back := v_back || 0::bigint;
    END IF;
    SELECT h.part_ids[1], h.wallet_markup INTO v_wallet, v_markup FROM hold h WHERE h.workspace_id = p_workspace AND h.call_id = p_record AND h.payer = 'wallet';
    IF v_wallet IS NOT NULL THEN
      SELECT coalesce(sum(CASE WHEN t.debit_id = v_wallet THEN t.amount ELSE -t.amount END), 0) INTO v_spent FROM transfer t
       WHERE t.workspace_id = p_workspace AND t.call_id = p_record AND v_wallet IN (t.debit_id, t.credit_id);
      v_due := least(v_spent, floor(v_charge * v_markup + 0.5));
    END IF;
    -- Each payer's new part; what a wallet pays no more or cash pays more is what the others leave.
    v_again := v_back;
    v_rest := -v_change;
    FOR i IN 1 .. cardinality(v_ids) LOOP
      IF v_ids[i] = v_wallet THEN
        v_again[i] := least(v_back[i], v_due, v_charge);
        v_rest := v_rest - (v_back[i] - v_again[i]);
        v_margin := v_spent - v_back[i] - (v_due - v_again[i]);
      END IF;
    END LOOP;
    FOR i IN 1 .. cardinality(v_ids) LOOP
      CONTINUE WHEN v_ids[i] = v_wallet;
      IF v_rest > 0 THEN
        v_again[i] := v_back[i] - least(v_back[i], v_rest);
        v_rest := v_rest - least(v_back[i], v_rest);
      ELSIF v_ids[i] = v_cash THEN
        v_again[i] := v_back[i] - v_rest;
        v_rest := 0;
      END IF;
    END LOOP;
    FOR v_payer IN
      SELECT x.id, m.amount, m.back FROM unnest(v_ids, v_back, v_again) WITH ORDINALITY AS x (id, back, again, place)
       CROSS JOIN LATERAL (VALUES (x.back, true, 0), (x.again, false, 1)) AS m (amount, back, place) WHERE m.amount > 0 ORDER BY m.place, x.place
    LOOP
      UPDATE account a
         SET credits = a.credits + CASE WHEN v_payer.back THEN v_payer.amount ELSE 0 END, debits = a.debits + CASE WHEN v_payer.back THEN 0 ELSE v_payer.amount END,
             version = a.version + 1, updated_at = v_now,
             floor = CASE WHEN v_payer.back THEN least(0, greatest(a.floor, a.credits - a.debits + v_payer.amount))
                          ELSE least(a.floor, a.credits - a.debits - v_payer.amount) END
       WHERE a.workspace_id = p_workspace AND a.id = v_payer.id AND a.kind IN ('cash', 'grant', 'wallet') RETURNING * INTO v_account;
      INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name,
                            debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
      VALUES (p_workspace, uuidv7(), CASE WHEN v_payer.back THEN v_revenue ELSE v_payer.id END, CASE WHEN v_payer.back THEN v_payer.id ELSE v_revenue END,
              v_payer.amount, 'correction', p_event::text || CASE WHEN v_payer.back THEN ':back:' ELSE ':again:' END || v_payer.id::text, p_record, p_reason,
              p_actor_kind, p_actor_id, p_actor_name,
              CASE WHEN v_account.id = v_payer.id AND NOT v_payer.back THEN v_account.credits - v_account.debits END,
              CASE WHEN v_account.id = v_payer.id AND NOT v_payer.back THEN v_account.version END,
              CASE WHEN v_account.id = v_payer.id AND v_payer.back THEN v_account.credits - v_account.debits END,
              CASE WHEN v_account.id = v_payer.id AND v_payer.back THEN v_account.version END, v_now);
    END LOOP;
  END IF;

  IF v_margin <> 0 THEN
    UPDATE account a SET credits = a.credits + greatest(v_margin, 0), debits = a.debits + greatest(-v_margin, 0), version = a.version + 1, updated_at = v_now
     WHERE a.workspace_id = p_workspace AND a.id = v_wallet;
    UPDATE account a SET debits = a.debits + greatest(v_margin, 0), credits = a.credits + greatest(-v_margin, 0), version = a.version + 1, updated_at = v_now,
           floor = CASE WHEN v_margin > 0 THEN least(a.floor, a.credits - a.debits - v_margin) ELSE least(0, greatest(a.floor, a.credits - a.debits - v_margin)) END
     WHERE a.workspace_id = p_workspace AND a.id = v_cash;
    INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name,
                          debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
    SELECT p_workspace, uuidv7(), d.id, c.id, abs(v_margin), 'correction', p_event::text || ':margin', p_record, p_reason, p_actor_kind, p_actor_id, p_actor_name,
           d.credits - d.debits, d.version, c.credits - c.debits, c.version, v_now
      FROM account d, account c
     WHERE d.workspace_id = p_workspace AND d.id = CASE WHEN v_margin > 0 THEN v_cash ELSE v_wallet END
       AND c.workspace_id = p_workspace AND c.id = CASE WHEN v_margin > 0 THEN v_wallet ELSE v_cash END;
  END IF;

  -- The event stands where the record's last settlement stands, so that every cell follows.
  v_last.id := p_event;
  v_last.kind := CASE WHEN p_void THEN 'void' ELSE 'correction' END;
  v_last.created_at := v_now;
  v_last.units := v_units - v_sum.units;
  v_last.charge_microusd := v_change;
  v_last.charge_picousd := v_change * 1000000;
  v_last.upstream_cost_picousd := 0;
  v_last.wallet_microusd := v_due - v_spent;
  v_last.needs_review := false;
  v_last.latency_ms := NULL;
  v_last.first_token_ms := NULL;
  v_last.reason := p_reason;
  v_last.actor_kind := p_actor_kind;
  v_last.actor_id := p_actor_id;
  v_last.actor_name := p_actor_name;
  v_last.requests := CASE WHEN p_void THEN -v_sum.requests ELSE 0 END;
  v_last.errors := CASE WHEN p_void THEN -v_sum.errors ELSE 0 END;
  v_last.input_tokens := CASE WHEN p_void THEN -v_sum.input_tokens ELSE 0 END;
  v_last.output_tokens := CASE WHEN p_void THEN -v_sum.output_tokens ELSE 0 END;
  v_last.cache_read_tokens := CASE WHEN p_void THEN -v_sum.cache_read_tokens ELSE 0 END;
  v_last.cache_write_5m_tokens := CASE WHEN p_void THEN -v_sum.cache_write_5m_tokens ELSE 0 END;
  v_last.cache_write_1h_tokens := CASE WHEN p_void THEN -v_sum.cache_write_1h_tokens ELSE 0 END;
  v_last.reasoning_tokens := CASE WHEN p_void THEN -v_sum.reasoning_tokens ELSE 0 END;
  v_last.characters := CASE WHEN p_void THEN -v_sum.characters ELSE 0 END;
  v_last.lines := CASE WHEN p_void THEN -v_sum.lines ELSE 0 END;
  v_last.list_microusd := CASE WHEN p_void THEN -v_sum.list ELSE 0 END;
  v_last.list_picousd := v_last.list_microusd * 1000000;
  v_last.other_buckets := CASE WHEN p_void THEN (SELECT jsonb_object_agg(o.key, -(o.value)::bigint) FROM jsonb_each_text(v_last.other_buckets) o) END;
  INSERT INTO usage_event SELECT v_last.*;
  IF v_last.mode = 'live' THEN
    INSERT INTO usage_pending (workspace_id, event_id) VALUES (p_workspace, p_event);
  END IF;
  RETURN 'done';
END $$;
