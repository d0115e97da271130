-- charge_1(workspace, record, amount, app, grants, actor...): charge a record that was made by hand as a call is charged: grants first, by priority and
-- expiry, then cash; once for each record. Grants for certain models pay for none, because such a record names no model; those for certain apps pay
-- for their apps. As with calls, a workspace in debt spends no grant.
-- Raises P0402 when there is too little in all, with what there is as its detail; nothing has moved then.
CREATE OR REPLACE FUNCTION charge_1(p_workspace uuid, p_record uuid, p_amount bigint, p_app uuid, p_grants boolean,
                                    p_actor_kind text, p_actor_id uuid, p_actor_name text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_left bigint := p_amount;
  v_cash account;
  v_revenue uuid;
  v_payer record;
  v_account account;
  v_paid bigint;
BEGIN
  SELECT * INTO STRICT v_cash FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'cash' FOR NO KEY UPDATE;
  IF EXISTS (SELECT FROM transfer t WHERE t.workspace_id = p_workspace AND t.kind = 'charge' AND t.call_id = p_record) THEN
    RETURN;
  END IF;
  SELECT a.id INTO STRICT v_revenue FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'revenue';
  FOR v_payer IN
    SELECT a.id, a.credits - a.debits - a.held AS spendable, p_record || ':' || a.id AS ref, row_number() OVER (ORDER BY g.priority, g.expires_at, g.id) AS place
      FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
     WHERE p_grants AND v_cash.credits >= v_cash.debits AND g.workspace_id = p_workspace AND g.closed_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > v_now)
       AND g.models IS NULL AND (g.apps IS NULL OR p_app = ANY (g.apps)) AND a.credits - a.debits - a.held > 0
     UNION ALL
    SELECT v_cash.id, greatest(v_cash.credits - v_cash.debits - v_cash.held - v_cash.floor, 0), p_record::text, NULL
     ORDER BY place NULLS LAST
  LOOP
    v_paid := least(v_left, v_payer.spendable);
    CONTINUE WHEN v_paid = 0;
    v_left := v_left - v_paid;
    UPDATE account a SET debits = a.debits + v_paid, version = a.version + 1, updated_at = v_now
     WHERE a.workspace_id = p_workspace AND a.id = v_payer.id RETURNING * INTO v_account;
    INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, actor_kind, actor_id, actor_name, debit_balance_after, debit_seq, created_at)
    VALUES (p_workspace, uuidv7(), v_account.id, v_revenue, v_paid, 'charge', v_payer.ref, p_record, p_actor_kind, p_actor_id, p_actor_name,
            v_account.credits - v_account.debits, v_account.version, v_now);
  END LOOP;
  IF v_left > 0 THEN
    RAISE EXCEPTION 'too little credit' USING errcode = 'P0402', detail = (p_amount - v_left)::text;
  END IF;
END $$;
