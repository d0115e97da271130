-- erase_1(workspace, end_user, name, at): take an end user's name out of everything that carries it; `name` stands there instead, and tells nothing.
--
-- One transaction, so that it happens whole or not at all. Every number stays: rows keep their sums, and one person stays one person in every
-- count, because all of its calls get the same new name. The number of the old name in the sets of people is given back, a new one takes its bits.
-- Folds of the workspace wait while it lasts. Calls go on; those that were admitted meanwhile are looked for again at the end, under the
-- lock that admissions and settlements of the workspace take, so that none that was under way keeps the old name.
--
-- It runs with its owner's rights: nobody else may change a call, a usage event or the audit log, and the triggers on them let this change pass,
-- of these columns alone. Results: 'done', 'unknown' (no such end user).
CREATE OR REPLACE FUNCTION erase_1(p_workspace uuid, p_end_user uuid, p_name text, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_user end_user;
  v_id uuid;
  v_app uuid;
  v_since uuid := '00000000-0000-0000-0000-000000000000';
  v_moved jsonb := '[]';
  v_more jsonb;
BEGIN
  SELECT * INTO v_user FROM end_user u WHERE u.workspace_id = p_workspace AND u.id = p_end_user FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  v_id := end_user_id_1(p_workspace, v_user.app_id, p_name);
  v_app := coalesce(v_user.app_id, '00000000-0000-0000-0000-000000000000');
  PERFORM set_config('tallygate.erasing', 'on', true);
  INSERT INTO usage_closing (workspace_id, days_until, hours_until, looked_until)
  VALUES (p_workspace, '1970-01-01Z', '1970-01-01Z', '1970-01-01Z') ON CONFLICT DO NOTHING;
  PERFORM FROM usage_closing s WHERE s.workspace_id = p_workspace FOR UPDATE;

  FOR v_pass IN 1 .. 2 LOOP
    IF v_pass = 2 THEN
      PERFORM FROM account a WHERE a.workspace_id = p_workspace AND a.kind = 'cash' FOR NO KEY UPDATE;
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

-- erased_1(text, name, instead): a text without a name: another one that is as different from others as it was, and tells nothing of it.
CREATE OR REPLACE FUNCTION erased_1(p_text text, p_name text, p_instead text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN strpos(p_text, p_name) > 0 THEN 'erased-' || md5(p_instead || p_text) ELSE p_text END
$$;

-- erased_tags_1(tags, name, instead): tags, none of whose values has the name in it.
CREATE OR REPLACE FUNCTION erased_tags_1(p_tags jsonb, p_name text, p_instead text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN strpos(p_tags::text, p_name) = 0 THEN p_tags
              ELSE (SELECT jsonb_object_agg(t.key, CASE WHEN strpos(t.value, p_name) > 0 THEN p_instead ELSE t.value END) FROM jsonb_each_text(p_tags) t) END
$$;

-- people_moved_1(workspace, kind, app, before, after, days, kept): let another name stand in the sets of an app's days where one stands, and beside it on
-- the days of `kept`; a name that stands nowhere any more is forgotten.
CREATE OR REPLACE FUNCTION people_moved_1(p_workspace uuid, p_kind smallint, p_app uuid, p_before uuid, p_after uuid, p_days date[], p_kept date[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_before int := (SELECT n.number FROM usage_name n WHERE n.workspace_id = p_workspace AND n.kind = p_kind AND n.person = p_before);
  v_after int := (SELECT n.number FROM usage_name n WHERE n.workspace_id = p_workspace AND n.kind = p_kind AND n.person = p_after);
  v_days date[];
BEGIN
  IF v_before IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(u.used_on) INTO v_days FROM usage_people u
   WHERE u.workspace_id = p_workspace AND u.kind = p_kind AND u.app_id = p_app AND u.used_on = ANY (p_days) AND u.part = v_before >> 15
     AND get_bit(u.people, v_before & 32767) = 1;
  IF v_days IS NOT NULL AND v_after IS NULL THEN
    INSERT INTO usage_name_count AS c (workspace_id, kind, names) VALUES (p_workspace, p_kind, 1)
        ON CONFLICT (workspace_id, kind) DO UPDATE SET names = c.names + 1 RETURNING c.names - 1 INTO v_after;
    INSERT INTO usage_name (workspace_id, kind, person, number) VALUES (p_workspace, p_kind, p_after, v_after);
  END IF;
  IF v_days IS NOT NULL THEN
    INSERT INTO usage_people AS u (workspace_id, kind, used_on, app_id, part, people)
    SELECT p_workspace, p_kind, d, p_app, v_after >> 15, person_bit_1(v_after) FROM unnest(v_days) d ORDER BY d
        ON CONFLICT (workspace_id, kind, used_on, app_id, part) DO UPDATE SET people = u.people | excluded.people;
    UPDATE usage_people u SET people = set_bit(u.people, v_before & 32767, 0)
     WHERE u.workspace_id = p_workspace AND u.kind = p_kind AND u.app_id = p_app AND u.used_on = ANY (v_days) AND u.part = v_before >> 15
       AND u.used_on <> ALL (p_kept);
    DELETE FROM usage_people u WHERE u.workspace_id = p_workspace AND u.kind = p_kind AND u.app_id = p_app AND u.used_on = ANY (v_days) AND bit_count(u.people) = 0;
  END IF;
  DELETE FROM usage_name n WHERE n.workspace_id = p_workspace AND n.kind = p_kind AND n.person = p_before
     AND NOT EXISTS (SELECT FROM usage_people u WHERE u.workspace_id = p_workspace AND u.kind = p_kind AND u.part = v_before >> 15 AND get_bit(u.people, v_before & 32767) = 1);
END $$;
