-- retire_tokens_1(at, most): delete client tokens that were over a day before an instant, with their caps, at most `most`, and return how many.
--
-- Those that were never used go then; those that were, when the single calls that name them are gone (`usage_retired`). It waits for nobody, and runs with
-- its owner's rights: the application's role deletes neither.
CREATE OR REPLACE FUNCTION retire_tokens_1(p_at timestamptz, p_most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  v_gone record;
  v_all bigint := 0;
BEGIN
  FOR v_gone IN
    SELECT t.workspace_id, array_agg(t.id) AS ids FROM (
      SELECT t.workspace_id, t.id FROM client_token t
       WHERE t.expires_at < p_at - interval '1 day'
         AND NOT EXISTS (SELECT FROM bound b JOIN bound_window w ON w.workspace_id = b.workspace_id AND w.bound_id = b.id
               WHERE b.workspace_id = t.workspace_id AND b.subject_kind = 'client_token' AND b.subject_id = t.id
                 AND (w.held > 0 OR (w.spent > 0 AND NOT EXISTS (SELECT FROM usage_retired r WHERE r.workspace_id = t.workspace_id AND t.expires_at < r.before - interval '1 day'))))
       LIMIT p_most FOR UPDATE OF t SKIP LOCKED) t
     GROUP BY 1 ORDER BY 1
  LOOP
    DELETE FROM bound_window w USING bound b
     WHERE b.workspace_id = v_gone.workspace_id AND b.subject_kind = 'client_token' AND b.subject_id = ANY (v_gone.ids)
       AND w.workspace_id = b.workspace_id AND w.bound_id = b.id;
    DELETE FROM bound b WHERE b.workspace_id = v_gone.workspace_id AND b.subject_kind = 'client_token' AND b.subject_id = ANY (v_gone.ids);
    DELETE FROM client_token t WHERE t.workspace_id = v_gone.workspace_id AND t.id = ANY (v_gone.ids);
    v_all := v_all + cardinality(v_gone.ids);
  END LOOP;
  RETURN v_all;
END $$;
