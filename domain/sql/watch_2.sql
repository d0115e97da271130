-- watch_balance_2(): as watch_balance_1, and cheaper for the many workspaces without auto top-up: whether it is on is read with the balance, in one statement.
CREATE OR REPLACE FUNCTION watch_balance_2() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  c_low CONSTANT bigint := 5000000;  -- domain.usage.notices.LOW_MICROUSD
  v_now timestamptz := clock_timestamp();
  v_balance bigint;
  v_held bigint;
  v_tops_up boolean;
  v_kind text;
BEGIN
  -- cash, and the grants that are open: an end user's wallet is not the workspace's to spend
  SELECT coalesce(sum(x.credits - x.debits), 0), coalesce(sum(x.held), 0),
         (SELECT d.enabled AND d.pending_id IS NULL FROM auto_top_up d WHERE d.workspace_id = NEW.workspace_id) INTO v_balance, v_held, v_tops_up
    FROM (SELECT a.credits, a.debits, a.held FROM account a WHERE a.workspace_id = NEW.workspace_id AND a.kind = 'cash'
           UNION ALL
          SELECT a.credits, a.debits, a.held FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
           WHERE g.workspace_id = NEW.workspace_id AND g.closed_at IS NULL) x;
  IF v_tops_up AND NEW.debits > OLD.debits THEN
    UPDATE auto_top_up t SET owed_at = v_now
     WHERE t.workspace_id = (SELECT d.workspace_id FROM auto_top_up d
                              WHERE d.workspace_id = NEW.workspace_id AND d.enabled AND d.pending_id IS NULL AND d.threshold_microusd > greatest(v_balance - v_held, 0)
                                AND (d.tried_at IS NULL OR d.tried_at + make_interval(secs => d.cooldown_seconds) <= v_now)
                                AND (d.owed_at IS NULL OR d.owed_at <= v_now - interval '30 seconds') FOR NO KEY UPDATE SKIP LOCKED);
    IF FOUND THEN
      v_kind := 'auto_top_up';
      INSERT INTO job (id, workspace_id, kind, payload, status, tries, next_at, created_at) VALUES (uuidv7(), NEW.workspace_id, v_kind, '{}', 'queued', 0, v_now, v_now);
    END IF;
  END IF;
  IF v_balance < c_low AND NEW.debits > OLD.debits THEN
    UPDATE balance_watch w SET armed = false WHERE w.workspace_id = NEW.workspace_id AND w.armed;
    IF FOUND THEN
      v_kind := 'low_balance';
      INSERT INTO job (id, workspace_id, kind, payload, status, tries, next_at, created_at) VALUES (uuidv7(), NEW.workspace_id, v_kind, '{}', 'queued', 0, v_now, v_now);
    END IF;
  ELSIF v_balance >= c_low AND NEW.credits > OLD.credits THEN
    INSERT INTO balance_watch (workspace_id, armed) VALUES (NEW.workspace_id, true) ON CONFLICT (workspace_id) DO UPDATE SET armed = true WHERE NOT balance_watch.armed;
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER watch_balance AFTER UPDATE ON account FOR EACH ROW
  WHEN (NEW.kind IN ('cash', 'grant') AND (NEW.debits > OLD.debits OR NEW.credits > OLD.credits)) EXECUTE FUNCTION watch_balance_2();
