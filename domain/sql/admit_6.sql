-- admit_6(calls, wait): as admit_5, and cheaper where nothing is unusual.
--
-- A workspace is plain in this group where cash pays its calls, or they cost nothing, and where everything fits its balance and every bound: no grant, wallet, quota or
-- bound of conversations has a part, it owes nothing, and no call is sent again. Its calls are read once and written set by set. What bounds a call depends on who makes
-- it and for what: calls that have all of this in common, a shape, share the look-up, and what they ask of a bound together is one sum. The calls of any other workspace
-- go to admit_5, with their locks held: what is unusual is decided there and nowhere else. Workspaces share nothing that the order between them could change.
--
-- Locks and verdicts as admit_5's.
DO $$ BEGIN
  IF to_regtype('admission_6') IS NULL THEN
    CREATE TYPE admission_6 AS (
      n int, shape int, id uuid, workspace_id uuid, key_id uuid, user_id uuid, key_kind text, mode text, zone text, verdict text, payer text, odd boolean,
      demand bigint, worth bigint, output bigint, input_tokens bigint, candidates text[], requested_model text, app_id uuid, end_user text, end_user_id uuid, newly_seen boolean,
      unused boolean, hash text, address text, client_token_id uuid, conversation text, language text, tags jsonb, api_name text, endpoint text, dialect text, preset text,
      upstream text, price_id uuid, streamed boolean, requested_max_output bigint, created_at timestamptz, route_reason text, idempotent boolean, hold_seconds int);
    CREATE TYPE shape_6 AS (shape int, workspace_id uuid, zone text, bound_ids uuid[], scopes text[], measures text[], mosts bigint[], spans text[]);
    CREATE TYPE asked_6 AS (workspace_id uuid, bound_id uuid, scope text, measure text, span text, zone text, amount bigint, missing boolean, fits boolean);
    CREATE TYPE fate_6 AS (fate text, cash_id uuid, available bigint);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION admit_6(p_calls json, p_wait boolean)
