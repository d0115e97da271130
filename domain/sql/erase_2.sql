-- erase_2(workspace, end_user, name, at): take an end user's name out of everything that carries it; `name` stands there instead, and tells nothing.
--
-- One transaction, so that it happens whole or not at all. Every number stays: rows keep their sums, and one person stays one person in every
-- count, because all of its calls get the same new name. The number of the old name in the sets of people is given back, a new one takes its bits.
-- Folds and other erasures of the workspace wait while it lasts. Calls go on; those that were admitted meanwhile are looked for again at the end, under the
-- lock that admissions and settlements of the workspace take, so that none that was under way keeps the old name. That lock comes before the one of the
-- end user's row, as it does for whoever blocks one or moves its credit: so nobody waits in a circle.
--
-- It runs with its owner's rights: nobody else may change a call, a usage event or the audit log, and the triggers on them let this change pass,
-- of these columns alone. Results: 'done', 'unknown' (no such end user).
CREATE OR REPLACE FUNCTION erase_2(p_workspace uuid, p_end_user uuid, p_name text, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_user end_user;
  v_id uuid;
  v_app uuid;
  v_since uuid := '00000000-0000-0000-0000-000000000000';
  v_moved jsonb := '[]';
  v_more jsonb;
BEGIN
  INSERT INTO usage_closing (workspace_id, days_until, hours_until, looked_until)
  VALUES (p_workspace, '1970-01-01Z', '1970-01-01Z', '1970-01-01Z') ON CONFLICT DO NOTHING;
  PERFORM FROM usage_closing s WHERE s.workspace_id = p_workspace FOR UPDATE;
  SELECT * INTO v_user FROM end_user u WHERE u.workspace_id = p_workspace AND u.id = p_end_user;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  v_id := end_user_id_1(p_workspace, v_user.app_id, p_name);
  v_app := coalesce(v_user.app_id, '00000000-0000-0000-0000-000000000000');
  PERFORM set_config('tallygate.erasing', 'on', true);

  FOR v_pass IN 1 .. 2 LOOP
    IF v_pass = 2 THEN
      PERFORM FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'cash' FOR NO KEY UPDATE;
      PERFORM FROM end_user u WHERE u.workspace_id = p_workspace AND u.id = p_end_user FOR UPDATE;
      IF NOT FOUND THEN
        RAISE EXCEPTION 'the end user % is on its way to another workspace', p_end_user USING errcode = '40001';
      END IF;
      v_since := uuid_at(transaction_timestamp() - interval '1 day');
    END IF;
    UPDATE "call" k SET end_user = p_name, conversation = erased_1(k.conversation, v_user.external_id, p_name), tags = erased_tags_1(k.tags, v_user.external_id, p_name)
     WHERE k.workspace_id = p_workspace AND k.id >= v_since AND k.end_user = v_user.external_id AND k.app_id IS NOT DISTINCT FROM v_user.app_id;
    WITH changed AS (
      UPDATE usage_event e SET end_user = p_name, conversation = erased_1(e.conversation, v_user.external_id, p_name), tags = erased_tags_1(e.tags, v_user.external_id, p_name)
       WHERE e.workspace_id = p_workspace AND e.id >= v_since AND e.end_user = v_user.external_id AND e.app_id IS NOT DISTINCT FROM v_user.app_id
      RETURNING new.id, new.mode, new.at, old.conversation AS before, new.conversation AS after
    )
    SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('used_on', (c.at AT TIME ZONE 'UTC')::date, 'before', c.before, 'after', c.after)), '[]') INTO v_more
      FROM changed c WHERE c.mode = 'live' AND c.before <> c.after
       AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = p_workspace AND q.event_id = c.id);
    v_moved := v_moved || v_more;
  END LOOP;

  -- The person, and the conversations whose names had its name in them, get new numbers where they stand in sets.
  PERFORM people_moved_1(p_workspace, 0::smallint, v_app, person_1(p_workspace, v_user.external_id), person_1(p_workspace, p_name),
                         ARRAY(SELECT DISTINCT u.used_on FROM usage_people u WHERE u.workspace_id = p_workspace AND u.kind = 0 AND u.app_id = v_app), '{}');
  PERFORM people_moved_1(p_workspace, 1::smallint, v_app, person_1(p_workspace, m.before), person_1(p_workspace, m.after), m.days,
            ARRAY(SELECT DISTINCT d FROM unnest(m.days) d WHERE EXISTS (SELECT FROM usage_event e
                   WHERE e.workspace_id = p_workspace AND e.at >= d::timestamp AT TIME ZONE 'UTC' AND e.at < (d + 1)::timestamp AT TIME ZONE 'UTC'
                     AND e.conversation = m.before AND e.mode = 'live' AND e.app_id IS NOT DISTINCT FROM v_user.app_id
                     AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = p_workspace AND q.event_id = e.id))))
     FROM (SELECT x.before, x.after, array_agg(DISTINCT x.used_on) AS days FROM jsonb_to_recordset(v_moved) AS x (used_on date, before text, after text) GROUP BY 1, 2) m;

  -- What else names it: its tokens end, its windows of limits are nobody's, the log of changes forgets the name, and files made of calls are over.
  UPDATE client_token t SET end_user = p_name, revoked_at = coalesce(t.revoked_at, p_at)
   WHERE t.workspace_id = p_workspace AND t.end_user = v_user.external_id AND t.app_id IS NOT DISTINCT FROM v_user.app_id;
  IF NOT EXISTS (SELECT FROM end_user u WHERE u.workspace_id = p_workspace AND u.external_id = v_user.external_id AND u.id <> v_user.id) THEN
    UPDATE bound_window w SET scope = p_name FROM bound b
     WHERE w.workspace_id = p_workspace AND w.scope = v_user.external_id AND b.workspace_id = w.workspace_id AND b.id = w.bound_id AND b.per = 'end_user';
    UPDATE hold h SET bound_scopes = array_replace(h.bound_scopes, v_user.external_id::varchar, p_name::varchar)
     WHERE h.workspace_id = p_workspace AND v_user.external_id = ANY (h.bound_scopes);
  END IF;
  UPDATE bound b SET subject_id = v_id WHERE b.workspace_id = p_workspace AND b.subject_kind = 'end_user' AND b.subject_id = v_user.id;
  UPDATE audit_event a SET changes = replace(a.changes::text, to_json(v_user.external_id)::text, to_json(p_name)::text)::jsonb
   WHERE a.workspace_id = p_workspace AND strpos(a.changes::text, to_json(v_user.external_id)::text) > 0 AND a.action ~ '^(endUser|clientToken|wallet)';
  UPDATE export x SET expires_at = p_at WHERE x.workspace_id = p_workspace AND x.object IS NOT NULL;
  UPDATE export x SET status = 'failed', finished_at = p_at, failure_code = 'erased', failure = 'An end user was erased meanwhile; ask again.'
   WHERE x.workspace_id = p_workspace AND x.status = 'running';
  UPDATE end_user u SET id = v_id, external_id = p_name, blocked_at = coalesce(u.blocked_at, p_at) WHERE u.workspace_id = p_workspace AND u.id = v_user.id;
  PERFORM set_config('tallygate.erasing', '', true);
  RETURN 'done';
END $$;
