-- The audit: every row is a broken invariant, so a sound installation's view is empty. Read in one snapshot.
CREATE OR REPLACE VIEW audit AS
WITH posting AS (
  SELECT t.workspace_id, t.debit_id AS account_id, -t.amount AS change, t.debit_balance_after AS balance_after, t.debit_seq AS seq, t.id FROM transfer t
  UNION ALL
  SELECT t.workspace_id, t.credit_id, t.amount, t.credit_balance_after, t.credit_seq, t.id FROM transfer t
), spendable AS (
  SELECT a.* FROM account a WHERE a.kind IN ('cash', 'grant', 'wallet')
), part AS (
  SELECT h.workspace_id, h.account_id, h.amount FROM hold h WHERE h.state = 'open' AND h.account_id IS NOT NULL
  UNION ALL
  SELECT h.workspace_id, p.id, p.amount FROM hold h, unnest(h.part_ids, h.part_amounts) AS p (id, amount) WHERE h.state = 'open'
), stripe AS (  -- how far Stripe's own list is read: what is younger than a quarter of an hour may still be on its way, either way
  SELECT done_at - interval '15 minutes' AS settled FROM clock WHERE name = 'stripe_entries'
), paid AS (  -- what moves money at Stripe, signed as Stripe does, with the balance transaction that it books and what Stripe says of that
  SELECT t.workspace_id, t.id, t.kind, t.ref, t.created_at,
         CASE WHEN t.kind IN ('top_up', 'subscription', 'refund_failure', 'dispute_reversal') THEN t.amount ELSE -t.amount END AS amount,
         e.id AS entry_id, l.amount_microusd AS listed,
         EXISTS (SELECT FROM account a WHERE a.workspace_id = t.workspace_id AND a.kind = 'suspense' AND a.id IN (t.debit_id, t.credit_id)) AS strange
    FROM transfer t
    LEFT JOIN stripe_entry e ON e.workspace_id = t.workspace_id AND e.transfer_kind = t.kind AND e.transfer_ref = t.ref
    LEFT JOIN listed_entry l ON l.id = e.id
   WHERE t.kind IN ('top_up', 'subscription', 'refund', 'refund_failure', 'dispute', 'dispute_reversal')
), fee AS (
  SELECT t.workspace_id, t.id, t.ref, t.created_at, CASE WHEN d.kind = 'fees' THEN t.amount ELSE -t.amount END AS amount
    FROM transfer t JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id WHERE t.kind = 'fee'
)
SELECT 'balance is not the sum of its transfers' AS broken, a.workspace_id, a.id::text AS subject, a.credits - a.debits - coalesce(sum(p.change), 0) AS difference_microusd
  FROM spendable a LEFT JOIN posting p ON p.workspace_id = a.workspace_id AND p.account_id = a.id
 GROUP BY a.workspace_id, a.id, a.credits, a.debits HAVING a.credits - a.debits <> coalesce(sum(p.change), 0)
UNION ALL
SELECT 'transfers do not sum to zero', p.workspace_id, 'all accounts', sum(p.change)::bigint
  FROM posting p JOIN account a ON a.workspace_id = p.workspace_id AND a.id = p.account_id GROUP BY p.workspace_id HAVING sum(p.change) <> 0
UNION ALL
SELECT 'balance is below its floor', a.workspace_id, a.id::text, a.credits - a.debits - a.floor FROM spendable a WHERE a.credits - a.debits < a.floor
UNION ALL
SELECT 'balance after a transfer does not follow from the one before', x.workspace_id, x.id::text, x.balance_after - x.running
  FROM (SELECT p.*, sum(p.change) OVER (PARTITION BY p.workspace_id, p.account_id ORDER BY p.seq) AS running FROM posting p WHERE p.seq IS NOT NULL) x
 WHERE x.balance_after <> x.running
