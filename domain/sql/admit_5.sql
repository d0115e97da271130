-- admit_5(calls, wait): as admit_4, whose helpers it uses, and besides: the bounds of a call are looked for by its own subjects (workspace, key, person, app, client token,
-- end user), so that a workspace with a hundred thousand tokens, each with bounds of its own, admits as fast as one with none.
CREATE OR REPLACE FUNCTION admit_5(p_calls jsonb, p_wait boolean)
RETURNS TABLE (n int, verdict text, workspace_id uuid, key_id uuid, hold_microusd bigint, output bigint, clamped boolean, payer text,
               available_microusd bigint, required_microusd bigint, bound text, quota boolean, passes boolean, resets_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_items admission_4[];
  v_demands bound_demand_2[];
  v_quotas boolean;
  v_locked uuid[];
  v_hard uuid[] := '{}';
  v_item admission_4;
  v_demand bound_demand_2;
  v_first int;
  v_last int := 0;
  v_window record;
  v_span record;
  v_left bigint;
  v_need bigint;
  v_allowed bigint;
  v_whole bigint;
  v_tokens bigint;
  v_limit text;
  v_money text;
  v_new boolean;
  v_account account;
  v_wallet account;
  v_more bigint;
  v_least bigint;
  v_grants uuid[];
  v_spendable bigint[];
BEGIN
  -- Who calls. The key is proved here and nowhere else: what is revoked by now does not pass. A client token stands on the key that made it, or on
  -- the member: whatever these may not do, it may not. What only tokens or end users need is looked up for those alone.
  SELECT array_agg(ROW(c.n, c.id, w.id, k.id, CASE WHEN t.id IS NOT NULL AND t.key_id IS NULL THEN t.user_id WHEN k.creator_kind = 'user' THEN k.creator_id END,
           CASE WHEN t.member THEN 'pay_per_token' ELSE k.kind END, CASE WHEN t.member THEN 'live' ELSE k.mode END, w.default_timezone,
           w.has_grants, w.overage_allowed,
           CASE
             WHEN c.client_token_id IS NOT NULL AND (t.id IS NULL OR t.revoked_at IS NOT NULL OR t.expires_at <= v_now OR k.id IS NULL AND NOT t.member
               OR t.app_id IS NOT NULL AND t.markup IS NULL) THEN 'unknown_token'
             WHEN t.suspended_at IS NOT NULL THEN 'suspended'
             WHEN k.id IS NULL AND t.member IS NOT TRUE OR s.works_until <= v_now THEN 'unknown_key'
             WHEN k.revoked_at IS NOT NULL THEN 'revoked_key'
             WHEN k.expires_at <= v_now THEN 'expired_key'
             WHEN NOT 'inference' = ANY (k.scopes) THEN 'scope'
             WHEN w.stopped_at IS NOT NULL THEN 'stopped'
             WHEN w.frozen_at IS NOT NULL AND k.mode = 'live' THEN 'frozen'
             WHEN c.road = 'generic' AND k.kind <> 'pay_per_token' THEN 'kind'
             WHEN k.kind = 'subscription' AND NOT EXISTS (SELECT FROM subscription o WHERE o.workspace_id = k.workspace_id AND entitled_1(o, v_now)) THEN 'no_subscription'
             WHEN k.kind = 'subscription' AND NOT EXISTS (
               SELECT FROM subscription o JOIN tier t ON t.slug = o.tier WHERE o.workspace_id = k.workspace_id AND entitled_1(o, v_now)
                  AND (t.presets IS NULL OR split_part(c.endpoint, '/', 2) = ANY (t.presets))) THEN 'preset'
             WHEN k.mode = 'test' AND NOT c.echo THEN 'test_key'
             WHEN u.blocked_at IS NOT NULL THEN 'blocked'
             WHEN t.allowed_models IS NOT NULL AND NOT (c.requested_model = ANY (t.allowed_models) OR c.candidates <@ t.allowed_models) THEN 'model'
             WHEN t.allowed_origins IS NOT NULL AND NOT coalesce(c.origin = ANY (t.allowed_origins), false) THEN 'origin'
             WHEN k.allowed_models IS NOT NULL AND NOT (c.requested_model = ANY (k.allowed_models) OR c.candidates <@ k.allowed_models) THEN 'model'
             WHEN k.allowed_origins IS NOT NULL AND NOT coalesce(c.origin = ANY (k.allowed_origins), false) THEN 'origin'
             WHEN k.allowed_addresses IS NOT NULL
               AND NOT EXISTS (SELECT FROM unnest(k.allowed_addresses) a WHERE c.address::inet <<= a::inet) THEN 'address'
           END,
           CASE WHEN k.mode <> 'live' OR w.id IS NULL THEN NULL WHEN k.kind = 'subscription' THEN 'quota'
                WHEN c.input_picousd > 0 OR c.output_picousd > 0 THEN CASE WHEN t.end_user IS NOT NULL AND u.wallet_id IS NOT NULL THEN 'wallet' ELSE 'cash' END END,
           NULL, c.instalment, c.max_output, c.input_tokens, c.input_picousd, c.output_picousd,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL,
           c.candidates, c.requested_model, CASE WHEN t.id IS NULL THEN c.app_id ELSE t.app_id END, coalesce(t.end_user, c.end_user), u.id, coalesce(u.newly_seen, false),
           CASE WHEN t.end_user IS NOT NULL THEN u.wallet_id END, t.markup, e.value)::admission_4 ORDER BY c.n)
    INTO v_items
    FROM jsonb_array_elements(p_calls) e,
         LATERAL jsonb_to_record(e.value) AS c (n int, id uuid, hash text, token_workspace_id uuid, client_token_id uuid, road text, endpoint text, echo boolean, candidates text[],
           requested_model text, origin text, address text, instalment bigint, max_output bigint, input_tokens bigint, input_picousd bigint, output_picousd bigint,
           app_id uuid, end_user text)
    LEFT JOIN api_key_secret s ON s.hash = c.hash
    LEFT JOIN LATERAL (
      SELECT t.*, m.user_id, m.id IS NOT NULL AS member, p.suspended_at, p.wallet_markup AS markup
        FROM client_token t
        LEFT JOIN member m ON t.key_id IS NULL AND t.creator_kind = 'user' AND m.workspace_id = t.workspace_id AND m.user_id = t.creator_id
              AND m.joined_at IS NOT NULL AND m.removed_at IS NULL AND m.role IN ('owner', 'admin', 'developer')
        LEFT JOIN app p ON p.workspace_id = t.workspace_id AND p.id = t.app_id AND p.deleted_at IS NULL
       WHERE c.client_token_id IS NOT NULL AND t.workspace_id = c.token_workspace_id AND t.id = c.client_token_id OFFSET 0) t ON true
    LEFT JOIN api_key k ON k.workspace_id = coalesce(s.workspace_id, t.workspace_id) AND k.id = coalesce(s.key_id, t.key_id)
    LEFT JOIN workspace w ON w.id = coalesce(s.workspace_id, t.workspace_id)
    LEFT JOIN LATERAL (
      SELECT y.id, o.blocked_at, o.wallet_id, o.last_seen_at IS NULL OR o.last_seen_at < v_now - interval '1 minute' AS newly_seen
        FROM (SELECT end_user_id_1(w.id, CASE WHEN t.id IS NULL THEN c.app_id ELSE t.app_id END, coalesce(t.end_user, c.end_user)) AS id OFFSET 0) y
        LEFT JOIN end_user o ON o.workspace_id = w.id AND o.id = y.id
       WHERE coalesce(t.end_user, c.end_user) IS NOT NULL AND w.id IS NOT NULL OFFSET 0) u ON true;

  -- A call that was sent twice, because nobody knew whether the first commit arrived, keeps its first hold.
  IF EXISTS (SELECT FROM jsonb_array_elements(p_calls) e WHERE (e.value ->> 'again')::boolean) THEN
    SELECT array_agg(CASE WHEN i.verdict IS NULL AND h.call_id IS NOT NULL
             THEN ROW(i.n, i.id, i.workspace_id, i.key_id, i.user_id, i.key_kind, i.mode, i.zone, i.granted, i.overage, 'admitted', h.payer, h.account_id, i.instalment,
                      i.max_output, i.input_tokens, i.input_picousd, i.output_picousd, h.amount + coalesce((SELECT sum(p) FROM unnest(h.part_amounts) p), 0)::bigint,
                      h.amount, h.part_ids, h.part_amounts, h.held_output, c.clamp_reason, NULL, NULL, NULL, false, false, NULL,
                      NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, NULL)::admission_4
             ELSE i END ORDER BY i.n)
      INTO v_items
      FROM unnest(v_items) i
      LEFT JOIN hold h ON h.workspace_id = i.workspace_id AND h.call_id = i.id
      LEFT JOIN "call" c ON c.workspace_id = i.workspace_id AND c.id = i.id;
  END IF;

  -- What bounds it.
  SELECT array_agg(ROW(i.n, i.workspace_id, b.id,
           CASE b.per WHEN 'end_user' THEN coalesce(i.end_user, '') WHEN 'address' THEN coalesce(i.call ->> 'address', '') ELSE '' END,
           b.measure, b.most, b."window", i.zone, false, NULL, NULL)::bound_demand_2 ORDER BY i.n, b.position, b.id)
    INTO v_demands
    FROM unnest(v_items) i
    CROSS JOIN LATERAL (SELECT ARRAY[i.workspace_id, i.key_id, i.app_id, (i.call ->> 'client_token_id')::uuid, i.end_user_id]
             || CASE WHEN i.user_id IS NOT NULL THEN ARRAY(SELECT m.id FROM member m WHERE m.workspace_id = i.workspace_id AND m.user_id = i.user_id) END AS ids OFFSET 0) s
    CROSS JOIN LATERAL (SELECT * FROM bound b WHERE b.workspace_id = i.workspace_id AND b.subject_id = ANY (s.ids) AND b.removed_at IS NULL OFFSET 0) b
   WHERE i.verdict IS NULL
     AND (b.model IS NULL OR b.model = i.requested_model OR b.model = ANY (i.candidates))
     AND CASE b.subject_kind WHEN 'workspace' THEN b.subject_id = i.workspace_id WHEN 'key' THEN b.subject_id = i.key_id WHEN 'member' THEN i.user_id IS NOT NULL AND b.subject_id = ANY (s.ids[6:])
           WHEN 'app' THEN b.subject_id = i.app_id WHEN 'client_token' THEN b.subject_id = (i.call ->> 'client_token_id')::uuid
           WHEN 'end_user' THEN b.subject_id = i.end_user_id ELSE false END;
  v_quotas := EXISTS (SELECT FROM unnest(v_items) i WHERE i.verdict IS NULL AND i.payer = 'quota');
  IF v_quotas THEN
    SELECT array_agg(ROW(d.n, d.workspace_id, d.bound_id, d.scope, d.measure, d.most, d.span, d.zone, d.quota, d.begins, d.ends)::bound_demand_2
             ORDER BY d.n, d.quota, d.place) INTO v_demands
      FROM (SELECT b.* FROM unnest(v_demands) WITH ORDINALITY AS b (n, workspace_id, bound_id, scope, measure, most, span, zone, quota, begins, ends, place)
            UNION ALL
            SELECT i.n, i.workspace_id, q.bound_id, '', q.measure, coalesce(q.most, 4611686018427387903), q.span, i.zone, true, q.begins, q.ends,
                   row_number() OVER (ORDER BY q.measure, q.span)
              FROM unnest(v_items) i CROSS JOIN LATERAL quotas_1(i.workspace_id, v_now) q
             WHERE i.verdict IS NULL AND i.payer = 'quota' AND q.measure IS NOT NULL) d;
  END IF;

  -- The locks, in id order. A call that costs nothing and that nothing bounds takes none.
  IF p_wait THEN
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (
        SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND (i.payer IN ('cash', 'wallet') OR i.workspace_id IN (SELECT d.workspace_id FROM unnest(v_demands) d)))
      ORDER BY a.workspace_id FOR NO KEY UPDATE) l;
  ELSE
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (
        SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND (i.payer IN ('cash', 'wallet') OR i.workspace_id IN (SELECT d.workspace_id FROM unnest(v_demands) d)))
      ORDER BY a.workspace_id FOR NO KEY UPDATE SKIP LOCKED) l;
  END IF;

  v_now := clock_timestamp();  -- the locks may have been waited for: a hold lives from here, and a window may be over meanwhile

  -- The full demand of each: the whole worst case, or for a longer stream the input and a first instalment of output. Who owes the service is let in
  -- to nothing, free models among it, but to what a subscription paid for.
  SELECT array_agg(ROW(i.n, i.id, i.workspace_id, i.key_id, i.user_id, i.key_kind, i.mode, i.zone, i.granted, i.overage,
           CASE WHEN i.verdict IS NULL AND (i.payer IN ('cash', 'wallet') OR bounded.yes) AND NOT i.workspace_id = ANY (coalesce(v_locked, '{}')) THEN 'busy'
                WHEN i.verdict IS NULL AND i.payer IS NULL AND i.mode = 'live' AND a.credits < a.debits THEN 'insufficient' ELSE i.verdict END,
           i.payer, CASE WHEN i.verdict = 'admitted' THEN i.account_id WHEN i.payer IN ('cash', 'wallet') THEN a.id END,
           i.instalment, i.max_output, i.input_tokens, i.input_picousd, i.output_picousd,
           x.demand, CASE WHEN i.verdict = 'admitted' THEN i.amount ELSE x.demand END, i.part_ids, i.part_amounts,
           CASE WHEN i.verdict = 'admitted' THEN i.output ELSE least(i.max_output, i.instalment) END,
           i.clamp, a.credits - a.debits - a.held - a.floor, CASE WHEN a.credits < a.debits THEN a.debits - a.credits END, NULL, false, false, NULL,
           i.candidates, i.requested_model, i.app_id, i.end_user, i.end_user_id, i.newly_seen, i.wallet_id, i.markup, i.call)::admission_4 ORDER BY i.n)
    INTO v_items
    FROM unnest(v_items) i
    LEFT JOIN account a ON a.workspace_id = i.workspace_id AND a.kind = 'cash'
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM unnest(v_demands) d WHERE d.n = i.n) AS yes) bounded
    CROSS JOIN LATERAL (SELECT CASE WHEN i.verdict = 'admitted' THEN i.demand
                                    WHEN i.payer IN ('cash', 'wallet') THEN demand_1(i.input_picousd, i.output_picousd, least(i.max_output, i.instalment)) ELSE 0 END AS demand) x;

  IF v_demands IS NOT NULL THEN
    IF v_quotas THEN
      INSERT INTO bound (workspace_id, id, subject_kind, subject_id, measure, "window", most, per, position, created_at, removed_at)
      SELECT DISTINCT d.workspace_id, d.bound_id, 'subscriptions', d.workspace_id, d.measure, d.span, 0::bigint, 'together', 0, v_now, v_now
        FROM unnest(v_demands) d WHERE d.quota AND d.workspace_id = ANY (v_locked)
         AND NOT EXISTS (SELECT FROM bound b WHERE b.workspace_id = d.workspace_id AND b.id = d.bound_id)
          ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO bound_window (workspace_id, bound_id, scope, spent, held)
    SELECT DISTINCT d.workspace_id, d.bound_id, d.scope, 0::bigint, 0::bigint FROM unnest(v_demands) d WHERE d.workspace_id = ANY (v_locked)
        ON CONFLICT DO NOTHING;
  END IF;

  -- Which workspaces cannot have all that they ask for, or must be asked call by call.
  SELECT array_agg(DISTINCT x.workspace_id) INTO v_hard FROM (
    SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND i.payer IN ('cash', 'wallet') GROUP BY i.workspace_id
    HAVING sum(i.demand) > min(i.available) OR bool_or(i.granted) OR bool_or(i.payer = 'wallet')
    UNION ALL
    SELECT d.workspace_id FROM unnest(v_demands) d JOIN unnest(v_items) i ON i.n = d.n AND i.verdict IS NULL
      JOIN bound_window w ON w.workspace_id = d.workspace_id AND w.bound_id = d.bound_id AND w.scope = d.scope
     GROUP BY d.workspace_id, d.bound_id, d.scope
    HAVING bool_or(d.measure = 'conversations')
        OR sum(bound_amount_2(d.measure, i.demand, CASE d.measure WHEN 'list' THEN demand_1(i.input_picousd, i.output_picousd, i.output) END, i.input_tokens, i.output))
         > min(d.most - w.held - CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END)
  ) x;
  v_hard := coalesce(v_hard, '{}');

  -- Where everything fits: set by set.
  UPDATE account a SET held = a.held + x.demand, updated_at = v_now
    FROM (SELECT i.workspace_id, i.account_id, sum(i.demand)::bigint AS demand FROM unnest(v_items) i
           WHERE i.verdict IS NULL AND i.payer = 'cash' AND NOT i.workspace_id = ANY (v_hard) GROUP BY 1, 2) x
   WHERE a.workspace_id = x.workspace_id AND a.id = x.account_id;
  IF v_demands IS NOT NULL THEN
    UPDATE bound_window w
       SET started_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN coalesce(x.begins, x.opens) ELSE w.started_at END,
           ends_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN coalesce(x.ends, x.closes) ELSE w.ends_at END,
           spent = CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END + CASE WHEN x.measure = 'calls' THEN x.amount ELSE 0 END,
           held = w.held + CASE WHEN x.measure = 'calls' THEN 0 ELSE x.amount END
      FROM (SELECT y.*, s.begins AS opens, s.ends AS closes
              FROM (SELECT d.workspace_id, d.bound_id, d.scope, min(d.measure) AS measure, min(d.span) AS span, min(d.zone) AS zone, min(d.begins) AS begins, min(d.ends) AS ends,
                           sum(bound_amount_2(d.measure, i.demand, CASE d.measure WHEN 'list' THEN demand_1(i.input_picousd, i.output_picousd, i.output) END,
                                              i.input_tokens, i.output))::bigint AS amount
                      FROM unnest(v_demands) d JOIN unnest(v_items) i ON i.n = d.n AND i.verdict IS NULL AND NOT i.workspace_id = ANY (v_hard)
                     GROUP BY 1, 2, 3) y,
                   LATERAL window_1(y.span, y.zone, v_now) s) x
     WHERE w.workspace_id = x.workspace_id AND w.bound_id = x.bound_id AND w.scope = x.scope;
  END IF;

  -- Where it does not: call by call, in order of arrival.
  IF v_hard <> '{}' THEN
    FOR v_index IN 1 .. array_length(v_items, 1) LOOP
      v_item := v_items[v_index];
      CONTINUE WHEN v_item.verdict IS NOT NULL OR NOT v_item.workspace_id = ANY (v_hard);
      v_first := v_last + 1;  -- its own demands: both arrays are in order of arrival
      WHILE v_last < coalesce(array_length(v_demands, 1), 0) AND (v_demands[v_last + 1]).n <= v_item.n LOOP
        v_last := v_last + 1;
        IF (v_demands[v_last]).n < v_item.n THEN
          v_first := v_last + 1;
        END IF;
      END LOOP;
      v_need := demand_1(v_item.input_picousd, v_item.output_picousd, v_item.output);

      -- A quota that does not cover the whole of it leaves it to cash, where that is allowed.
      IF v_item.payer = 'quota' AND v_item.overage THEN
        FOREACH v_demand IN ARRAY coalesce(v_demands[v_first:v_last], '{}') LOOP
          CONTINUE WHEN NOT v_demand.quota;
          SELECT w.*, CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END AS now_spent INTO v_window FROM bound_window w
           WHERE w.workspace_id = v_demand.workspace_id AND w.bound_id = v_demand.bound_id AND w.scope = v_demand.scope;
          IF v_demand.most - v_window.now_spent - v_window.held < (CASE v_demand.measure
               WHEN 'conversations' THEN new_conversation_1(v_item.workspace_id, v_demand.bound_id, v_item.call ->> 'conversation', v_window.started_at, v_window.ends_at, v_now)
               ELSE bound_amount_2(v_demand.measure, 0, v_need, v_item.input_tokens, v_item.output) END) THEN
            v_item.payer := CASE WHEN v_need = 0 THEN NULL WHEN v_item.wallet_id IS NULL THEN 'cash' ELSE 'wallet' END;
            EXIT;
          END IF;
        END LOOP;
        IF v_item.payer IS DISTINCT FROM 'quota' THEN
          FOR v_place IN v_first .. v_last LOOP
            IF (v_demands[v_place]).quota THEN
              v_demands[v_place].n := -1;  -- it is nobody's any more
            END IF;
          END LOOP;
        END IF;
      END IF;

      v_allowed := NULL;  -- microdollars; null means unbounded
      v_money := 'balance';
      v_tokens := NULL;   -- output tokens that bounds leave
      v_grants := NULL;
      IF v_item.payer IN ('cash', 'wallet') THEN
        SELECT * INTO v_account FROM account a WHERE a.workspace_id = v_item.workspace_id AND a.kind = 'cash';
        v_item.account_id := v_account.id;
        v_allowed := greatest(v_account.credits - v_account.debits - v_account.held - v_account.floor, 0);
        v_whole := v_account.credits - v_account.debits - v_account.floor;
        IF v_item.payer = 'wallet' THEN
          SELECT * INTO v_wallet FROM account a WHERE a.workspace_id = v_item.workspace_id AND a.id = v_item.wallet_id;
          v_left := greatest(v_wallet.credits - v_wallet.debits - v_wallet.held - v_wallet.floor, 0);
          v_whole := CASE WHEN v_account.credits < v_account.debits THEN 0
                          ELSE wallet_covers_1(v_wallet.credits - v_wallet.debits - v_wallet.floor, v_whole, v_item.markup) END;
          v_allowed := CASE WHEN v_account.credits < v_account.debits THEN 0 ELSE wallet_covers_1(v_left, v_allowed, v_item.markup) END;
        ELSIF v_item.granted AND v_item.key_kind = 'pay_per_token' AND v_account.credits >= v_account.debits THEN
          SELECT array_agg(x.id ORDER BY x.place), array_agg(x.spendable ORDER BY x.place), v_allowed + coalesce(sum(x.spendable), 0), v_whole + coalesce(sum(x.balance), 0)
            INTO v_grants, v_spendable, v_allowed, v_whole
            FROM (SELECT a.id, a.credits - a.debits - a.held AS spendable, a.credits - a.debits AS balance, row_number() OVER (ORDER BY g.priority, g.expires_at, g.id) AS place
                    FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
                   WHERE g.workspace_id = v_item.workspace_id AND g.closed_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > v_now)
                     AND (g.models IS NULL OR v_item.requested_model = ANY (g.models) OR v_item.candidates <@ g.models)
                     AND (g.apps IS NULL OR v_item.app_id = ANY (g.apps)) AND a.credits > a.debits) x;
        END IF;
        v_item.available := CASE v_item.payer WHEN 'wallet' THEN v_left ELSE v_allowed END;
      END IF;
      FOREACH v_demand IN ARRAY coalesce(v_demands[v_first:v_last], '{}') LOOP
        CONTINUE WHEN v_demand.n < 0;
        SELECT w.*, CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END AS now_spent INTO v_window FROM bound_window w
         WHERE w.workspace_id = v_demand.workspace_id AND w.bound_id = v_demand.bound_id AND w.scope = v_demand.scope;
        v_left := v_demand.most - v_window.now_spent - v_window.held;
        v_need := CASE v_demand.measure WHEN 'tokens' THEN v_item.input_tokens + least(v_item.output, 1)
                    WHEN 'money' THEN CASE WHEN v_item.payer IN ('cash', 'wallet') THEN demand_1(v_item.input_picousd, v_item.output_picousd, least(v_item.output, 1)) ELSE 0 END
                    WHEN 'list' THEN demand_1(v_item.input_picousd, v_item.output_picousd, least(v_item.output, 1))
                    WHEN 'conversations' THEN new_conversation_1(v_item.workspace_id, v_demand.bound_id, v_item.call ->> 'conversation',
                                                                 v_window.started_at, v_window.ends_at, v_now)
                    ELSE 1 END;
        IF v_left < v_need AND v_need > 0 THEN
          v_item.verdict := 'bound';
          v_item.bound := v_demand.measure || ' in ' || v_demand.span;
          v_item.quota := v_demand.quota;
          v_item.passes := v_left + v_window.held >= v_need;
          v_item.resets_at := CASE WHEN v_window.ends_at > v_now THEN v_window.ends_at END;
          EXIT;
        END IF;
        IF v_demand.measure = 'money' AND v_item.payer IN ('cash', 'wallet') AND v_left < v_allowed THEN
          v_allowed := v_left;
          v_money := 'budget';
        ELSIF v_demand.measure = 'tokens' AND (v_tokens IS NULL OR v_left - v_item.input_tokens < v_tokens) THEN
          v_tokens := v_left - v_item.input_tokens;
          v_limit := 'quota';
        ELSIF v_demand.measure = 'list' AND v_item.output_picousd > 0 THEN
          v_need := affordable_1(v_left, v_item.input_picousd, v_item.output_picousd, v_item.output);
          IF v_tokens IS NULL OR v_need < v_tokens THEN
            v_tokens := v_need;
            v_limit := 'quota';
          END IF;
        END IF;
      END LOOP;
      IF v_item.verdict IS NULL THEN
        IF v_tokens IS NOT NULL AND v_tokens < v_item.output THEN
          v_item.output := v_tokens;
          v_item.clamp := v_limit;
        END IF;
        v_item.demand := 0;
        IF v_item.payer IN ('cash', 'wallet') THEN
          v_item.demand := demand_1(v_item.input_picousd, v_item.output_picousd, v_item.output);
          IF v_item.demand > v_allowed THEN
            v_least := demand_1(v_item.input_picousd, v_item.output_picousd, least(v_item.output, 1));
            IF v_least > v_allowed THEN
              v_item.verdict := CASE WHEN v_least <= v_whole THEN 'held' ELSE 'insufficient' END;
              v_item.required := v_least;
              IF v_item.payer = 'wallet' AND ceil(v_least * v_item.markup) > v_item.available THEN
                v_item.required := ceil(v_least * v_item.markup);  -- what the end user must have
              ELSIF v_item.payer = 'wallet' THEN
                v_item.available := v_allowed;  -- it is the workspace that lacks its part
              END IF;
            ELSE
              v_item.output := affordable_1(v_allowed, v_item.input_picousd, nullif(v_item.output_picousd, 0), v_item.output);
              v_item.demand := demand_1(v_item.input_picousd, v_item.output_picousd, v_item.output);
              v_item.clamp := v_money;
            END IF;
          END IF;
        END IF;
        v_item.amount := v_item.demand;
      END IF;
      IF v_item.verdict IS NULL THEN
        IF v_item.payer IN ('cash', 'wallet') THEN
          IF v_item.payer = 'wallet' THEN
            v_more := ceil(v_item.demand * v_item.markup);
            v_item.part_ids := ARRAY[v_item.wallet_id];
            v_item.part_amounts := ARRAY[v_more];
            v_item.amount := greatest(v_item.demand - floor(v_item.demand * v_item.markup), 0);
            UPDATE account a SET held = a.held + v_more, updated_at = v_now
             WHERE a.workspace_id = v_item.workspace_id AND a.id = v_item.wallet_id AND (v_more = 0 OR a.credits - a.debits - a.held - a.floor >= v_more);
            IF NOT FOUND THEN
              RAISE EXCEPTION 'wallet % cannot hold %', v_item.wallet_id, v_more USING errcode = '55000';
            END IF;
          END IF;
          IF v_grants IS NOT NULL THEN
            SELECT nullif(array_agg(x.id ORDER BY x.place) FILTER (WHERE x.part > 0), '{}'), nullif(array_agg(x.part ORDER BY x.place) FILTER (WHERE x.part > 0), '{}'),
                   v_item.demand - coalesce(sum(x.part), 0)
              INTO v_item.part_ids, v_item.part_amounts, v_item.amount
              FROM (SELECT g.id, g.place, greatest(least(g.spendable, v_item.demand - coalesce(sum(g.spendable) OVER (ORDER BY g.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)), 0)::bigint AS part
                      FROM unnest(v_grants, v_spendable) WITH ORDINALITY AS g (id, spendable, place) WHERE g.spendable > 0) x;
            UPDATE account a SET held = a.held + p.part, updated_at = v_now FROM unnest(v_item.part_ids, v_item.part_amounts) AS p (id, part)
             WHERE a.workspace_id = v_item.workspace_id AND a.id = p.id;
          END IF;
          UPDATE account a SET held = a.held + v_item.amount, updated_at = v_now
           WHERE a.workspace_id = v_item.workspace_id AND a.id = v_item.account_id AND (v_item.amount = 0 OR a.credits - a.debits - a.held - a.floor >= v_item.amount);
          IF NOT FOUND THEN
            RAISE EXCEPTION 'account % cannot hold %', v_item.account_id, v_item.amount USING errcode = '55000';
          END IF;
        END IF;
        FOREACH v_demand IN ARRAY coalesce(v_demands[v_first:v_last], '{}') LOOP
          CONTINUE WHEN v_demand.n < 0;
          SELECT * INTO v_span FROM window_1(v_demand.span, v_demand.zone, v_now);
          v_left := bound_amount_2(v_demand.measure, v_item.demand, demand_1(v_item.input_picousd, v_item.output_picousd, v_item.output), v_item.input_tokens, v_item.output);
          UPDATE bound_window w
             SET started_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN coalesce(v_demand.begins, v_span.begins) ELSE w.started_at END,
                 ends_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN coalesce(v_demand.ends, v_span.ends) ELSE w.ends_at END,
                 spent = CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END + CASE WHEN v_demand.measure = 'calls' THEN v_left ELSE 0 END,
                 held = w.held + CASE WHEN v_demand.measure IN ('calls', 'conversations') THEN 0 ELSE v_left END
           WHERE w.workspace_id = v_demand.workspace_id AND w.bound_id = v_demand.bound_id AND w.scope = v_demand.scope RETURNING w.started_at INTO v_window;
          IF v_demand.measure = 'conversations' AND v_item.call ->> 'conversation' IS NOT NULL THEN
            v_new := false;
            INSERT INTO quota_conversation AS o (workspace_id, bound_id, conversation, seen_at)
            VALUES (v_demand.workspace_id, v_demand.bound_id, v_item.call ->> 'conversation', v_now)
                ON CONFLICT (workspace_id, bound_id, conversation) DO UPDATE SET seen_at = excluded.seen_at WHERE o.seen_at < v_window.started_at
            RETURNING true INTO v_new;
            IF v_new THEN
              UPDATE bound_window w SET spent = w.spent + 1 WHERE w.workspace_id = v_demand.workspace_id AND w.bound_id = v_demand.bound_id AND w.scope = v_demand.scope;
            END IF;
          END IF;
        END LOOP;
      END IF;
      v_items[v_index] := v_item;
    END LOOP;
  END IF;

  -- The record of the call and its hold, durable with this statement's commit: no upstream hears of the call before.
  INSERT INTO "call" (workspace_id, id, key_id, key_kind, mode, user_id, client_token_id, app_id, end_user, conversation, language, tags, api_name, endpoint, dialect, preset,
                      requested_model, model, upstream, price_id, streamed, input_tokens, requested_max_output, granted_output, clamped, created_at,
                      route_reason, clamp_reason, idempotent)
  SELECT i.workspace_id, i.id, i.key_id, i.key_kind, i.mode, i.user_id, c.client_token_id, i.app_id, i.end_user, c.conversation, c.language, c.tags, c.api_name, c.endpoint,
         c.dialect, c.preset, i.requested_model, i.candidates[1], c.upstream, c.price_id, c.streamed, i.input_tokens, c.requested_max_output, i.output, i.clamp IS NOT NULL, c.created_at,
         c.route_reason, i.clamp, coalesce(c.idempotent, false)
    FROM unnest(v_items) i,
         LATERAL jsonb_to_record(i.call) AS c (client_token_id uuid, conversation text, language text, tags jsonb, api_name text, endpoint text,
           dialect text, preset text, upstream text, price_id uuid, streamed boolean, requested_max_output bigint, created_at timestamptz,
           route_reason text, idempotent boolean)
   WHERE i.verdict IS NULL;
  INSERT INTO hold (workspace_id, call_id, account_id, amount, part_ids, part_amounts, payer, state, held_output, extensions, bound_ids, bound_scopes, bound_held, bound_most,
                    expires_at, created_at, wallet_markup)
  SELECT i.workspace_id, i.id, i.account_id, i.amount, i.part_ids, i.part_amounts, i.payer, 'open', i.output, 0, b.ids, b.scopes, b.held, b.most,
         v_now + make_interval(secs => (i.call ->> 'hold_seconds')::int), v_now, CASE i.payer WHEN 'wallet' THEN i.markup END
    FROM unnest(v_items) i
    LEFT JOIN (SELECT d.n, array_agg(d.bound_id) AS ids, array_agg(d.scope) AS scopes,
                      array_agg(CASE WHEN d.measure IN ('calls', 'conversations') THEN 0
                        ELSE bound_amount_2(d.measure, x.demand, CASE d.measure WHEN 'list' THEN demand_1(x.input_picousd, x.output_picousd, x.output) END, x.input_tokens, x.output) END) AS held,
                      CASE WHEN bool_or(d.quota) THEN array_agg(CASE WHEN d.quota THEN d.most END) END AS most
                 FROM unnest(v_demands) d JOIN unnest(v_items) x ON x.n = d.n GROUP BY d.n) b ON b.n = i.n
   WHERE i.verdict IS NULL;

  -- Whom the calls name.
  IF EXISTS (SELECT FROM unnest(v_items) i WHERE i.verdict IS NULL AND i.newly_seen) THEN
    INSERT INTO end_user (workspace_id, id, app_id, external_id, first_seen_at, last_seen_at)
    SELECT DISTINCT i.workspace_id, i.end_user_id, i.app_id, i.end_user, v_now, v_now FROM unnest(v_items) i WHERE i.verdict IS NULL AND i.newly_seen ORDER BY 1, 2
        ON CONFLICT (workspace_id, id) DO NOTHING;
    UPDATE end_user o SET last_seen_at = v_now FROM (
      SELECT u.workspace_id, u.id FROM end_user u JOIN (SELECT DISTINCT i.workspace_id, i.end_user_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND i.newly_seen) x
          ON u.workspace_id = x.workspace_id AND u.id = x.end_user_id
       WHERE u.last_seen_at IS DISTINCT FROM v_now FOR NO KEY UPDATE OF u SKIP LOCKED) y
     WHERE o.workspace_id = y.workspace_id AND o.id = y.id;
  END IF;

  -- When a secret was last used, to within a minute; never worth waiting for.
  UPDATE api_key_secret s SET last_used_at = v_now
   WHERE s.hash IN (
     SELECT u.hash FROM api_key_secret u
      WHERE u.hash IN (SELECT i.call ->> 'hash' FROM unnest(v_items) i WHERE i.verdict IS NULL)
        AND (u.last_used_at IS NULL OR u.last_used_at < v_now - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED);

  RETURN QUERY SELECT i.n, coalesce(i.verdict, 'admitted'), i.workspace_id, i.key_id, i.demand, i.output, i.clamp IS NOT NULL, i.payer,
                      CASE WHEN i.payer = 'wallet' OR NOT i.call ? 'client_token_id' THEN greatest(i.available, 0) END,
                      CASE WHEN i.payer = 'wallet' OR NOT i.call ? 'client_token_id' THEN i.required END,  -- a browser is not told what its maker has
                      i.bound, i.quota, i.passes, i.resets_at
                 FROM unnest(v_items) i ORDER BY i.n;
END $$;
