-- queued_1(workspace, since, until): the events of a stretch of time that are in no cell yet, of one workspace, or of all where it is null.
--
-- A function so that a session plans it once: a join with every partition costs more to plan than a report takes to run. It sees what the statement sees
-- that calls it.
CREATE OR REPLACE FUNCTION queued_1(p_workspace uuid, p_since timestamptz, p_until timestamptz) RETURNS SETOF usage_event
LANGUAGE plpgsql STABLE ROWS 100 SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF p_workspace IS NULL THEN
    RETURN QUERY SELECT e.* FROM usage_pending q JOIN usage_event e ON e.workspace_id = q.workspace_id AND e.id = q.event_id
                  WHERE e.at >= p_since AND e.at < p_until;
  ELSE
    RETURN QUERY SELECT e.* FROM usage_pending q JOIN usage_event e ON e.workspace_id = q.workspace_id AND e.id = q.event_id
                  WHERE q.workspace_id = p_workspace AND e.at >= p_since AND e.at < p_until;
  END IF;
END $$;