UNION ALL
SELECT 'transfers of an account have a gap', a.workspace_id, a.id::text, a.version - count(p.id)
  FROM spendable a LEFT JOIN posting p ON p.workspace_id = a.workspace_id AND p.account_id = a.id
 GROUP BY a.workspace_id, a.id, a.version HAVING a.version <> count(p.id) OR coalesce(max(p.seq), 0) <> a.version
UNION ALL
SELECT 'held is not the sum of open holds', a.workspace_id, a.id::text, a.held - coalesce(sum(p.amount), 0)
  FROM spendable a LEFT JOIN part p ON p.workspace_id = a.workspace_id AND p.account_id = a.id
 GROUP BY a.workspace_id, a.id, a.held HAVING a.held <> coalesce(sum(p.amount), 0)
UNION ALL
SELECT 'a quota''s call was charged', h.workspace_id, h.call_id::text, h.charge_microusd FROM hold h WHERE h.payer = 'quota' AND (h.charge_microusd <> 0 OR h.amount <> 0)
UNION ALL
SELECT 'a grant is not its account', coalesce(g.workspace_id, a.workspace_id), coalesce(g.id, a.id)::text, coalesce(g.amount, 0) - coalesce(a.given, 0)
  FROM credit_grant g
  FULL JOIN (SELECT s.workspace_id, s.id, (SELECT sum(t.amount) FROM transfer t WHERE t.workspace_id = s.workspace_id AND t.credit_id = s.id AND t.kind = 'grant') AS given
               FROM spendable s WHERE s.kind = 'grant') a ON a.workspace_id = g.workspace_id AND a.id = g.id
 WHERE g.amount IS DISTINCT FROM a.given
UNION ALL
SELECT 'a grant that is over still holds credit', g.workspace_id, g.id::text, a.credits - a.debits
  FROM credit_grant g JOIN account a ON a.workspace_id = g.workspace_id AND a.id = g.id
 WHERE a.credits - a.debits - a.held > 0 AND g.expires_at < clock_timestamp() - interval '1 hour'
UNION ALL
SELECT 'a bound holds other than its open calls', w.workspace_id, w.bound_id::text, w.held - coalesce(x.held, 0)
  FROM bound_window w
  LEFT JOIN (SELECT h.workspace_id, b.bound_id, b.scope, sum(b.held) AS held FROM hold h, unnest(h.bound_ids, h.bound_scopes, h.bound_held) AS b (bound_id, scope, held)
              WHERE h.state = 'open' GROUP BY 1, 2, 3) x ON x.workspace_id = w.workspace_id AND x.bound_id = w.bound_id AND x.scope = w.scope
 WHERE w.held <> coalesce(x.held, 0)
UNION ALL
SELECT 'hold is open long past its expiry', h.workspace_id, h.call_id::text, h.amount FROM hold h WHERE h.state = 'open' AND h.expires_at < clock_timestamp() - interval '10 minutes'
UNION ALL
SELECT 'closed hold without a usage event', h.workspace_id, h.call_id::text, h.charge_microusd
  FROM hold h WHERE h.state <> 'open' AND NOT EXISTS (SELECT FROM usage_event v WHERE v.workspace_id = h.workspace_id AND v.id = h.call_id)
UNION ALL
SELECT 'call without a hold', c.workspace_id, c.id::text, NULL
  FROM "call" c WHERE NOT EXISTS (SELECT FROM hold h WHERE h.workspace_id = c.workspace_id AND h.call_id = c.id)