RETURNS TABLE (n int, verdict text, workspace_id uuid, key_id uuid, hold_microusd bigint, output bigint, clamped boolean, payer text,
               available_microusd bigint, required_microusd bigint, bound text, quota boolean, passes boolean, resets_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_items admission_6[];
  v_shapes shape_6[];
  v_bounded int[];
  v_asked asked_6[];
  v_fates fate_6[];
  v_locked uuid[];
  v_slow uuid[];
  v_plain boolean;
  v_missing boolean;
  v_seen boolean;
  v_unused boolean;
BEGIN
  -- Who calls. The key is proved here and nowhere else: what is revoked by now does not pass. A client token stands on the key that made it, or on
  -- the member: whatever these may not do, it may not. What only tokens or end users need is looked up for those alone.
  -- `demand` is what cash holds: the whole worst case, or for a longer stream the input and a first instalment of output. `worth` is the same whoever pays.
  SELECT array_agg(ROW(x.n, x.shape, x.id, x.workspace_id, x.key_id, x.user_id, x.key_kind, x.mode, x.zone, x.verdict, x.payer,
           x.verdict IS NULL AND (x.again OR coalesce(x.payer IN ('quota', 'wallet') OR x.payer = 'cash' AND x.granted, false)),
           CASE WHEN x.payer IN ('cash', 'wallet') THEN x.worth ELSE 0 END, x.worth, x.output, x.input_tokens, x.candidates, x.requested_model, x.app_id, x.end_user, x.end_user_id, x.newly_seen,
           x.unused, x.hash, x.address, x.client_token_id, x.conversation, x.language, x.tags, x.api_name, x.endpoint, x.dialect, x.preset,
           x.upstream, x.price_id, x.streamed, x.requested_max_output, x.created_at, x.route_reason, x.idempotent, x.hold_seconds)::admission_6 ORDER BY x.n),
         bool_or(x.verdict IS NULL AND x.newly_seen), bool_or(x.verdict IS NULL AND x.unused)
    INTO v_items, v_seen, v_unused
    FROM (SELECT y.*, min(y.n) OVER (PARTITION BY y.workspace_id, y.key_id, y.user_id, y.app_id, y.client_token_id, y.end_user, y.address, y.requested_model, y.candidates, y.verdict IS NULL) AS shape,
                 demand_1(y.input_picousd, y.output_picousd, y.output) AS worth
            FROM (SELECT c.n, c.id, w.id AS workspace_id, k.id AS key_id, CASE WHEN t.id IS NOT NULL AND t.key_id IS NULL THEN t.user_id WHEN k.creator_kind = 'user' THEN k.creator_id END AS user_id,
                 CASE WHEN t.member THEN 'pay_per_token' ELSE k.kind END AS key_kind, CASE WHEN t.member THEN 'live' ELSE k.mode END AS mode, w.default_timezone AS zone, w.has_grants AS granted,
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
                 END AS verdict,
                 CASE WHEN k.mode <> 'live' OR w.id IS NULL THEN NULL WHEN k.kind = 'subscription' THEN 'quota'
                      WHEN c.input_picousd > 0 OR c.output_picousd > 0 THEN CASE WHEN t.end_user IS NOT NULL AND u.wallet_id IS NOT NULL THEN 'wallet' ELSE 'cash' END END AS payer,
                 least(c.max_output, c.instalment) AS output, c.input_tokens, c.input_picousd, c.output_picousd, coalesce(c.again, false) AS again, c.candidates, c.requested_model,
                 CASE WHEN t.id IS NULL THEN c.app_id ELSE t.app_id END AS app_id, coalesce(t.end_user, c.end_user) AS end_user, u.id AS end_user_id, coalesce(u.newly_seen, false) AS newly_seen,
                 s.hash IS NOT NULL AND (s.last_used_at IS NULL OR s.last_used_at < v_now - interval '1 minute') AS unused,
                 c.hash, c.address, c.client_token_id, c.conversation, c.language, c.tags, c.api_name, c.endpoint, c.dialect, c.preset, c.upstream, c.price_id, c.streamed,
                 c.requested_max_output, c.created_at, c.route_reason, coalesce(c.idempotent, false) AS idempotent, c.hold_seconds
            FROM json_to_recordset(p_calls) AS c (n int, id uuid, hash text, token_workspace_id uuid, client_token_id uuid, road text, endpoint text, echo boolean, candidates text[],
                   requested_model text, origin text, address text, instalment bigint, max_output bigint, input_tokens bigint, input_picousd bigint, output_picousd bigint,
                   app_id uuid, end_user text, again boolean, conversation text, language text, tags jsonb, api_name text, dialect text, preset text, upstream text, price_id uuid,
                   streamed boolean, requested_max_output bigint, created_at timestamptz, route_reason text, idempotent boolean, hold_seconds int)
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
               WHERE coalesce(t.end_user, c.end_user) IS NOT NULL AND w.id IS NOT NULL OFFSET 0) u ON true) y) x;

  -- What bounds each shape.
  SELECT array_agg(ROW(i.n, i.workspace_id, i.zone, b.ids, b.scopes, b.measures, b.mosts, b.spans)::shape_6), coalesce(array_agg(i.n), '{}')
    INTO v_shapes, v_bounded
    FROM unnest(v_items) i
    CROSS JOIN LATERAL (
      SELECT array_agg(b.id ORDER BY b.position, b.id) AS ids, array_agg(b.measure ORDER BY b.position, b.id) AS measures, array_agg(b.most ORDER BY b.position, b.id) AS mosts,
             array_agg(b."window" ORDER BY b.position, b.id) AS spans,
             array_agg(CASE b.per WHEN 'end_user' THEN coalesce(i.end_user, '') WHEN 'address' THEN coalesce(i.address, '') ELSE '' END ORDER BY b.position, b.id) AS scopes
        FROM (VALUES ('workspace', i.workspace_id), ('key', i.key_id), ('app', i.app_id), ('client_token', i.client_token_id), ('end_user', i.end_user_id)
               UNION ALL
              SELECT 'member', m.id FROM member m WHERE m.workspace_id = i.workspace_id AND m.user_id = i.user_id) u (kind, id)
       CROSS JOIN LATERAL (SELECT * FROM bound b WHERE b.workspace_id = i.workspace_id AND b.subject_id = u.id AND b.subject_kind = u.kind AND b.removed_at IS NULL OFFSET 0) b
       WHERE b.model IS NULL OR b.model = i.requested_model OR b.model = ANY (i.candidates)) b
   WHERE i.n = i.shape AND i.verdict IS NULL AND b.ids IS NOT NULL;

  -- The locks, in id order. A call that costs nothing and that nothing bounds takes none.
  IF p_wait THEN
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (ARRAY(
        SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND (i.payer IS NOT NULL OR i.shape = ANY (v_bounded))))
      ORDER BY a.workspace_id FOR NO KEY UPDATE) l;
  ELSE
    SELECT array_agg(l.workspace_id) INTO v_locked FROM (
      SELECT a.workspace_id FROM account a WHERE a.kind = 'cash' AND a.workspace_id = ANY (ARRAY(
        SELECT i.workspace_id FROM unnest(v_items) i WHERE i.verdict IS NULL AND (i.payer IS NOT NULL OR i.shape = ANY (v_bounded))))
      ORDER BY a.workspace_id FOR NO KEY UPDATE SKIP LOCKED) l;
  END IF;
  v_locked := coalesce(v_locked, '{}');

  v_now := clock_timestamp();  -- the locks may have been waited for: a hold lives from here, and a window may be over meanwhile

  -- What is asked of each bound, and whether it is there.
  IF v_shapes IS NOT NULL THEN
    SELECT array_agg(ROW(x.workspace_id, x.bound_id, x.scope, x.measure, x.span, x.zone, x.amount, w.held IS NULL,
             x.measure <> 'conversations' AND x.amount <= x.most - coalesce(w.held, 0) - CASE WHEN w.ends_at <= v_now THEN 0 ELSE coalesce(w.spent, 0) END)::asked_6), bool_or(w.held IS NULL)
      INTO v_asked, v_missing
      FROM (SELECT b.workspace_id, b.bound_id, b.scope, min(b.measure) AS measure, min(b.span) AS span, min(b.zone) AS zone, min(b.most) AS most,
                   sum(CASE b.measure WHEN 'money' THEN b.demand WHEN 'tokens' THEN b.tokens WHEN 'list' THEN b.worth ELSE b.calls END)::bigint AS amount
              FROM (SELECT h.workspace_id, h.zone, unnest(h.bound_ids) AS bound_id, unnest(h.scopes) AS scope, unnest(h.measures) AS measure, unnest(h.mosts) AS most, unnest(h.spans) AS span,
                           t.demand, t.worth, t.tokens, t.calls
                      FROM unnest(v_shapes) h
                      JOIN (SELECT i.shape, sum(i.demand) AS demand, sum(i.worth) AS worth, sum(i.input_tokens + i.output) AS tokens, count(*) AS calls
                              FROM unnest(v_items) i WHERE i.verdict IS NULL GROUP BY i.shape) t ON t.shape = h.shape
                     WHERE h.workspace_id = ANY (v_locked)) b
             GROUP BY 1, 2, 3 OFFSET 0) x
      LEFT JOIN LATERAL (SELECT w.held, w.spent, w.ends_at FROM bound_window w WHERE w.workspace_id = x.workspace_id AND w.bound_id = x.bound_id AND w.scope = x.scope OFFSET 0) w ON true;
  END IF;

  -- What becomes of each: null is to be let in here. Who owes the service is decided elsewhere, also where a call costs nothing.
  SELECT array_agg(ROW(CASE WHEN i.verdict IS NOT NULL THEN i.verdict
                            WHEN (i.payer IS NOT NULL OR i.shape = ANY (v_bounded)) AND NOT i.workspace_id = ANY (v_locked) THEN 'busy'
                            WHEN z.slow THEN 'slow' END, z.id, z.available)::fate_6 ORDER BY i.n)
    INTO v_fates
    FROM unnest(v_items) i
    LEFT JOIN (SELECT g.workspace_id, a.id, a.available,
                      g.odd OR a.available < g.demand OR a.owing OR g.workspace_id = ANY (ARRAY(SELECT k.workspace_id FROM unnest(v_asked) k WHERE NOT k.fits)) AS slow
                 FROM (SELECT j.workspace_id, bool_or(j.odd) AS odd, coalesce(sum(j.demand) FILTER (WHERE j.payer = 'cash'), -4611686018427387903) AS demand
                         FROM unnest(v_items) j WHERE j.verdict IS NULL GROUP BY 1 OFFSET 0) g
                CROSS JOIN LATERAL (SELECT a.id, a.credits - a.debits - a.held - a.floor AS available, a.credits < a.debits AS owing
                                      FROM account a WHERE a.workspace_id = g.workspace_id AND a.kind = 'cash' OFFSET 0) a) z ON z.workspace_id = i.workspace_id;
  SELECT array_agg(DISTINCT i.workspace_id) FILTER (WHERE i.fate = 'slow'), bool_or(i.fate IS DISTINCT FROM 'slow') INTO v_slow, v_plain FROM unnest(v_items, v_fates) i;
  IF NOT v_plain THEN
    RETURN QUERY SELECT * FROM admit_5(p_calls::jsonb, p_wait);
    RETURN;
  END IF;

  UPDATE account a SET held = a.held + x.demand, updated_at = v_now
    FROM (SELECT i.workspace_id, i.cash_id, sum(i.demand)::bigint AS demand FROM unnest(v_items, v_fates) i WHERE i.fate IS NULL AND i.payer = 'cash' GROUP BY 1, 2) x
   WHERE a.workspace_id = x.workspace_id AND a.id = x.cash_id;
  IF v_asked IS NOT NULL THEN
    IF v_missing THEN
      INSERT INTO bound_window (workspace_id, bound_id, scope, spent, held) SELECT x.workspace_id, x.bound_id, x.scope, 0, 0 FROM unnest(v_asked) x WHERE x.missing ON CONFLICT DO NOTHING;
    END IF;
    UPDATE bound_window w
       SET started_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN (window_1(x.span, x.zone, v_now)).begins ELSE w.started_at END,
           ends_at = CASE WHEN w.started_at IS NULL OR w.ends_at <= v_now THEN (window_1(x.span, x.zone, v_now)).ends ELSE w.ends_at END,
           spent = CASE WHEN w.ends_at <= v_now THEN 0 ELSE w.spent END + CASE WHEN x.measure = 'calls' THEN x.amount ELSE 0 END,
           held = w.held + CASE WHEN x.measure = 'calls' THEN 0 ELSE x.amount END
      FROM unnest(v_asked) x
     WHERE w.workspace_id = x.workspace_id AND w.bound_id = x.bound_id AND w.scope = x.scope AND NOT x.workspace_id = ANY (coalesce(v_slow, '{}'));
  END IF;

  -- The record of the call and its hold, durable with this statement's commit: no upstream hears of the call before.
  INSERT INTO "call" (workspace_id, id, key_id, key_kind, mode, user_id, client_token_id, app_id, end_user, conversation, language, tags, api_name, endpoint, dialect, preset,
                      requested_model, model, upstream, price_id, streamed, input_tokens, requested_max_output, granted_output, clamped, created_at, route_reason, idempotent)
  SELECT i.workspace_id, i.id, i.key_id, i.key_kind, i.mode, i.user_id, i.client_token_id, i.app_id, i.end_user, i.conversation, i.language, i.tags, i.api_name, i.endpoint, i.dialect, i.preset,
         i.requested_model, i.candidates[1], i.upstream, i.price_id, i.streamed, i.input_tokens, i.requested_max_output, i.output, false, i.created_at, i.route_reason, i.idempotent
    FROM unnest(v_items, v_fates) i WHERE i.fate IS NULL;
  INSERT INTO hold (workspace_id, call_id, account_id, amount, payer, state, held_output, extensions, bound_ids, bound_scopes, bound_held, expires_at, created_at)
  SELECT i.workspace_id, i.id, CASE i.payer WHEN 'cash' THEN i.cash_id END, i.demand, i.payer, 'open', i.output, 0, b.bound_ids, b.scopes,
         CASE WHEN b.shape IS NOT NULL THEN ARRAY(
           SELECT CASE m.measure WHEN 'money' THEN i.demand WHEN 'tokens' THEN i.input_tokens + i.output WHEN 'list' THEN i.worth WHEN 'calls' THEN 0 ELSE 1 END
             FROM unnest(b.measures) WITH ORDINALITY AS m (measure, place) ORDER BY m.place) END,
         v_now + make_interval(secs => i.hold_seconds), v_now
    FROM unnest(v_items, v_fates) i LEFT JOIN unnest(v_shapes) b ON b.shape = i.shape
   WHERE i.fate IS NULL;

  -- Whom the calls name.
  IF v_seen THEN
    INSERT INTO end_user (workspace_id, id, app_id, external_id, first_seen_at, last_seen_at)
    SELECT DISTINCT i.workspace_id, i.end_user_id, i.app_id, i.end_user, v_now, v_now FROM unnest(v_items, v_fates) i WHERE i.fate IS NULL AND i.newly_seen ORDER BY 1, 2
        ON CONFLICT (workspace_id, id) DO NOTHING;
    UPDATE end_user o SET last_seen_at = v_now FROM (
      SELECT u.workspace_id, u.id FROM end_user u JOIN (SELECT DISTINCT i.workspace_id, i.end_user_id FROM unnest(v_items, v_fates) i WHERE i.fate IS NULL AND i.newly_seen) x
          ON u.workspace_id = x.workspace_id AND u.id = x.end_user_id
       WHERE u.last_seen_at IS DISTINCT FROM v_now FOR NO KEY UPDATE OF u SKIP LOCKED) y
     WHERE o.workspace_id = y.workspace_id AND o.id = y.id;
  END IF;

  -- When a secret was last used, to within a minute; never worth waiting for.
  IF v_unused THEN
    UPDATE api_key_secret s SET last_used_at = v_now
     WHERE s.hash IN (
       SELECT u.hash FROM api_key_secret u
        WHERE u.hash IN (SELECT i.hash FROM unnest(v_items, v_fates) i WHERE i.fate IS NULL AND i.unused)
          AND (u.last_used_at IS NULL OR u.last_used_at < v_now - interval '1 minute')
          FOR NO KEY UPDATE SKIP LOCKED);
  END IF;

  RETURN QUERY
    SELECT r.* FROM (
      SELECT i.n, coalesce(i.fate, 'admitted'), i.workspace_id, i.key_id, i.demand, i.output, false, i.payer,
             CASE WHEN i.payer = 'wallet' OR i.client_token_id IS NULL THEN greatest(i.available, 0) END,  -- a browser is not told what its maker has
             NULL::bigint, NULL::text, false, false, NULL::timestamptz
        FROM unnest(v_items, v_fates) i WHERE i.fate IS DISTINCT FROM 'slow'
       UNION ALL
      SELECT s.* FROM admit_5((SELECT jsonb_agg(e.value) FROM json_array_elements(p_calls) e JOIN unnest(v_items, v_fates) i ON i.n = (e.value ->> 'n')::int AND i.fate = 'slow'), p_wait) s
       WHERE v_slow IS NOT NULL) r (n, verdict, workspace_id, key_id, hold_microusd, output, clamped, payer, available_microusd, required_microusd, bound, quota, passes, resets_at)
     ORDER BY r.n;
END $$;
