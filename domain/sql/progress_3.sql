-- progress_3(calls): as progress_2, and besides: a hold of an end user's wallet grows as far as the wallet, and cash for what the markup leaves, can go.
CREATE OR REPLACE FUNCTION progress_3(p_calls jsonb)
RETURNS TABLE (n int, result text, output bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_item record;
  v_hold hold;
  v_account account;
  v_target bigint;
  v_left bigint;
  v_more bigint;
  v_worth bigint;
  v_cash bigint;
  v_bound record;
  v_part record;
  v_spendable bigint[];
  v_overage boolean;
BEGIN
  PERFORM FROM hold h
    JOIN jsonb_to_recordset(p_calls) AS c (workspace_id uuid, call_id uuid) ON h.workspace_id = c.workspace_id AND h.call_id = c.call_id
   ORDER BY h.call_id FOR NO KEY UPDATE OF h;
  UPDATE hold h SET progress = coalesce(c.progress, h.progress), progress_at = v_now, expires_at = v_now + make_interval(secs => c.hold_seconds)
    FROM jsonb_to_recordset(p_calls) AS c (workspace_id uuid, call_id uuid, progress jsonb, hold_seconds int)
   WHERE h.workspace_id = c.workspace_id AND h.call_id = c.call_id AND h.state = 'open';

  FOR v_item IN
    SELECT c.* FROM jsonb_to_recordset(p_calls) AS c (n int, workspace_id uuid, call_id uuid, output bigint, input_tokens bigint, input_picousd bigint, output_picousd bigint)
     ORDER BY c.workspace_id, c.n
  LOOP
    n := v_item.n;
    SELECT * INTO v_hold FROM hold h WHERE h.workspace_id = v_item.workspace_id AND h.call_id = v_item.call_id;
    IF v_hold.state IS DISTINCT FROM 'open' THEN
      result := 'closed'; output := coalesce(v_hold.held_output, 0); RETURN NEXT; CONTINUE;
    END IF;
    result := 'alive'; output := v_hold.held_output;
    IF v_item.output IS NULL OR v_item.output <= v_hold.held_output THEN
      RETURN NEXT; CONTINUE;
    END IF;
    SELECT * INTO v_account FROM account a WHERE a.workspace_id = v_item.workspace_id AND a.kind = 'cash' FOR NO KEY UPDATE;
    v_target := v_item.output;
    v_spendable := NULL;
    IF v_hold.account_id IS NOT NULL AND v_item.output_picousd > 0 THEN
      v_left := v_hold.amount + greatest(v_account.credits - v_account.debits - v_account.held - v_account.floor, 0);
      IF v_hold.payer = 'wallet' THEN
        SELECT wallet_covers_1(v_hold.part_amounts[1] + greatest(a.credits - a.debits - a.held - a.floor, 0), v_left, v_hold.wallet_markup) INTO v_left
          FROM account a WHERE a.workspace_id = v_item.workspace_id AND a.id = v_hold.part_ids[1];
      ELSIF v_hold.part_ids IS NOT NULL THEN
        SELECT array_agg(CASE WHEN g.closed_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > v_now) THEN a.credits - a.debits - a.held ELSE 0 END ORDER BY p.place)
          INTO v_spendable
          FROM unnest(v_hold.part_ids) WITH ORDINALITY AS p (id, place)
          JOIN account a ON a.workspace_id = v_item.workspace_id AND a.id = p.id
          JOIN credit_grant g ON g.workspace_id = v_item.workspace_id AND g.id = p.id;
        SELECT v_left + sum(x) INTO v_left FROM unnest(v_spendable || v_hold.part_amounts) x;
      END IF;
      v_target := affordable_1(v_left, v_item.input_picousd, v_item.output_picousd, v_target);
    END IF;
    v_overage := v_hold.payer = 'quota' AND (SELECT w.overage_allowed FROM workspace w WHERE w.id = v_item.workspace_id);
    FOR v_bound IN
      SELECT b.*, d.measure, coalesce(b.quota, d.most) AS most, CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END AS spent, w.held AS in_all
        FROM unnest(v_hold.bound_ids, v_hold.bound_scopes, v_hold.bound_held, v_hold.bound_most) WITH ORDINALITY AS b (bound_id, scope, held, quota, place)
        JOIN bound d ON d.workspace_id = v_item.workspace_id AND d.id = b.bound_id
        JOIN bound_window w ON w.workspace_id = d.workspace_id AND w.bound_id = d.id AND w.scope = b.scope
       WHERE CASE WHEN b.quota IS NULL THEN d.removed_at IS NULL ELSE NOT coalesce(v_overage, false) END
    LOOP
      v_left := greatest(v_bound.most - v_bound.spent - v_bound.in_all, 0);
      IF v_bound.measure = 'money' AND v_item.output_picousd > 0 AND v_hold.account_id IS NOT NULL THEN
        v_target := affordable_1(v_bound.held + v_left, v_item.input_picousd, v_item.output_picousd, v_target);
      ELSIF v_bound.measure = 'tokens' THEN
        v_target := least(v_target, v_bound.held + v_left - v_item.input_tokens);
      ELSIF v_bound.measure = 'list' AND v_item.output_picousd > 0 THEN
        v_target := affordable_1(v_bound.held + v_left, v_item.input_picousd, v_item.output_picousd, v_target);
      END IF;
    END LOOP;
    IF v_target > v_hold.held_output THEN
      v_more := CASE WHEN v_hold.account_id IS NULL THEN 0 ELSE
        greatest(demand_1(v_item.input_picousd, v_item.output_picousd, v_target) - v_hold.amount - coalesce((SELECT sum(p) FROM unnest(v_hold.part_amounts) p), 0), 0) END;
      v_worth := greatest(demand_1(v_item.input_picousd, v_item.output_picousd, v_target) - demand_1(v_item.input_picousd, v_item.output_picousd, v_hold.held_output), 0);
      v_cash := v_more;
      IF v_hold.payer = 'wallet' THEN
        v_more := v_worth;
        v_left := greatest(ceil(demand_1(v_item.input_picousd, v_item.output_picousd, v_target) * v_hold.wallet_markup) - v_hold.part_amounts[1], 0);
        v_cash := greatest(demand_1(v_item.input_picousd, v_item.output_picousd, v_target)
                           - floor(demand_1(v_item.input_picousd, v_item.output_picousd, v_target) * v_hold.wallet_markup) - v_hold.amount, 0);
        v_hold.part_amounts[1] := v_hold.part_amounts[1] + v_left;
        UPDATE account a SET held = a.held + v_left, updated_at = v_now WHERE a.workspace_id = v_item.workspace_id AND a.id = v_hold.part_ids[1];
      END IF;
      FOR v_place IN 1 .. coalesce(array_length(v_spendable, 1), 0) LOOP
        v_left := least(v_spendable[v_place], v_cash);
        CONTINUE WHEN v_left <= 0;
        v_cash := v_cash - v_left;
        v_hold.part_amounts[v_place] := v_hold.part_amounts[v_place] + v_left;
        UPDATE account a SET held = a.held + v_left, updated_at = v_now WHERE a.workspace_id = v_item.workspace_id AND a.id = v_hold.part_ids[v_place];
      END LOOP;
      UPDATE account a SET held = a.held + v_cash, updated_at = v_now WHERE a.workspace_id = v_account.workspace_id AND a.id = v_account.id AND v_cash > 0;
      UPDATE bound_window w SET held = w.held + x.more
        FROM (SELECT b.bound_id, b.scope, CASE d.measure WHEN 'money' THEN v_more WHEN 'tokens' THEN v_target - v_hold.held_output WHEN 'list' THEN v_worth ELSE 0 END AS more
                FROM unnest(v_hold.bound_ids, v_hold.bound_scopes) AS b (bound_id, scope)
                JOIN bound d ON d.workspace_id = v_item.workspace_id AND d.id = b.bound_id) x
       WHERE w.workspace_id = v_item.workspace_id AND w.bound_id = x.bound_id AND w.scope = x.scope AND x.more > 0;
      UPDATE hold h
         SET amount = h.amount + v_cash, part_amounts = v_hold.part_amounts, held_output = v_target, extensions = h.extensions + 1,
             bound_held = (SELECT array_agg(b.held + CASE d.measure WHEN 'money' THEN v_more WHEN 'tokens' THEN v_target - v_hold.held_output WHEN 'list' THEN v_worth ELSE 0 END
                                            ORDER BY b.place)
                             FROM unnest(h.bound_ids, h.bound_held) WITH ORDINALITY AS b (bound_id, held, place)
                             JOIN bound d ON d.workspace_id = h.workspace_id AND d.id = b.bound_id)
       WHERE h.workspace_id = v_item.workspace_id AND h.call_id = v_item.call_id;
      output := v_target;
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;