UNION ALL
SELECT 'charge of a record is not what its transfers moved', v.workspace_id, v.record_id::text, v.charge - coalesce(t.moved, 0)
  FROM (SELECT u.workspace_id, u.record_id, sum(u.charge_microusd) AS charge FROM usage_event u GROUP BY 1, 2) v
  LEFT JOIN (SELECT t.workspace_id, t.call_id, sum(CASE WHEN d.kind = 'revenue' THEN -t.amount WHEN c.kind = 'revenue' THEN t.amount ELSE 0 END) AS moved
               FROM transfer t JOIN account d ON d.workspace_id = t.workspace_id AND d.id = t.debit_id JOIN account c ON c.workspace_id = t.workspace_id AND c.id = t.credit_id
              WHERE t.call_id IS NOT NULL GROUP BY 1, 2) t
    ON t.workspace_id = v.workspace_id AND t.call_id = v.record_id
 WHERE v.charge <> coalesce(t.moved, 0)
   AND NOT EXISTS (SELECT FROM usage_retired r WHERE r.workspace_id = v.workspace_id AND v.record_id < uuid_at(r.before))
UNION ALL
SELECT 'what wallets paid is not what their transfers moved', coalesce(v.workspace_id, t.workspace_id), coalesce(v.record_id, t.call_id)::text, coalesce(v.paid, 0) - coalesce(t.moved, 0)
  FROM (SELECT u.workspace_id, u.record_id, sum(u.wallet_microusd) AS paid FROM usage_event u WHERE u.wallet_microusd <> 0 GROUP BY 1, 2) v
  FULL JOIN (SELECT t.workspace_id, t.call_id, sum(CASE WHEN t.debit_id = a.id THEN t.amount ELSE -t.amount END) AS moved
               FROM account a JOIN transfer t ON t.workspace_id = a.workspace_id AND a.id IN (t.debit_id, t.credit_id)
              WHERE a.kind = 'wallet' AND t.call_id IS NOT NULL GROUP BY 1, 2) t
    ON t.workspace_id = v.workspace_id AND t.call_id = v.record_id
 WHERE coalesce(v.paid, 0) <> coalesce(t.moved, 0)
   AND NOT EXISTS (SELECT FROM usage_retired r WHERE r.workspace_id = coalesce(v.workspace_id, t.workspace_id) AND coalesce(v.record_id, t.call_id) < uuid_at(r.before))
UNION ALL
SELECT 'a wallet is no account of its end user''s alone', u.workspace_id, u.wallet_id::text, NULL
  FROM end_user u LEFT JOIN account a ON a.workspace_id = u.workspace_id AND a.id = u.wallet_id AND a.kind = 'wallet'
 WHERE u.wallet_id IS NOT NULL GROUP BY 1, 2, 3 HAVING count(*) <> 1 OR count(a.id) <> 1
UNION ALL
SELECT 'micros and carry are not the picos charged', a.workspace_id, a.id::text, NULL
  FROM account a JOIN (SELECT u.workspace_id, sum(u.charge_microusd) AS micros, sum(u.charge_picousd) AS picos, sum(u.list_microusd) AS list_micros, sum(u.list_picousd) AS list_picos
                         FROM (SELECT e.workspace_id, e.charge_microusd, e.charge_picousd, e.list_microusd, e.list_picousd FROM usage_event e
                               UNION ALL SELECT r.workspace_id, r.charge_microusd, r.charge_picousd, r.list_microusd, r.list_picousd FROM usage_retired r) u
                        GROUP BY 1) v ON v.workspace_id = a.workspace_id
 WHERE a.kind = 'cash' AND (v.micros * 1000000 + a.carry_picousd <> v.picos OR v.list_micros * 1000000 + a.list_carry_picousd <> v.list_picos)
