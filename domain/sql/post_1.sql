-- post_1(...): move an amount between two accounts of a workspace, once for each (kind, ref).
--
-- A spendable account that loses money may not fall below its floor, unless `lower_floor` (refunds, disputes, operator corrections), which takes the
-- floor down with it; what comes in lifts a lowered floor again, so that a debt is paid first. Raises P0402 when there is too little, with
-- what there is as its detail.
-- Answers the transfer's id, and whether it was booked before.
CREATE OR REPLACE FUNCTION post_1(p_workspace uuid, p_kind text, p_ref text, p_debit text, p_credit text, p_amount bigint, p_lower_floor boolean,
                                  p_reason text, p_actor_kind text, p_actor_id uuid, p_actor_name text, p_call uuid,
                                  OUT transfer_id uuid, OUT replayed boolean)
LANGUAGE plpgsql AS $$
DECLARE
  v_now timestamptz := clock_timestamp();
  v_debit account;
  v_credit account;
BEGIN
  PERFORM FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'cash' FOR NO KEY UPDATE;
  SELECT t.id INTO transfer_id FROM transfer t WHERE t.workspace_id = p_workspace AND t.kind = p_kind AND t.ref = p_ref;
  replayed := FOUND;
  IF replayed THEN
    RETURN;
  END IF;
  SELECT * INTO STRICT v_debit FROM account a WHERE a.workspace_id = p_workspace AND a.kind = p_debit;
  SELECT * INTO STRICT v_credit FROM account a WHERE a.workspace_id = p_workspace AND a.kind = p_credit;
  IF v_debit.kind IN ('cash', 'grant', 'wallet') THEN
    IF NOT p_lower_floor AND v_debit.credits - v_debit.debits - v_debit.held - v_debit.floor < p_amount THEN
      RAISE EXCEPTION 'too little credit' USING errcode = 'P0402', detail = greatest(v_debit.credits - v_debit.debits - v_debit.held - v_debit.floor, 0)::text;
    END IF;
    UPDATE account a SET debits = a.debits + p_amount, version = a.version + 1, updated_at = v_now,
           floor = CASE WHEN p_lower_floor THEN least(a.floor, a.credits - a.debits - p_amount) ELSE a.floor END
     WHERE a.workspace_id = p_workspace AND a.id = v_debit.id RETURNING * INTO v_debit;
  END IF;
  IF v_credit.kind IN ('cash', 'grant', 'wallet') THEN
    UPDATE account a SET credits = a.credits + p_amount, version = a.version + 1, updated_at = v_now,
           floor = least(0, greatest(a.floor, a.credits - a.debits + p_amount))
     WHERE a.workspace_id = p_workspace AND a.id = v_credit.id RETURNING * INTO v_credit;
  END IF;
  transfer_id := uuidv7();
  INSERT INTO transfer (workspace_id, id, debit_id, credit_id, amount, kind, ref, call_id, reason, actor_kind, actor_id, actor_name,
                        debit_balance_after, debit_seq, credit_balance_after, credit_seq, created_at)
  VALUES (p_workspace, transfer_id, v_debit.id, v_credit.id, p_amount, p_kind, p_ref, p_call, p_reason, p_actor_kind, p_actor_id, p_actor_name,
          CASE WHEN v_debit.kind IN ('cash', 'grant', 'wallet') THEN v_debit.credits - v_debit.debits END,
          CASE WHEN v_debit.kind IN ('cash', 'grant', 'wallet') THEN v_debit.version END,
          CASE WHEN v_credit.kind IN ('cash', 'grant', 'wallet') THEN v_credit.credits - v_credit.debits END,
          CASE WHEN v_credit.kind IN ('cash', 'grant', 'wallet') THEN v_credit.version END, v_now);
END $$;
