-- entitled_1(subscription, now): whether a subscription opens its routes and quotas at an instant: of its status, its period and the clock, never of its
-- status alone. An active one of Stripe's is believed for a day past its period, because a renewal may be heard of late, unless it ends with the period.
CREATE OR REPLACE FUNCTION entitled_1(p_of subscription, p_now timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT p_of.ended_at IS NULL AND (p_of.ends_at IS NULL OR p_now < p_of.ends_at) AND CASE p_of.status
    WHEN 'trialing' THEN coalesce(p_now < p_of.trial_ends_at, false)
    WHEN 'active' THEN p_of.source = 'granted'
      OR p_now < p_of.current_period_end + CASE WHEN p_of.cancel_at_period_end THEN interval '0' ELSE interval '1 day' END
    WHEN 'past_due' THEN coalesce(p_now < p_of.grace_ends_at, false)
    ELSE false END
$$;

-- period_1(subscription, now): the billing period under way. Stripe's is what Stripe last said; a granted one begins anew every month or year, counted
-- from its first day in UTC.
CREATE OR REPLACE FUNCTION period_1(p_of subscription, p_now timestamptz, OUT begins timestamptz, OUT ends timestamptz)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  v_first timestamp := p_of.current_period_start AT TIME ZONE 'UTC';
  v_each interval := CASE p_of.cycle WHEN 'yearly' THEN interval '1 year' ELSE interval '1 month' END;
  v_now timestamp := p_now AT TIME ZONE 'UTC';
  v_number int;
BEGIN
  begins := p_of.current_period_start;
  ends := p_of.current_period_end;
  IF p_of.source = 'granted' AND p_now >= ends THEN
    v_number := extract(year FROM v_now)::int - extract(year FROM v_first)::int;
    IF p_of.cycle <> 'yearly' THEN
      v_number := v_number * 12 + extract(month FROM v_now)::int - extract(month FROM v_first)::int;
    END IF;
    IF v_first + v_number * v_each > v_now THEN
      v_number := v_number - 1;
    END IF;
    begins := (v_first + v_number * v_each) AT TIME ZONE 'UTC';
    ends := (v_first + (v_number + 1) * v_each) AT TIME ZONE 'UTC';
  END IF;
END $$;

-- quotas_1(workspace, now): what the workspace's entitled subscriptions allow together: the limits of several add up, and an unlimited one lifts them all.
-- `most` is null for no limit; credits are counted as list value, a cent each. What calls use up is counted in a bound's window, whose id is the same
-- in every workspace; `begins` and `ends` are the billing period, for that window. What is held (apps, members...) has no measure.
CREATE OR REPLACE FUNCTION quotas_1(p_workspace uuid, p_now timestamptz)
RETURNS TABLE (resource text, measure text, span text, most bigint, bound_id uuid, begins timestamptz, ends timestamptz)
LANGUAGE sql STABLE AS $$
  SELECT x.resource, x.measure, x.span, CASE WHEN bool_or(x.most IS NULL) THEN NULL ELSE sum(x.most)::bigint END, md5('quota ' || x.measure || ' in ' || x.span)::uuid,
         (array_agg(x.begins ORDER BY x.created_at, x.id))[1], (array_agg(x.ends ORDER BY x.created_at, x.id))[1]
    FROM (SELECT s.id, s.created_at, l.resource, l."window" AS span,
                 CASE l.resource WHEN 'api_calls' THEN CASE l."window" WHEN 'concurrent' THEN 'concurrent' ELSE 'calls' END WHEN 'tokens' THEN 'tokens'
                                 WHEN 'credits' THEN 'list' WHEN 'conversations' THEN 'conversations' END AS measure,
                 CASE l.resource WHEN 'credits' THEN l.most * 10000 ELSE l.most END AS most,
                 CASE WHEN l."window" = 'billing_period' THEN p.begins END AS begins, CASE WHEN l."window" = 'billing_period' THEN p.ends END AS ends
            FROM subscription s
            JOIN tier t ON t.slug = s.tier
            CROSS JOIN LATERAL period_1(s, p_now) p
            CROSS JOIN LATERAL jsonb_to_recordset(t.limits) AS l (resource text, "window" text, most bigint)
           WHERE s.workspace_id = p_workspace AND entitled_1(s, p_now)) x
   GROUP BY x.resource, x.measure, x.span
$$;
