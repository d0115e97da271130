-- div_floor_1(picos): whole micros below; floor also below zero, where SQL's own division rounds toward zero.
CREATE OR REPLACE FUNCTION div_floor_1(p_picos numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT floor(p_picos / 1000000)::bigint
$$;
