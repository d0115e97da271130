-- people_1(workspaces, events): note the end users and conversations of events in the sets of their days.
--
-- A name is known by a number of its workspace, from 0 on; `usage_name` finds the number by a hash that does not tell the name. A day's people are
-- bitmaps of 32,768 numbers each, so that those of many days are united without looking at one of them. Two folds that meet the same new name
-- wait for each other at the count of its workspace; the number that the second one drew stays free.
CREATE OR REPLACE FUNCTION person_bit_1(p_number int) RETURNS bit LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT set_bit(repeat('0', 32768)::bit(32768), p_number & 32767, 1)
$$;

CREATE OR REPLACE FUNCTION people_1(p_workspaces uuid[], p_events uuid[]) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  WITH seen AS (
    SELECT DISTINCT e.workspace_id, p.kind, person_1(e.workspace_id, p.name) AS person
      FROM unnest(p_workspaces, p_events) AS t (workspace_id, event_id) JOIN usage_event e ON e.workspace_id = t.workspace_id AND e.id = t.event_id
     CROSS JOIN LATERAL (VALUES (0::smallint, e.end_user), (1::smallint, e.conversation)) AS p (kind, name)
     WHERE e.mode = 'live' AND p.name IS NOT NULL
  ), new AS (
    SELECT s.*, row_number() OVER (PARTITION BY s.workspace_id, s.kind ORDER BY s.person) AS place
      FROM seen s WHERE NOT EXISTS (SELECT FROM usage_name n WHERE n.workspace_id = s.workspace_id AND n.kind = s.kind AND n.person = s.person)
  ), counted AS (
    INSERT INTO usage_name_count AS c (workspace_id, kind, names)
    SELECT n.workspace_id, n.kind, count(*) FROM new n GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (workspace_id, kind) DO UPDATE SET names = c.names + excluded.names RETURNING c.workspace_id, c.kind, c.names
  )
  INSERT INTO usage_name (workspace_id, kind, person, number)
  SELECT n.workspace_id, n.kind, n.person, c.names - n.place FROM new n JOIN counted c ON c.workspace_id = n.workspace_id AND c.kind = n.kind
   ORDER BY 1, 2, 3 ON CONFLICT (workspace_id, kind, person) DO NOTHING;

  INSERT INTO usage_people AS u (workspace_id, kind, used_on, app_id, part, people)
  SELECT x.workspace_id, x.kind, x.used_on, x.app_id, n.number >> 15, bit_or(person_bit_1(n.number))
    FROM (SELECT DISTINCT e.workspace_id, p.kind, (e.at AT TIME ZONE 'UTC')::date AS used_on, coalesce(e.app_id, '00000000-0000-0000-0000-000000000000') AS app_id,
                 person_1(e.workspace_id, p.name) AS person
            FROM unnest(p_workspaces, p_events) AS t (workspace_id, event_id) JOIN usage_event e ON e.workspace_id = t.workspace_id AND e.id = t.event_id
           CROSS JOIN LATERAL (VALUES (0::smallint, e.end_user), (1::smallint, e.conversation)) AS p (kind, name)
           WHERE e.mode = 'live' AND p.name IS NOT NULL) x
    JOIN usage_name n ON n.workspace_id = x.workspace_id AND n.kind = x.kind AND n.person = x.person
   GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
      ON CONFLICT (workspace_id, kind, used_on, app_id, part) DO UPDATE SET people = u.people | excluded.people WHERE u.people | excluded.people <> u.people;
END $$;
