-- admit_1(calls, wait): prove each call's key, set aside what it may cost, and make call and hold durable, in one statement.
--
-- `calls` is a JSON array in order of arrival. The cash account's row is the lock of everything its workspace spends: accounts are taken
-- in id order; without `wait` a locked one is skipped and its calls answer 'busy', to come again in the next batch. A workspace whose
-- whole demand fits its balance and every bound is written set by set; any other is decided call by call, in order of arrival, so that
-- a batch never decides otherwise than calls one by one would.
--
-- Verdicts: 'admitted'; 'busy'; 'unknown_key', 'revoked_key', 'expired_key' (401); 'scope', 'kind', 'test_key', 'model', 'origin', 'address',
-- 'stopped' (403); 'no_subscription' (429: nothing entitles a subscription key); 'insufficient' (402, with what is available and required); 'bound' (429, with the bound and when it resets).
DO $$ BEGIN
  IF to_regtype('admission_1') IS NULL THEN
    CREATE TYPE admission_1 AS (
      n int, id uuid, workspace_id uuid, key_id uuid, user_id uuid, key_kind text, mode text, zone text, verdict text, billed boolean,
      account_id uuid, instalment bigint, max_output bigint, input_tokens bigint, input_picousd bigint, output_picousd bigint,
      demand bigint, output bigint, clamped boolean, available bigint, required bigint, bound text, resets_at timestamptz, call jsonb);
    CREATE TYPE bound_demand_1 AS (n int, workspace_id uuid, bound_id uuid, scope text, measure text, most bigint, span text, zone text);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION demand_1(p_input_picousd bigint, p_output_picousd bigint, p_output bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT (p_input_picousd + p_output_picousd * p_output + 999999) / 1000000
$$;

-- How much of a wished output an amount pays. In numeric, because ten million dollars are more picodollars than a bigint holds.
CREATE OR REPLACE FUNCTION affordable_1(p_microusd bigint, p_input_picousd bigint, p_output_picousd bigint, p_wished bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT least(p_wished, floor((p_microusd::numeric * 1000000 - p_input_picousd) / p_output_picousd))::bigint
$$;

CREATE OR REPLACE FUNCTION bound_amount_1(p_measure text, p_demand bigint, p_input bigint, p_output bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE p_measure WHEN 'money' THEN p_demand WHEN 'tokens' THEN p_input + p_output ELSE 1 END
$$;

CREATE OR REPLACE FUNCTION admit_1(p_calls jsonb, p_wait boolean)
RETURNS TABLE (n int, verdict text, workspace_id uuid, key_id uuid, hold_microusd bigint, output bigint, clamped boolean,
               available_microusd bigint, required_microusd bigint, bound text, resets_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_items admission_1[];
  v_demands bound_demand_1[];
  v_locked uuid[];
  v_hard uuid[] := '{}';
  v_item admission_1;
  v_demand bound_demand_1;
  v_first int;
  v_last int := 0;
  v_window record;
  v_span record;
  v_left bigint;
  v_allowed bigint;
  v_tokens bigint;
  v_account account;
BEGIN
  -- Who calls. The key is proved here and nowhere else: what is revoked by now does not pass.
  SELECT array_agg(ROW(c.n, c.id, s.workspace_id, k.id, CASE WHEN k.creator_kind = 'user' THEN k.creator_id END, k.kind, k.mode, w.default_timezone,
           CASE
             WHEN k.id IS NULL OR s.works_until <= v_now THEN 'unknown_key'
             WHEN k.revoked_at IS NOT NULL THEN 'revoked_key'
             WHEN k.expires_at <= v_now THEN 'expired_key'
             WHEN NOT 'inference' = ANY (k.scopes) THEN 'scope'
             WHEN w.stopped_at IS NOT NULL THEN 'stopped'
             WHEN c.road = 'generic' AND k.kind <> 'pay_per_token' THEN 'kind'
             WHEN k.kind = 'subscription' THEN 'no_subscription'
             WHEN k.mode = 'test' AND NOT c.echo THEN 'test_key'
             WHEN k.allowed_models IS NOT NULL AND NOT k.allowed_models && ARRAY[c.model, c.requested_model] THEN 'model'
             WHEN k.allowed_origins IS NOT NULL AND NOT coalesce(c.origin = ANY (k.allowed_origins), false) THEN 'origin'
             WHEN k.allowed_addresses IS NOT NULL
               AND NOT EXISTS (SELECT FROM unnest(k.allowed_addresses) a WHERE c.address::inet <<= a::inet) THEN 'address'
           END,
           k.mode = 'live' AND (c.input_picousd > 0 OR c.output_picousd > 0),
           NULL, c.instalment, c.max_output, c.input_tokens, c.input_picousd, c.output_picousd,
           NULL, NULL, false, NULL, NULL, NULL, NULL, e.value)::admission_1 ORDER BY c.n)
    INTO v_items
    FROM jsonb_array_elements(p_calls) e,
         LATERAL jsonb_to_record(e.value) AS c (n int, id uuid, hash text, road text, echo boolean, model text, requested_model text, origin text,
           address text, instalment bigint, max_output bigint, input_tokens bigint, input_picousd bigint, output_picousd bigint)
    LEFT JOIN api_key_secret s ON s.hash = c.hash
    LEFT JOIN api_key k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
    LEFT JOIN workspace w ON w.id = s.workspace_id;

  -- A call that was sent twice, because nobody knew whether the first commit arrived, keeps its first hold.
  IF EXISTS (SELECT FROM jsonb_array_elements(p_calls) e WHERE (e.value ->> 'again')::boolean) THEN
    SELECT array_agg(CASE WHEN i.verdict IS NULL AND h.call_id IS NOT NULL
             THEN ROW(i.n, i.id, i.workspace_id, i.key_id, i.user_id, i.key_kind, i.mode, i.zone, 'admitted', i.billed, h.account_id, i.instalment,
                      i.max_output, i.input_tokens, i.input_picousd, i.output_picousd, h.amount, h.held_output, c.clamped, NULL, NULL, NULL, NULL, NULL)::admission_1
             ELSE i END ORDER BY i.n)
      INTO v_items
      FROM unnest(v_items) i
      LEFT JOIN hold h ON h.workspace_id = i.workspace_id AND h.call_id = i.id
      LEFT JOIN "call" c ON c.workspace_id = i.workspace_id AND c.id = i.id;
  END IF;

  -- What bounds it.
  SELECT array_agg(ROW(i.n, i.workspace_id, b.id,
           CASE b.per WHEN 'end_user' THEN coalesce(i.call ->> 'end_user', '') WHEN 'address' THEN coalesce(i.call ->> 'address', '') ELSE '' END,
           b.measure, b.most, b."window", i.zone)::bound_demand_1 ORDER BY i.n, b.position)
    INTO v_demands
    FROM unnest(v_items) i
    JOIN bound b ON b.workspace_id = i.workspace_id AND b.removed_at IS NULL
    LEFT JOIN member m ON b.subject_kind = 'member' AND m.workspace_id = b.workspace_id AND m.id = b.subject_id
   WHERE i.verdict IS NULL
     AND (b.model IS NULL OR b.model IN (i.call ->> 'model', i.call ->> 'requested_model'))
     AND CASE b.subject_kind WHEN 'workspace' THEN true WHEN 'key' THEN b.subject_id = i.key_id WHEN 'member' THEN m.user_id = i.user_id ELSE false END;

  -- The locks, in id order. A call that costs nothing and that nothing bounds takes none.
  IF p_wait THEN
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (
        SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND (i.billed OR i.workspace_id IN (SELECT d.workspace_id FROM unnest(v_demands) d)))
      ORDER BY a.workspace_id FOR NO KEY UPDATE) l;
  ELSE
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (
        SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND (i.billed OR i.workspace_id IN (SELECT d.workspace_id FROM unnest(v_demands) d)))
      ORDER BY a.workspace_id FOR NO KEY UPDATE SKIP LOCKED) l;
  END IF;

  v_now := clock_timestamp();  -- the locks may have been waited for: a hold lives from here, and a window may be over meanwhile

  -- The full demand of each: the whole worst case, or for a longer stream the input and a first instalment of output.
  SELECT array_agg(ROW(i.n, i.id, i.workspace_id, i.key_id, i.user_id, i.key_kind, i.mode, i.zone,
           CASE WHEN i.verdict IS NULL AND (i.billed OR bounded.yes) AND NOT i.workspace_id = ANY (coalesce(v_locked, '{}')) THEN 'busy' ELSE i.verdict END,
           i.billed, CASE WHEN i.billed THEN a.id END, i.instalment, i.max_output, i.input_tokens, i.input_picousd, i.output_picousd,
           CASE WHEN i.verdict = 'admitted' THEN i.demand WHEN i.billed THEN demand_1(i.input_picousd, i.output_picousd, least(i.max_output, i.instalment)) ELSE 0 END,
           CASE WHEN i.verdict = 'admitted' THEN i.output ELSE least(i.max_output, i.instalment) END,
           i.clamped, a.credits - a.debits - a.held - a.floor, NULL, NULL, NULL, i.call)::admission_1 ORDER BY i.n)
    INTO v_items
    FROM unnest(v_items) i
    LEFT JOIN account a ON a.workspace_id = i.workspace_id AND a.kind = 'cash'
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM unnest(v_demands) d WHERE d.n = i.n) AS yes) bounded;

  IF v_demands IS NOT NULL THEN
    INSERT INTO bound_window (workspace_id, bound_id, scope, spent, held)
    SELECT DISTINCT d.workspace_id, d.bound_id, d.scope, 0::bigint, 0::bigint FROM unnest(v_demands) d WHERE d.workspace_id = ANY (v_locked)
        ON CONFLICT DO NOTHING;
  END IF;

  -- Which workspaces cannot have all that they ask for.
  SELECT array_agg(DISTINCT x.workspace_id) INTO v_hard FROM (
    SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND i.billed GROUP BY i.workspace_id HAVING sum(i.demand) > min(i.available)
    UNION ALL
    SELECT d.workspace_id FROM unnest(v_demands) d JOIN unnest(v_items) i ON i.n = d.n AND i.verdict IS NULL
      JOIN bound_window w ON w.workspace_id = d.workspace_id AND w.bound_id = d.bound_id AND w.scope = d.scope
     GROUP BY d.workspace_id, d.bound_id, d.scope
    HAVING sum(bound_amount_1(d.measure, i.demand, i.input_tokens, i.output)) > min(d.most - w.held - CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END)
  ) x;
  v_hard := coalesce(v_hard, '{}');

  -- Where everything fits: set by set.
  UPDATE account a SET held = a.held + x.demand, updated_at = v_now
    FROM (SELECT i.workspace_id, i.account_id, sum(i.demand)::bigint AS demand FROM unnest(v_items) i
           WHERE i.verdict IS NULL AND i.billed AND NOT i.workspace_id = ANY (v_hard) GROUP BY 1, 2) x
   WHERE a.workspace_id = x.workspace_id AND a.id = x.account_id;
  IF v_demands IS NOT NULL THEN
    UPDATE bound_window w
       SET started_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN x.begins ELSE w.started_at END,
           ends_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN x.ends ELSE w.ends_at END,
           spent = CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END + CASE WHEN x.measure = 'calls' THEN x.amount ELSE 0 END,
           held = w.held + CASE WHEN x.measure = 'calls' THEN 0 ELSE x.amount END
      FROM (SELECT y.*, s.begins, s.ends
              FROM (SELECT d.workspace_id, d.bound_id, d.scope, min(d.measure) AS measure, min(d.span) AS span, min(d.zone) AS zone,
                           sum(bound_amount_1(d.measure, i.demand, i.input_tokens, i.output))::bigint AS amount
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
      v_allowed := NULL;  -- microdollars; null means unbounded
      v_tokens := NULL;   -- output tokens that token bounds leave
      IF v_item.billed THEN
        SELECT * INTO v_account FROM account a WHERE a.workspace_id = v_item.workspace_id AND a.id = v_item.account_id;
        v_allowed := v_account.credits - v_account.debits - v_account.held - v_account.floor;
        v_item.available := greatest(v_allowed, 0);
      END IF;
      FOREACH v_demand IN ARRAY coalesce(v_demands[v_first:v_last], '{}') LOOP
        SELECT w.*, CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END AS now_spent INTO v_window FROM bound_window w
         WHERE w.workspace_id = v_demand.workspace_id AND w.bound_id = v_demand.bound_id AND w.scope = v_demand.scope;
        v_left := v_demand.most - v_window.now_spent - v_window.held;
        IF v_demand.measure = 'money' AND v_item.billed THEN
          IF v_left < demand_1(v_item.input_picousd, v_item.output_picousd, least(v_item.output, 1)) THEN v_item.verdict := 'bound'; END IF;
          IF v_allowed IS NULL OR v_left < v_allowed THEN v_allowed := v_left; END IF;
        ELSIF v_demand.measure = 'tokens' THEN
          IF v_left < v_item.input_tokens + least(v_item.output, 1) THEN v_item.verdict := 'bound'; END IF;
          v_tokens := least(coalesce(v_tokens, v_left - v_item.input_tokens), v_left - v_item.input_tokens);
        ELSIF v_demand.measure IN ('calls', 'concurrent') AND v_left < 1 THEN
          v_item.verdict := 'bound';
        END IF;
        IF v_item.verdict = 'bound' THEN
          v_item.bound := v_demand.measure || ' in ' || v_demand.span;
          v_item.resets_at := CASE WHEN v_window.ends_at > v_now THEN v_window.ends_at END;
          EXIT;
        END IF;
      END LOOP;
      IF v_item.verdict IS NULL THEN
        IF v_tokens IS NOT NULL AND v_tokens < v_item.output THEN
          v_item.output := v_tokens;
          v_item.clamped := true;
        END IF;
        IF v_item.billed THEN
          v_item.demand := demand_1(v_item.input_picousd, v_item.output_picousd, v_item.output);
          IF v_item.demand > v_allowed THEN
            v_item.required := demand_1(v_item.input_picousd, v_item.output_picousd, least(v_item.output, 1));
            IF v_item.required > v_allowed THEN
              v_item.verdict := 'insufficient';
            ELSE
              v_item.output := affordable_1(v_allowed, v_item.input_picousd, nullif(v_item.output_picousd, 0), v_item.output);
              v_item.demand := demand_1(v_item.input_picousd, v_item.output_picousd, v_item.output);
              v_item.clamped := true;
            END IF;
          END IF;
        END IF;
      END IF;
      IF v_item.verdict IS NULL THEN
        IF v_item.billed THEN
          UPDATE account a SET held = a.held + v_item.demand, updated_at = v_now
           WHERE a.workspace_id = v_item.workspace_id AND a.id = v_item.account_id AND a.credits - a.debits - a.held - a.floor >= v_item.demand;
          IF NOT FOUND THEN
            RAISE EXCEPTION 'account % cannot hold %', v_item.account_id, v_item.demand USING errcode = '55000';
          END IF;
        END IF;
        FOREACH v_demand IN ARRAY coalesce(v_demands[v_first:v_last], '{}') LOOP
          SELECT * INTO v_span FROM window_1(v_demand.span, v_demand.zone, v_now);
          v_left := bound_amount_1(v_demand.measure, v_item.demand, v_item.input_tokens, v_item.output);
          UPDATE bound_window w
             SET started_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN v_span.begins ELSE w.started_at END,
                 ends_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN v_span.ends ELSE w.ends_at END,
                 spent = CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END + CASE WHEN v_demand.measure = 'calls' THEN v_left ELSE 0 END,
                 held = w.held + CASE WHEN v_demand.measure = 'calls' THEN 0 ELSE v_left END
           WHERE w.workspace_id = v_demand.workspace_id AND w.bound_id = v_demand.bound_id AND w.scope = v_demand.scope;
        END LOOP;
      END IF;
      v_items[v_index] := v_item;
    END LOOP;
  END IF;

  -- The record of the call and its hold, durable with this statement's commit: no upstream hears of the call before.
  INSERT INTO "call" (workspace_id, id, key_id, key_kind, mode, user_id, end_user, conversation, language, tags, api_name, endpoint, dialect, preset,
                      requested_model, model, upstream, price_id, streamed, input_tokens, requested_max_output, granted_output, clamped, created_at)
  SELECT i.workspace_id, i.id, i.key_id, i.key_kind, i.mode, i.user_id, c.end_user, c.conversation, c.language, c.tags, c.api_name, c.endpoint, c.dialect,
         c.preset, c.requested_model, c.model, c.upstream, c.price_id, c.streamed, i.input_tokens, c.requested_max_output, i.output, i.clamped, c.created_at
    FROM unnest(v_items) i,
         LATERAL jsonb_to_record(i.call) AS c (end_user text, conversation text, language text, tags jsonb, api_name text, endpoint text, dialect text,
           preset text, requested_model text, model text, upstream text, price_id uuid, streamed boolean, requested_max_output bigint, created_at timestamptz)
   WHERE i.verdict IS NULL;
  INSERT INTO hold (workspace_id, call_id, account_id, amount, state, held_output, extensions, bound_ids, bound_scopes, bound_held, expires_at, created_at)
  SELECT i.workspace_id, i.id, i.account_id, i.demand, 'open', i.output, 0, b.ids, b.scopes, b.held,
         v_now + make_interval(secs => (i.call ->> 'hold_seconds')::int), v_now
    FROM unnest(v_items) i
    LEFT JOIN (SELECT d.n, array_agg(d.bound_id) AS ids, array_agg(d.scope) AS scopes,
                      array_agg(CASE WHEN d.measure = 'calls' THEN 0 ELSE bound_amount_1(d.measure, x.demand, x.input_tokens, x.output) END) AS held
                 FROM unnest(v_demands) d JOIN unnest(v_items) x ON x.n = d.n GROUP BY d.n) b ON b.n = i.n
   WHERE i.verdict IS NULL;

  -- When a secret was last used, to within a minute; never worth waiting for.
  UPDATE api_key_secret s SET last_used_at = v_now
   WHERE s.hash IN (
     SELECT u.hash FROM api_key_secret u
      WHERE u.hash IN (SELECT i.call ->> 'hash' FROM unnest(v_items) i WHERE i.verdict IS NULL)
        AND (u.last_used_at IS NULL OR u.last_used_at < v_now - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED);

  RETURN QUERY SELECT i.n, coalesce(i.verdict, 'admitted'), i.workspace_id, i.key_id, i.demand, i.output, i.clamped,
                      greatest(i.available, 0), i.required, i.bound, i.resets_at
                 FROM unnest(v_items) i ORDER BY i.n;
END $$;
