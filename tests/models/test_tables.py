"""The constraints that the database really has, read back from it: the ORM's own statements would lose most of them."""

import importlib
import itertools

import pytest

from models import database, migrate
from models.migrate import PARTITIONED
from tests.conftest import Suite

pytestmark = pytest.mark.anyio

CONSTRAINTS = {
    ("account", "PRIMARY KEY (workspace_id, id)"),
    ("account", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("account", "CHECK ((credits >= 0))"),
    ("account", "CHECK ((debits >= 0))"),
    ("account", "CHECK ((held >= 0))"),
    ("account", "CHECK ((floor <= 0))"),
    ("account", "CHECK (((credits - debits) >= floor))"),
    ("account", "CHECK (((carry_picousd >= 0) AND (carry_picousd <= 999999)))"),
    ("account", "CHECK (((list_carry_picousd >= 0) AND (list_carry_picousd <= 999999)))"),
    ("alert_rule", "PRIMARY KEY (workspace_id, id)"),
    ("alert_rule", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("alert_rule", "FOREIGN KEY (workspace_id, endpoint_id) REFERENCES webhook_endpoint(workspace_id, id)"),
    ("alert_rule", "CHECK ((threshold >= 0))"),
    ("api_key", "PRIMARY KEY (workspace_id, id)"),
    ("api_key", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("api_key_secret", "PRIMARY KEY (hash)"),
    ("api_key_secret", "FOREIGN KEY (workspace_id, key_id) REFERENCES api_key(workspace_id, id)"),
    ("api_key_secret", "CHECK (((hash)::text ~ '^[0-9a-f]{64}$'::text))"),
    ("app", "PRIMARY KEY (workspace_id, id)"),
    ("app", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("app", "CHECK ((wallet_markup >= (0)::numeric))"),
    ("app_name", "PRIMARY KEY (slug)"),
    ("app_name", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("app_name", "CHECK (((slug)::text ~ '^[a-z0-9]+(-[a-z0-9]+)*$'::text))"),
    ("attempt", "PRIMARY KEY (workspace_id, id)"),
    ("attempt", "CHECK ((cost_picousd >= 0))"),
    ("audit_event", "PRIMARY KEY (workspace_id, id)"),
    ("books_check", "PRIMARY KEY (name)"),
    ("listed_entry", "PRIMARY KEY (id)"),
    ("balance_watch", "PRIMARY KEY (workspace_id)"),
    ("balance_watch", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("blob", "PRIMARY KEY (workspace_id, id)"),
    ("blob", "FOREIGN KEY (workspace_id, app_id) REFERENCES app(workspace_id, id) ON UPDATE CASCADE"),
    ("blob", "CHECK (((sha256)::text ~ '^[0-9a-f]{64}$'::text))"),
    ("deployed_file", "PRIMARY KEY (workspace_id, deployment_id, \"position\")"),
    ("deployed_file", "FOREIGN KEY (workspace_id, deployment_id) REFERENCES deployment(workspace_id, id) ON UPDATE CASCADE"),
    ("deployed_file", "FOREIGN KEY (workspace_id, blob_id) REFERENCES blob(workspace_id, id) ON UPDATE CASCADE"),
    ("deployment", "PRIMARY KEY (workspace_id, id)"),
    ("deployment", "UNIQUE (workspace_id, app_id, version)"),
    ("deployment", "FOREIGN KEY (workspace_id, app_id) REFERENCES app(workspace_id, id) ON UPDATE CASCADE"),
    (
        "deployment",
        "CHECK (((finished_at IS NOT NULL) = ((status)::text = ANY ((ARRAY['succeeded'::character varying, 'failed'::character varying, "
        "'cancelled'::character varying])::text[]))))",
    ),
    ("client_token", "PRIMARY KEY (workspace_id, id)"),
    ("client_token", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("client_token", "FOREIGN KEY (workspace_id, key_id) REFERENCES api_key(workspace_id, id)"),
    ("client_token", "CHECK ((expires_at <= (created_at + '00:15:00'::interval)))"),
    ("end_user", "PRIMARY KEY (workspace_id, id)"),
    ("end_user", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("end_user", "FOREIGN KEY (workspace_id, wallet_id) REFERENCES account(workspace_id, id)"),
    ("bound", "PRIMARY KEY (workspace_id, id)"),
    ("bound", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("bound", "CHECK ((most >= 0))"),
    ("bound_window", "PRIMARY KEY (workspace_id, bound_id, scope)"),
    ("bound_window", "FOREIGN KEY (workspace_id, bound_id) REFERENCES bound(workspace_id, id)"),
    ("bound_window", "CHECK ((held >= 0))"),
    ("bound_window", "CHECK ((spent >= 0))"),
    ("cache_miss", "PRIMARY KEY (workspace_id, call_id)"),
    ("cache_miss", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("cache_miss", "CHECK (((missed_tokens > 0) AND (shared_tokens >= 0) AND (cost_microusd >= 0)))"),
    ("call", "PRIMARY KEY (workspace_id, id)"),
    ("call", "CHECK ((granted_output >= 0))"),
    ("call", "CHECK ((input_tokens >= 0))"),
    ("catalogue_model", "PRIMARY KEY (id)"),
    ("catalogue_model", "UNIQUE (name)"),
    ("clock", "PRIMARY KEY (name)"),
    ("credit_grant", "PRIMARY KEY (workspace_id, id)"),
    ("credit_grant", "FOREIGN KEY (workspace_id, id) REFERENCES account(workspace_id, id)"),
    ("credit_grant", "CHECK ((amount > 0))"),
    ("quota_conversation", "PRIMARY KEY (workspace_id, bound_id, conversation)"),
    ("quota_conversation", "FOREIGN KEY (workspace_id, bound_id) REFERENCES bound(workspace_id, id)"),
    ("kept_answer", "PRIMARY KEY (workspace_id, id)"),
    ("kept_answer", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("kept_answer", "CHECK (((id)::text ~ '^[0-9a-f]{64}$'::text))"),
    ("export", "PRIMARY KEY (workspace_id, id)"),
    ("export", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("idempotent_answer", "PRIMARY KEY (workspace_id, id)"),
    ("idempotent_answer", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("idempotent_answer", "CHECK (((id)::text ~ '^[0-9a-f]{64}$'::text))"),
    ("idempotent_answer", "CHECK ((((state)::text = 'answered'::text) = (sealed IS NOT NULL)))"),
    ("replay", "PRIMARY KEY (workspace_id, call_id)"),
    ("replay", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("replay", "CHECK ((replays > 0))"),
    ("upstream_health", "PRIMARY KEY (process_id, upstream)"),
    ("hold", "PRIMARY KEY (workspace_id, call_id)"),
    ("hold", "CHECK ((amount >= 0))"),
    ("hold", "CHECK ((((state)::text = 'open'::text) = (closed_at IS NULL)))"),
    ("hold", "CHECK (((account_id IS NOT NULL) OR (amount = 0)))"),
    ("hold", "CHECK (((state)::text = ANY ((ARRAY['open'::character varying, 'settled'::character varying, 'released'::character varying])::text[])))"),
    ("idempotency", "PRIMARY KEY (scope_id, operation, key)"),
    ("job", "PRIMARY KEY (id)"),
    ("markup_rule", "PRIMARY KEY (id)"),
    ("markup_rule", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("markup_rule", "FOREIGN KEY (tier) REFERENCES tier(slug)"),
    ("markup_rule", "CHECK ((((numerator >= 0) AND (numerator <= 1000000)) AND ((denominator >= 1) AND (denominator <= 1000000))))"),
    ("markup_rule", "CHECK (((effective_until IS NULL) OR (effective_until >= effective_from)))"),
    ("member", "PRIMARY KEY (workspace_id, id)"),
    ("member", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("member", "FOREIGN KEY (user_id) REFERENCES users(id)"),
    ("member", "CHECK (((joined_at IS NOT NULL) OR (invitation_expires_at IS NOT NULL)))"),
    ("price", "PRIMARY KEY (id)"),
    ("reconciliation", "PRIMARY KEY (id)"),
    ("reconciliation", "FOREIGN KEY (transfer_workspace_id, transfer_id) REFERENCES transfer(workspace_id, id)"),
    ("reconciliation", "CHECK ((starts_at < ends_at))"),
    ("reconciliation", "CHECK (((coverage >= (0)::double precision) AND (coverage <= (1)::double precision)))"),
    ("reconciliation_line", "PRIMARY KEY (reconciliation_id, \"position\")"),
    ("reconciliation_line", "FOREIGN KEY (reconciliation_id) REFERENCES reconciliation(id)"),
    ("rerated_call", "PRIMARY KEY (workspace_id, rerating_id, record_id)"),
    ("rerated_call", "FOREIGN KEY (workspace_id, rerating_id) REFERENCES rerating_line(workspace_id, rerating_id)"),
    ("rerated_call", "CHECK (((charge_picousd >= 0) AND (list_picousd >= 0) AND ((before_microusd + change_microusd) >= 0)))"),
    ("rerated_call", "CHECK ((((state)::text = 'posted'::text) = (posted_at IS NOT NULL)))"),
    ("rerating", "PRIMARY KEY (id)"),
    ("rerating", "FOREIGN KEY (price_id) REFERENCES price(id)"),
    ("rerating", "FOREIGN KEY (only_workspace_id) REFERENCES workspace(id)"),
    ("rerating", "CHECK ((starts_at < ends_at))"),
    ("rerating", "CHECK (((applied_at IS NULL) OR (apply_asked_at IS NOT NULL)))"),
    ("rerating_line", "PRIMARY KEY (workspace_id, rerating_id)"),
    ("rerating_line", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("rerating_line", "FOREIGN KEY (rerating_id) REFERENCES rerating(id)"),
    ("subscription", "PRIMARY KEY (workspace_id, id)"),
    ("subscription", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("subscription", "FOREIGN KEY (tier) REFERENCES tier(slug)"),
    ("subscription", "CHECK ((current_period_start < current_period_end))"),
    ("tier", "PRIMARY KEY (slug)"),
    ("auto_top_up", "PRIMARY KEY (workspace_id)"),
    ("auto_top_up", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("auto_top_up", "CHECK ((cooldown_seconds >= 60))"),
    ("dispute", "PRIMARY KEY (workspace_id, id)"),
    ("dispute", "FOREIGN KEY (workspace_id, top_up_id) REFERENCES top_up(workspace_id, id)"),
    ("dispute", "FOREIGN KEY (workspace_id, invoice_id) REFERENCES invoice(workspace_id, id)"),
    ("dispute", "CHECK ((num_nonnulls(top_up_id, invoice_id) = 1))"),
    ("dispute", "UNIQUE (workspace_id, stripe_dispute_id)"),
    ("dispute", "CHECK ((amount_microusd > 0))"),
    ("invoice", "PRIMARY KEY (workspace_id, id)"),
    ("invoice", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("invoice", "UNIQUE (workspace_id, stripe_invoice_id)"),
    ("refund", "PRIMARY KEY (workspace_id, id)"),
    ("refund", "FOREIGN KEY (workspace_id, top_up_id) REFERENCES top_up(workspace_id, id)"),
    ("refund", "CHECK ((amount_microusd > 0))"),
    ("stripe_entry", "PRIMARY KEY (workspace_id, id)"),
    ("stripe_entry", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("stripe_event", "PRIMARY KEY (id)"),
    ("stripe_object", "PRIMARY KEY (id)"),
    ("stripe_object", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("top_up", "PRIMARY KEY (workspace_id, id)"),
    ("top_up", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("top_up", "CHECK ((amount_microusd > 0))"),
    ("top_up", "CHECK ((((status)::text = 'fulfilled'::text) = (fulfilled_at IS NOT NULL)))"),
    ("tortoise_migrations", "PRIMARY KEY (id)"),
    ("tortoise_migrations", "UNIQUE (app, name)"),
    ("transfer", "PRIMARY KEY (workspace_id, id)"),
    ("transfer", "UNIQUE (workspace_id, kind, ref)"),
    ("transfer", "FOREIGN KEY (workspace_id, debit_id) REFERENCES account(workspace_id, id)"),
    ("transfer", "FOREIGN KEY (workspace_id, credit_id) REFERENCES account(workspace_id, id)"),
    ("transfer", "CHECK ((amount > 0))"),
    ("transfer", "CHECK ((debit_id <> credit_id))"),
    ("usage_cell", "PRIMARY KEY (workspace_id, level, at, model, app_id, key_id, outcome)"),
    ("usage_cell", "CHECK (((level >= 0) AND (level <= 3)))"),
    ("usage_closing", "PRIMARY KEY (workspace_id)"),
    ("usage_event", "PRIMARY KEY (workspace_id, id)"),
    ("usage_name", "PRIMARY KEY (workspace_id, kind, person)"),
    ("usage_name", "UNIQUE (workspace_id, kind, number)"),
    ("usage_name_count", "PRIMARY KEY (workspace_id, kind)"),
    ("usage_people", "PRIMARY KEY (workspace_id, kind, used_on, app_id, part)"),
    ("usage_person", "PRIMARY KEY (workspace_id, kind, used_on, app_id, person)"),
    ("usage_pending", "PRIMARY KEY (workspace_id, event_id)"),
    ("usage_retired", "PRIMARY KEY (workspace_id, mode)"),
    ("usage_span", "PRIMARY KEY (workspace_id, hours, level, at, model, app_id, key_id, outcome)"),
    ("usage_span", "CHECK ((hours = ANY (ARRAY[1, 24])))"),
    ("usage_span", "CHECK (((level >= 0) AND (level <= 3)))"),
    ("users", "PRIMARY KEY (id)"),
    ("users", "UNIQUE (issuer, subject)"),
    ("webhook_delivery", "PRIMARY KEY (workspace_id, id)"),
    ("webhook_delivery", "FOREIGN KEY (workspace_id, endpoint_id) REFERENCES webhook_endpoint(workspace_id, id)"),
    ("webhook_endpoint", "PRIMARY KEY (workspace_id, id)"),
    ("webhook_endpoint", "FOREIGN KEY (workspace_id) REFERENCES workspace(id)"),
    ("workspace", "PRIMARY KEY (id)"),
}
DIRECTORIES = {
    "markup_rule",
    "rerating",
    *("reconciliation", "reconciliation_line"),
    *("app_name", "api_key_secret", "workspace", "users", "catalogue_model", "clock", "job", "price", "tier", "tortoise_migrations", "idempotency"),
    *("stripe_object", "stripe_event"),
    "api_key_secret",
    "app_name",
    "books_check",
    "listed_entry",
    "catalogue_model",
    "clock",
    "idempotency",
    "job",
    "price",
    "tier",
    "tortoise_migrations",
    "users",
    "workspace",
    "upstream_health",
}
"""Tables over all workspaces, or without any; every other one has the workspace first in its key, so that it can be sharded."""


async def test_every_constraint_reached_the_database(books: Suite) -> None:
    """What the migrations say and what pg_constraint has are the same: no constraint is missing, and none is there that this list does not explain."""
    rows = await database.fetch(
        """
        SELECT conrelid::regclass::text AS owner, pg_get_constraintdef(oid) AS says FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND coninhcount = 0
        """
    )
    found = {(row["owner"].strip('"'), row["says"]) for row in rows}
    assert (CONSTRAINTS - found, found - CONSTRAINTS) == (set(), set())


async def test_every_constraint_holds_for_rows_that_were_there_before(books: Suite) -> None:
    """No constraint was added without looking at the rows, and none is switched off."""
    assert await database.fetch("SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND NOT (convalidated AND conenforced)") == []


async def test_the_workspace_comes_first_in_every_key(books: Suite) -> None:
    """Every table of size can be sharded by workspace: it leads the primary key and every unique index."""
    rows = await database.fetch(
        """
        SELECT i.indrelid::regclass::text AS owner, a.attname AS leads FROM pg_index i
          JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indisunique
        """
    )
    astray = {row["owner"].strip('"') for row in rows if row["leads"] != "workspace_id"}
    assert astray == DIRECTORIES


async def test_partial_keys_reached_the_database_too(books: Suite) -> None:
    """A workspace has one account of each kind but grants and wallets, and a person one place in it."""
    rows = await database.fetch("SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indisunique AND indpred IS NOT NULL")
    assert {row["name"] for row in rows} >= {"one_of_each_kind", "one_place_each"}


async def test_months_are_partitioned_ahead(books: Suite) -> None:
    """This month and the next three have a partition of each partitioned table, and the default one holds nothing that was made now."""
    for table in PARTITIONED:
        partitions = await database.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = to_regclass($1)", f'"{table}"')
        assert len(partitions) == 5
        key = "call_id" if table == "hold" else "id"
        assert await database.fetch_value(f"SELECT count(*) FROM {table}_default WHERE {key} >= uuid_at(now() - interval '1 hour')") == 0


def test_migrations_are_one_chain() -> None:
    """Every migration follows the one before it, by number and by what it depends on, so that all databases come to be in the same order."""
    names = migrate.shipped()
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    for before, name in itertools.pairwise(names):
        module = importlib.import_module(f"models.migrations.{name}")
        assert module.Migration.dependencies == [("models", before)], name
