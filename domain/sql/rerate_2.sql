-- rerate_2(workspace, rerating, record, event, price, ...): as rerate_1, and besides: calls that an end user's wallet paid.
--
-- Before all others the wallet gets what it paid beyond the new charge times the markup of its call: from revenue as far as it went there, and its margin
-- from cash that is free. What is dearer now is never a wallet's.
CREATE OR REPLACE FUNCTION rerate_2(p_workspace uuid, p_rerating uuid, p_record uuid, p_event uuid, p_price uuid,
                                    p_reason text, p_actor_kind text, p_actor_id uuid, p_actor_name text)
RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_call rerated_call;
  v_cash account;
  v_revenue uuid;
  v_write_offs uuid;
  v_last usage_event;
  v_sum record;
  v_rest bigint;
  v_part bigint;
  v_payer record;
  v_account account;
  v_wallet uuid;
  v_markup numeric;
  v_spent bigint := 0;
  v_due bigint := 0;
  v_returned bigint := 0;
BEGIN
  SELECT a.* INTO STRICT v_cash FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'cash' FOR NO KEY UPDATE;
  SELECT c.* INTO STRICT v_call FROM rerated_call c WHERE c.workspace_id = p_workspace AND c.rerating_id = p_rerating AND c.record_id = p_record FOR NO KEY UPDATE;
  IF v_call.state <> 'open' THEN
    RETURN 'done';
  END IF;
  SELECT count(*) AS events, sum(e.charge_microusd)::bigint AS charge INTO v_sum
    FROM usage_event e WHERE e.workspace_id = p_workspace AND e.record_id = p_record AND (e.id = p_record OR e.id <> e.record_id);
  IF v_sum.events <> v_call.events OR v_sum.charge <> v_call.before_microusd THEN
    UPDATE rerated_call c SET state = 'skipped' WHERE c.workspace_id = p_workspace AND c.rerating_id = p_rerating AND c.record_id = p_record;
    UPDATE rerating_line l SET calls = l.calls - v_call.charge_differs::int, before_microusd = l.before_microusd - CASE WHEN v_call.charge_differs THEN v_call.before_microusd ELSE 0 END,
           after_microusd = l.after_microusd - CASE WHEN v_call.charge_differs THEN v_call.before_microusd + v_call.change_microusd ELSE 0 END
     WHERE l.workspace_id = p_workspace AND l.rerating_id = p_rerating;
    UPDATE rerating r SET calls = r.calls - v_call.charge_differs::int, credited_microusd = r.credited_microusd - greatest(-v_call.change_microusd, 0),
           charged_microusd = r.charged_microusd - greatest(v_call.change_microusd, 0)
     WHERE r.id = p_rerating;
    RETURN 'skipped';
  END IF;

  IF v_call.change_microusd <> 0 THEN
    SELECT a.id INTO STRICT v_revenue FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'revenue';
    SELECT a.id INTO STRICT v_write_offs FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'write_offs';
  END IF;
  v_rest := abs(v_call.change_microusd);
  IF v_call.change_microusd < 0 THEN
    SELECT h.part_ids[1], h.wallet_markup INTO v_wallet, v_markup FROM hold h WHERE h.workspace_id = p_workspace AND h.call_id = p_record AND h.payer = 'wallet';
    IF v_wallet IS NOT NULL THEN
      SELECT coalesce(sum(CASE WHEN t.debit_id = v_wallet THEN t.amount ELSE -t.amount END), 0) INTO v_spent FROM transfer t
       WHERE t.workspace_id = p_workspace AND t.call_id = p_record AND v_wallet IN (t.debit_id, t.credit_id);
      v_due := least(v_spent, floor((v_sum.charge + v_call.change_microusd) * v_markup + 0.5));
    END IF;
  END IF;
  FOR v_payer IN
    SELECT p.id, p.paid, p.over, p.kind = 'write_offs' AS unpaid
      FROM (SELECT a.id, a.kind, sum(CASE WHEN t.credit_id = v_revenue THEN t.amount ELSE -t.amount END)::bigint AS paid,
                   coalesce(g.revoked_at IS NULL AND g.expires_at <= v_now, false) AS over, g.priority, g.expires_at
              FROM transfer t
              JOIN account a ON a.workspace_id = t.workspace_id AND a.id = CASE WHEN t.credit_id = v_revenue THEN t.debit_id ELSE t.credit_id END
              LEFT JOIN credit_grant g ON g.workspace_id = a.workspace_id AND g.id = a.id
             WHERE v_call.change_microusd < 0 AND t.workspace_id = p_workspace AND t.call_id = p_record AND v_revenue IN (t.debit_id, t.credit_id)
             GROUP BY a.id, a.kind, g.revoked_at, g.expires_at, g.priority) p
     WHERE p.paid > 0
     ORDER BY CASE p.kind WHEN 'wallet' THEN -1 WHEN 'write_offs' THEN 0 WHEN 'cash' THEN 1 ELSE 2 END, p.priority DESC, p.expires_at DESC NULLS FIRST, p.id DESC
  LOOP
    v_part := least(v_rest, v_payer.paid);
    IF v_payer.id = v_wallet THEN
      v_part := v_payer.paid - least(v_payer.paid, v_due, v_sum.charge + v_call.change_microusd);
      v_returned := v_part;
    END IF;
    CONTINUE WHEN v_part = 0;
    v_rest := v_rest - v_part;
    v_account := NULL;
    UPDATE account a SET credits = a.credits + v_part, version = a.version + 1, updated_at = v_now, floor = least(0, greatest(a.floor, a.credits - a.debits + v_part))
     WHERE a.workspace_id = p_workspace AND a.id = v_payer.id AND NOT v_payer.unpaid RETURNING * INTO v_account;
    INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name, credit_balance_after, credit_seq, created_at)
    VALUES (p_workspace, uuidv7(), v_revenue, v_payer.id, v_part, CASE WHEN v_payer.unpaid THEN 'write_off' ELSE 'correction' END, p_event || ':' || v_payer.id, p_record,
            p_reason, p_actor_kind, p_actor_id, p_actor_name, v_account.credits - v_account.debits, v_account.version, v_now);
    IF v_payer.over THEN
      UPDATE account a SET debits = a.debits + v_part, version = a.version + 1, updated_at = v_now WHERE a.workspace_id = p_workspace AND a.id = v_payer.id RETURNING * INTO v_account;
      UPDATE account a SET credits = a.credits + v_part, version = a.version + 1, updated_at = v_now, floor = least(0, greatest(a.floor, a.credits - a.debits + v_part))
       WHERE a.workspace_id = p_workspace AND a.id = v_cash.id RETURNING * INTO v_cash;
      INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, reason, actor_kind, actor_id, actor_name,
                            debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
      VALUES (p_workspace, uuidv7(), v_payer.id, v_cash.id, v_part, 'correction', p_event || ':' || v_payer.id || ':cash', p_reason, p_actor_kind, p_actor_id, p_actor_name,
              v_account.credits - v_account.debits, v_account.version, v_cash.credits - v_cash.debits, v_cash.version, v_now);
    END IF;
  END LOOP;
  SELECT a.* INTO STRICT v_cash FROM account a WHERE a.workspace_id = p_workspace AND a.id = v_cash.id;
  v_part := least(v_spent - v_due - v_returned, greatest(v_cash.credits - v_cash.debits - v_cash.held - v_cash.floor, 0));  -- the margin
  IF v_part > 0 THEN
    UPDATE account a SET credits = a.credits + v_part, version = a.version + 1, updated_at = v_now WHERE a.workspace_id = p_workspace AND a.id = v_wallet RETURNING * INTO v_account;
    UPDATE account a SET debits = a.debits + v_part, version = a.version + 1, updated_at = v_now WHERE a.workspace_id = p_workspace AND a.id = v_cash.id RETURNING * INTO v_cash;
    INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name,
                          debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
    VALUES (p_workspace, uuidv7(), v_cash.id, v_wallet, v_part, 'correction', p_event || ':margin', p_record, p_reason, p_actor_kind, p_actor_id, p_actor_name,
            v_cash.credits - v_cash.debits, v_cash.version, v_account.credits - v_account.debits, v_account.version, v_now);
    v_returned := v_returned + v_part;
  END IF;
  IF v_call.change_microusd < 0 AND v_rest > 0 THEN
    RAISE EXCEPTION 'the transfers of record % are not its charge', p_record;
  END IF;
  IF v_call.change_microusd > 0 THEN
    v_part := least(v_rest, greatest(v_cash.credits - v_cash.debits - v_cash.held - v_cash.floor, 0));
    IF v_part > 0 THEN
      UPDATE account a SET debits = a.debits + v_part, version = a.version + 1, updated_at = v_now WHERE a.workspace_id = p_workspace AND a.id = v_cash.id RETURNING * INTO v_account;
      INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name, debit_balance_after, debit_seq, created_at)
      VALUES (p_workspace, uuidv7(), v_cash.id, v_revenue, v_part, 'correction', p_event || ':' || v_cash.id, p_record, p_reason, p_actor_kind, p_actor_id, p_actor_name,
              v_account.credits - v_account.debits, v_account.version, v_now);
    END IF;
    IF v_rest > v_part THEN
      INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name, created_at)
      VALUES (p_workspace, uuidv7(), v_write_offs, v_revenue, v_rest - v_part, 'write_off', p_event || ':' || v_write_offs, p_record, p_reason, p_actor_kind, p_actor_id,
              p_actor_name, v_now);
    END IF;
  END IF;

  -- The event stands where the call's last settlement stands, so that every cell follows.
  IF (v_call.change_microusd, v_call.list_change_microusd) <> (0, 0) THEN
    SELECT e.* INTO STRICT v_last FROM usage_event e
     WHERE e.workspace_id = p_workspace AND e.record_id = p_record AND e.kind IN ('call', 'late') AND (e.id = p_record OR e.id <> e.record_id) ORDER BY e.created_at DESC, e.id DESC LIMIT 1;
    INSERT INTO usage_event (workspace_id, id, record_id, kind, mode, at, created_at, key_id, user_id, client_token_id, app_id, end_user, conversation, language, tags,
        api_name, endpoint, preset, requested_model, model, provider, streamed, outcome, http_status, error_code, requests, errors, units,
        input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, characters, lines,
        charge_microusd, list_microusd, charge_picousd, list_picousd, upstream_cost_picousd, price_id, token_source, needs_review, reason, actor_kind, actor_id, actor_name, wallet_microusd)
    VALUES (p_workspace, p_event, p_record, 'correction', v_last.mode, v_last.at, v_now, v_last.key_id, v_last.user_id, v_last.client_token_id, v_last.app_id,
        v_last.end_user, v_last.conversation, v_last.language, v_last.tags, v_last.api_name, v_last.endpoint, v_last.preset, v_last.requested_model, v_last.model,
        v_last.provider, v_last.streamed, v_last.outcome, v_last.http_status, v_last.error_code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        v_call.change_microusd, v_call.list_change_microusd, v_call.change_microusd * 1000000, v_call.list_change_microusd * 1000000, 0, p_price, v_last.token_source,
        false, p_reason, p_actor_kind, p_actor_id, p_actor_name, -v_returned);
    INSERT INTO usage_pending (workspace_id, event_id) VALUES (p_workspace, p_event);
  END IF;
  UPDATE rerated_call c SET state = 'posted', event_id = p_event, posted_at = v_now
   WHERE c.workspace_id = p_workspace AND c.rerating_id = p_rerating AND c.record_id = p_record;
  RETURN 'posted';
END $$;
