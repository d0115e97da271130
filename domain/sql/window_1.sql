-- window_1(window, zone, now): where a window that a call opens now begins and ends.
-- `90s`, `1m`, `5h`, `24h`, `7d` roll: they begin with the call. `day`, `week`, `month`, `billing_period` follow the workspace's calendar.
-- `lifetime` and `concurrent` have no end (null).
CREATE OR REPLACE FUNCTION window_1(p_window text, p_zone text, p_now timestamptz, OUT begins timestamptz, OUT ends timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  unit text := CASE p_window WHEN 'billing_period' THEN 'month' ELSE p_window END;
BEGIN
  IF p_window ~ '^[0-9]+[smhd]$' THEN
    begins := p_now;
    ends := p_now + (left(p_window, -1) || CASE right(p_window, 1) WHEN 's' THEN ' seconds' WHEN 'm' THEN ' minutes' WHEN 'h' THEN ' hours' ELSE ' days' END)::interval;
  ELSIF unit IN ('day', 'week', 'month') THEN
    begins := date_trunc(unit, p_now AT TIME ZONE p_zone) AT TIME ZONE p_zone;
    ends := (date_trunc(unit, p_now AT TIME ZONE p_zone) + ('1 ' || unit)::interval) AT TIME ZONE p_zone;
  ELSE
    begins := p_now;
    ends := NULL;
  END IF;
END $$;
