-- move_1(...): as post_1, between two accounts that are named by their ids, because a workspace has many of a kind: grants, wallets.
-- The caller holds the workspace's money lock: the row of its cash account.
CREATE OR REPLACE FUNCTION move_1(p_workspace uuid, p_kind text, p_ref text, p_debit uuid, p_credit uuid, p_amount bigint,
                                  p_reason text, p_actor_kind text, p_actor_id uuid, p_actor_name text)
RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_id uuid;
  v_debit account;
  v_credit account;
BEGIN
  SELECT t.id INTO v_id FROM transfer t WHERE t.workspace_id = p_workspace AND t.kind = p_kind AND t.ref = p_ref;
  IF FOUND THEN
    RETURN v_id;
  END IF;
  SELECT * INTO STRICT v_debit FROM account a WHERE a.workspace_id = p_workspace AND a.id = p_debit;
  SELECT * INTO STRICT v_credit FROM account a WHERE a.workspace_id = p_workspace AND a.id = p_credit;
  IF v_debit.kind IN ('cash', 'grant', 'wallet') THEN
    IF v_debit.credits - v_debit.debits - v_debit.held - v_debit.floor < p_amount THEN
      RAISE EXCEPTION 'too little credit' USING errcode = 'P0402', detail = greatest(v_debit.credits - v_debit.debits - v_debit.held - v_debit.floor, 0)::text;
    END IF;
    UPDATE account a SET debits = a.debits + p_amount, version = a.version + 1, updated_at = v_now
     WHERE a.workspace_id = p_workspace AND a.id = v_debit.id RETURNING * INTO v_debit;
  END IF;
  IF v_credit.kind IN ('cash', 'grant', 'wallet') THEN
    UPDATE account a SET credits = a.credits + p_amount, version = a.version + 1, updated_at = v_now,
           floor = least(0, greatest(a.floor, a.credits - a.debits + p_amount))
     WHERE a.workspace_id = p_workspace AND a.id = v_credit.id RETURNING * INTO v_credit;
  END IF;
  v_id := uuidv7();
  INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, reason, actor_kind, actor_id, actor_name,
                        debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
  VALUES (p_workspace, v_id, v_debit.id, v_credit.id, p_amount, p_kind, p_ref, p_reason, p_actor_kind, p_actor_id, p_actor_name,
          CASE WHEN v_debit.kind IN ('cash', 'grant', 'wallet') THEN v_debit.credits - v_debit.debits END,
          CASE WHEN v_debit.kind IN ('cash', 'grant', 'wallet') THEN v_debit.version END,
          CASE WHEN v_credit.kind IN ('cash', 'grant', 'wallet') THEN v_credit.credits - v_credit.debits END,
          CASE WHEN v_credit.kind IN ('cash', 'grant', 'wallet') THEN v_credit.version END, v_now);
  RETURN v_id;
END $$;