UNION ALL
SELECT 'cells and pending events are not the events', coalesce(x.workspace_id, y.workspace_id), 'level ' || coalesce(x.level, y.level), coalesce(x.charge, 0) - coalesce(y.charge, 0)
  FROM (SELECT u.workspace_id, l.level, sum(u.charge_microusd) AS charge, sum(u.list_microusd) AS list, sum(u.wallet_microusd) AS wallet, sum(u.requests) AS requests,
               sum(u.input_tokens + u.output_tokens + u.cache_read_tokens + u.cache_write_5m_tokens + u.cache_write_1h_tokens) AS tokens
          FROM (SELECT workspace_id, id, mode, charge_microusd, list_microusd, wallet_microusd, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens FROM usage_event
                UNION ALL SELECT workspace_id, NULL, mode, charge_microusd, list_microusd, wallet_microusd, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens FROM usage_retired) u,
               generate_series(0, 3) AS l (level)
         WHERE u.mode = 'live' AND NOT EXISTS (SELECT FROM usage_pending q WHERE q.workspace_id = u.workspace_id AND q.event_id = u.id) GROUP BY 1, 2) x
  FULL JOIN (SELECT c.workspace_id, c.level::int AS level, sum(c.charge_microusd) AS charge, sum(c.list_microusd) AS list, sum(c.wallet_microusd) AS wallet, sum(c.requests) AS requests,
                    sum(c.input_tokens + c.output_tokens + c.cache_read_tokens + c.cache_write_5m_tokens + c.cache_write_1h_tokens) AS tokens
               FROM usage_cell c GROUP BY 1, 2) y ON y.workspace_id = x.workspace_id AND y.level = x.level
 WHERE (x.charge, x.list, x.wallet, x.requests, x.tokens) IS DISTINCT FROM (y.charge, y.list, y.wallet, y.requests, y.tokens)
UNION ALL
SELECT 'stripe''s entry is in no transfer', NULL, l.id || ' ' || l.type || coalesce(' of ' || l.source, ''), l.amount_microusd
  FROM listed_entry l
 WHERE l.explanation IS NULL AND l.created_at < clock_timestamp() - interval '15 minutes' AND NOT EXISTS (SELECT FROM paid p WHERE p.entry_id = l.id)
UNION ALL
SELECT 'transfer is in no entry of stripe''s', p.workspace_id, p.id || ' ' || p.kind || ' ' || p.ref, p.amount
  FROM paid p, stripe s
 WHERE p.listed IS NULL AND p.created_at < s.settled
       -- a refund that Stripe would not make, booked and booked back; one that waits until there is money for it
   AND NOT (p.entry_id IS NULL AND p.kind IN ('refund', 'refund_failure')
            AND EXISTS (SELECT FROM paid o WHERE o.workspace_id = p.workspace_id AND o.ref = p.ref AND o.amount = -p.amount AND o.entry_id IS NULL))
   AND NOT (p.kind = 'refund' AND p.created_at > clock_timestamp() - interval '10 days'
            AND EXISTS (SELECT FROM refund r WHERE r.workspace_id = p.workspace_id AND p.ref = r.id::text AND r.status = 'pending'))
UNION ALL
SELECT 'transfer is in no entry of stripe''s', f.workspace_id, f.id || ' fee ' || f.ref, f.amount
  FROM fee f, stripe s WHERE f.created_at < s.settled AND NOT EXISTS (SELECT FROM listed_entry l WHERE l.id = f.ref)
UNION ALL
SELECT 'transfer is not what stripe moved', p.workspace_id, p.id || ' ' || p.kind || ' ' || p.entry_id, p.amount - p.listed
  FROM paid p WHERE p.listed <> p.amount AND NOT p.strange
UNION ALL
SELECT 'fee is not what stripe kept', p.workspace_id, p.entry_id, coalesce(f.amount, 0) - l.fee_microusd
  FROM paid p JOIN listed_entry l ON l.id = p.entry_id
  LEFT JOIN fee f ON f.workspace_id = p.workspace_id AND f.ref = p.entry_id
 WHERE l.currency = 'usd' AND l.fee_microusd <> coalesce(f.amount, 0)
UNION ALL
SELECT 'stripe''s entries are not read', NULL, count(*) || ' transfers since ' || coalesce(min(s.settled)::text, 'ever'), sum(p.amount)::bigint
  FROM paid p LEFT JOIN stripe s ON true
 WHERE p.created_at < clock_timestamp() - interval '1 day' AND p.created_at > coalesce(s.settled, '-infinity') HAVING count(*) > 0;
