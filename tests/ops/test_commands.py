"""The operator's commands, run as an operator runs them: in a process of their own, over a database of their own."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest

from domain.money.books import CHECKS
from tests.clients import test_mail
from tests.conftest import environment_of
from tests.support import commands
from tests.support.gateway import ROOT, free_port
from tests.support.s3 import FrontDoor
from tests.support.servers import Servers
from tests.support.stripe import simulated

DATABASE = "commands"


@pytest.fixture(scope="module")
def environment(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands over a migrated database."""
    servers.create_database(DATABASE, template=template)
    yield {"PATH": os.environ["PATH"], **environment_of(servers, DATABASE, tmp_path_factory.mktemp("commands"))}
    servers.drop_database(DATABASE)


def manage(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    """Run a command and return what it printed; its exit code must be `code`."""
    done = commands.run(environment, *arguments)
    assert done.code == code, done.output + done.errors
    return done.output + done.errors if code else done.output


def test_the_program_serves_until_it_is_told_to_stop(environment: dict[str, str]) -> None:
    """`python -m manage serve` itself, which every other test starts with its imports done: it answers, and SIGTERM ends it with 0."""
    port = free_port()
    told = {**environment, "PORT": str(port), "HOST": "127.0.0.1", "TALLYGATE_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    process = subprocess.Popen([sys.executable, "-m", "manage", "serve"], cwd=ROOT, env=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None
            with contextlib.suppress(httpx2.TransportError):
                assert httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200
                break
    finally:
        process.terminate()
    assert process.wait(timeout=60) == 0


def test_doctor_finds_a_good_installation_good(environment: dict[str, str]) -> None:
    """`doctor` exits 0 on a sound installation, and says what it looked at."""
    said = manage(environment, "doctor")
    assert "the environment is complete" in said
    assert "the database is Postgres 18" in said
    assert "the database is up to date" in said
    assert "the application's role may only add to the ledger" in said
    assert "the books are sound" in said
    assert "the queue answers" in said
    assert "REPAIR" not in said


def test_doctor_names_what_must_be_repaired(environment: dict[str, str], tmp_path: Path) -> None:
    """A superuser's role, a missing key and a queue that is away are each one line; no secret is printed."""
    config = tmp_path / "tallygate.toml"
    config.write_text('[upstreams.a]\ndialect = "anthropic"\nurl = "https://api.example.com"\nkey_env = "NOT_SET"\n')
    bad = {**environment, "DATABASE_URL": environment["DATABASE_URL"].replace("tallygate_app", "postgres"), "REDIS_URL": "redis://:hush@127.0.0.1:1/0"}
    said = manage({**bad, "TALLYGATE_CONFIG": str(config)}, "doctor", code=1)
    assert "REPAIR  NOT_SET is not set" in said
    assert "REPAIR  the application's database role is a superuser" in said
    assert "REPAIR  the queue cannot be reached" in said
    away = {**environment, "TALLYGATE_CONFIG": "/no/such.toml", "TALLYGATE_TIERS": "/no/tiers.toml", "SMTP_URL": "smtp://ada:hush@127.0.0.1:1"}
    said += manage(away, "doctor", code=1)
    assert "REPAIR  TALLYGATE_CONFIG, /no/such.toml, cannot be read" in said
    assert "REPAIR  TALLYGATE_TIERS, /no/tiers.toml, cannot be read" in said
    assert "REPAIR  mail cannot be sent: ConnectionRefusedError" in said
    assert "hush" not in said
    assert environment["TALLYGATE_SECRET"] not in said


@pytest.mark.anyio
async def test_doctor_tries_the_store_the_mail_server_and_stripe(environment: dict[str, str], bucket: FrontDoor) -> None:
    """What answers as it should is good: a bucket that takes no second file under one name, a mail server, a key of Stripe's; nothing is left behind or sent."""
    async with simulated() as stripe, test_mail.server() as (port, heard):
        chosen = {
            **environment,
            **bucket.environment,
            "SMTP_URL": f"smtp://127.0.0.1:{port}",
            "STRIPE_API_URL": stripe.url,
            "STRIPE_SECRET_KEY": "sk_test_doctor",
            "STRIPE_WEBHOOK_SECRET": "whsec_hush",
            "APPS_DOMAIN": "apps.example.net",
        }
        before = len(bucket.requests)
        said = await asyncio.to_thread(manage, chosen, "doctor")
        assert "    ok  files are kept in s3://files/tallygate/x\n" in said
        assert "    ok  the mail server answers\n" in said
        assert "    ok  Stripe answers, in test mode\n" in said
        assert [request.split(" ")[0] for request in bucket.requests[before:]] == ["PUT", "PUT", "GET", "POST"]  # S3 deletes by POST
        assert [line.split(" ")[0] for line in heard] == ["ehlo", "QUIT"]
        bad = {**chosen, "STRIPE_SECRET_KEY": "pk_hush", "STRIPE_WEBHOOK_SECRET": "", "S3_SECRET_ACCESS_KEY": "hush", "APPS_DOMAIN": "apps.example.com"}
        told = await asyncio.to_thread(manage, {**bad, "TALLYGATE_PUBLIC_URL": "https://api.example.com"}, "doctor", code=1)
    assert "REPAIR  files cannot be kept in s3://files/tallygate/x: Unavailable; the log above has the reason\n" in told
    assert "REPAIR  Stripe does not do what it is asked: Stripe does not accept this installation's key.\n" in told
    assert "REPAIR  STRIPE_WEBHOOK_SECRET is not set" in told
    assert "  note  apps share example.com with the gateway" in told
    assert "hush" not in said + told


def test_doctor_tries_every_upstream(environment: dict[str, str], tmp_path: Path) -> None:
    """An upstream that takes connections is good, one that takes none is to be repaired; no request is made, and no key is printed."""
    config = tmp_path / "tallygate.toml"
    with socket.create_server(("127.0.0.1", 0)) as there:
        config.write_text(f'[upstreams.a]\ndialect = "anthropic"\nurl = "http://127.0.0.1:{there.getsockname()[1]}"\nkey_env = "SOME_KEY"\n')
        chosen = {**environment, "TALLYGATE_CONFIG": str(config), "SOME_KEY": "hush"}
        said = manage(chosen, "doctor")
        assert "    ok  upstream a: anthropic, answers\n" in said
    gone = manage(chosen, "doctor", code=1)
    assert "REPAIR  upstream a: anthropic, cannot be reached: ConnectionRefusedError\n" in gone
    assert "hush" not in said + gone


@pytest.mark.parametrize(
    ("port", "data", "said"),
    [
        ("abc", "d", "Error: abc is not a port: choose one from 1 to 65535 with PORT.\n"),
        ("70000", "d", "70000 is not a port: choose one from 1 to 65535 with PORT.\n"),
        ("", "file", "The folder {}/file cannot be used (file exists): choose another one with TALLYGATE_DATA.\n"),
    ],
)
def test_a_run_that_cannot_begin_says_so_in_one_sentence(environment: dict[str, str], tmp_path: Path, port: str, data: str, said: str) -> None:
    """A port that is none and a folder that is none: one sentence, no usage and no traceback; an empty PORT is as none."""
    (tmp_path / "file").touch()
    told = manage({"PATH": environment["PATH"], "PORT": port, "TALLYGATE_DATA": str(tmp_path / data)}, "run", code=1)
    assert told == said.format(tmp_path)


def test_settings_of_a_run_that_cannot_be_read_are_a_sentence(environment: dict[str, str]) -> None:
    """Beside a run of somebody else a command says which file it cannot read; here one that nobody can, because root can read all others."""
    said = manage({"PATH": environment["PATH"], "TALLYGATE_DATA": "d" * 300}, "audit", code=1)
    assert said.startswith(f"Error: {'d' * 300}/server.env cannot be read (File name too long)")
    assert "Traceback" not in said


def test_a_missing_environment_is_one_line_for_each_variable(environment: dict[str, str]) -> None:
    """A command without its environment says what is missing, exits 1, and shows no traceback."""
    said = manage({"PATH": environment["PATH"], "TALLYGATE_SECRET": "changeme" + "x" * 40}, "audit", code=1)
    assert "DATABASE_URL: Field required" in said
    assert "REDIS_URL: Field required" in said
    assert "Traceback" not in said


def test_migrate_is_safe_to_repeat_and_check_says_so(environment: dict[str, str]) -> None:
    """`migrate` twice changes nothing, and `migrate --check` exits 0 after it."""
    assert manage(environment, "migrate") == "the database is up to date\n"
    assert manage(environment, "migrate", "--check") == "the database is up to date\n"


def test_two_migrations_at_once_on_an_empty_database_both_succeed(environment: dict[str, str], servers: Servers) -> None:
    """The advisory lock lets one migrate and the other find nothing to do; `--check` exits 1 before."""
    servers.create_database("commands_empty")
    try:
        empty = {
            **environment,
            "DATABASE_URL": servers.app_dsn("commands_empty"),
            "MIGRATION_DATABASE_URL": servers.owner_dsn("commands_empty"),
        }
        assert "the database lacks 0001_spine" in manage(empty, "migrate", "--check", code=1)
        running = [
            subprocess.Popen([sys.executable, "-m", "manage", "migrate"], cwd=ROOT, env=empty, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        said = [process.communicate()[0] for process in running]
        assert [process.returncode for process in running] == [0, 0], said
        assert manage(empty, "migrate", "--check") == "the database is up to date\n"
    finally:
        servers.drop_database("commands_empty")


def test_a_migration_takes_as_long_as_it_takes(environment: dict[str, str], servers: Servers) -> None:
    """No statement of `migrate` has a time limit, whatever the database's own is: each definition is looked at while it is made."""
    servers.create_database("commands_slow")
    try:
        servers.postgres.run_sql(
            """
            ALTER DATABASE commands_slow SET statement_timeout = '20s';
            CREATE TABLE seen (bound text);
            GRANT INSERT ON seen TO public;
            CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_setting('statement_timeout')); END $$;
            CREATE EVENT TRIGGER look ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX', 'CREATE FUNCTION') EXECUTE FUNCTION look();
            """,
            database="commands_slow",
        )
        slow = {
            **environment,
            "DATABASE_URL": servers.app_dsn("commands_slow"),
            "MIGRATION_DATABASE_URL": servers.owner_dsn("commands_slow"),
        }
        assert manage(slow, "migrate") == "the database is up to date\n"
        assert servers.postgres.run_sql("SELECT DISTINCT bound FROM seen", database="commands_slow").split() == ["0"]
    finally:
        servers.drop_database("commands_slow")


def test_a_workspace_is_made_credited_and_charged_by_command(environment: dict[str, str]) -> None:
    """Workspace, person, key and credit are one command each; the transfer carries reason and actor, and a repeat with a ref adds nothing."""
    workspace_id = manage(environment, "workspace", "create", "Acme", "--owner", "ada@example.com", "--timezone", "Asia/Kathmandu").strip()
    assert manage(environment, "keys", "create", "--workspace", workspace_id, "--mode", "test").startswith("tg_test_")
    said = manage(environment, "credit", workspace_id, "12.50", "--reason", "welcome", "--actor", "ops", "--ref", "w1")
    assert "12.50 USD; the balance is 12.50 USD" in said
    assert "the balance is 12.50 USD" in manage(environment, "credit", workspace_id, "12.50", "--reason", "welcome", "--actor", "ops", "--ref", "w1")
    said = manage(environment, "credit", workspace_id, "99", "--reason", "welcome", "--ref", "w1", code=1)
    assert said == "Error: The ref w1 was used before, for 12.50 USD: nothing was added.\n"
    *told, last = manage(environment, "audit").splitlines()
    assert told == [f"sound: {name}: {promise}" for name, promise in CHECKS.values()]
    assert last == "the books are sound"
    for address in ("", "ada", "a b@c"):
        for command in (("user", "create", "--", address), ("login", "--email", address), ("workspace", "create", "B", "--owner", address)):
            assert manage(environment, *command, code=1) == "Error: This is no e-mail address.\n"
    for wrong in ("-1", "0", "1e400", "NaN", "0.0000001", "five"):
        assert "Error:" in manage(environment, "credit", "--reason", "x", "--", workspace_id, wrong, code=1)
    assert "No such IANA time zone" in manage(environment, "workspace", "create", "B", "--timezone", "Mars/Olympus", code=1)
    assert "There is a person ada@example.com already" in manage(environment, "user", "create", "Ada@example.com", code=1)


def test_the_first_operator_is_made_by_command(environment: dict[str, str]) -> None:
    """There is no default account: an operator is made by command, and gets a key once."""
    made = json.loads(manage(environment, "operator", "create", "--email", "root@example.com"))
    assert made["key"].startswith("tg_live_")
    again = json.loads(manage(environment, "operator", "create", "--email", "root@example.com", "--workspace", made["workspace_id"]))
    assert again["user_id"] == made["user_id"]
    assert again["key"] != made["key"]


async def _delete_chat(dsn: str) -> None:
    """Delete the example app, as the registry does."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("UPDATE app SET deleted_at = now() WHERE slug = 'chat'; UPDATE app_name SET app_id = NULL WHERE slug = 'chat'")
    finally:
        await connection.close()


def test_demo_is_made_once_and_renewed_when_asked(environment: dict[str, str]) -> None:
    """The demo's keys are printed once, and where its chat is until its owner deletes that; `--renew` prints new ones, and the demo credit is given once."""
    first = json.loads(manage(environment, "demo"))
    assert set(first) == {"api_key", "operator_key", "workspace_id", "chat_url"}
    assert json.loads(manage(environment, "demo")) == {"chat_url": first["chat_url"]}
    asyncio.run(_delete_chat(environment["MIGRATION_DATABASE_URL"]))
    renewed = json.loads(manage(environment, "demo", "--renew"))
    assert "chat_url" not in renewed
    assert renewed["workspace_id"] == first["workspace_id"]
    assert renewed["api_key"] != first["api_key"]
    assert "the balance is 11.00 USD" in manage(environment, "credit", first["workspace_id"], "1", "--reason", "look")


def test_login_prints_a_session_only_where_the_local_issuer_is_believed(environment: dict[str, str]) -> None:
    """`login` prints one JWT; without the local issuer it is one sentence."""
    assert manage(environment, "login").count(".") == 2
    assert "TALLYGATE_LOCAL_ISSUER" in manage({**environment, "TALLYGATE_LOCAL_ISSUER": "false"}, "login", code=1)


async def _prices_noted(dsn: str, model: str) -> list[tuple[str, str]]:
    """Who entered prices of a model, and from where, as the audit log has it."""
    connection = await asyncpg.connect(dsn)
    try:
        noted = "SELECT actor_name, changes -> 'source' ->> 1 FROM audit_event WHERE action = 'price.create' AND changes -> 'model' ->> 1 = $1"
        return [tuple(row) for row in await connection.fetch(noted, model)]
    finally:
        await connection.close()


def test_prices_are_imported_dated_from_a_file_and_from_genai_prices(environment: dict[str, str], tmp_path: Path) -> None:
    """A price file and the genai-prices package each enter dated versions, which the audit log has; the same import again enters none; a malformed one
    enters nothing."""
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[model]]\nname = "llama-x"\nusd_per_million = { uncached_input = "0.15", output = "0.60" }\n'
        'row = [{ bucket = "output", usd = "1.20", above_input_tokens = 200000 }]\n'
    )
    assert "1 of 1 models have a new price version" in manage(environment, "prices", "import", "--file", str(path), "--effective-from", "2027-01-01")
    assert "0 of 1 models have a new price version" in manage(environment, "prices", "import", "--file", str(path))
    assert asyncio.run(_prices_noted(environment["DATABASE_URL"], "llama-x")) == [("manage.py prices import", "file prices.toml")]
    said = manage(environment, "prices", "import", "--from-genai-prices", "mistral", "--dry-run")
    assert "nothing was entered" in said
    for wrong in ('"-1"', '"NaN"', '"inf"', '"1e30"', '"0.0000001"'):
        path.write_text(f'[[model]]\nname = "bad"\nusd_per_million = {{ output = {wrong} }}\n')
        assert "Error:" in manage(environment, "prices", "import", "--file", str(path), code=1)
    assert "Usage:" in manage(environment, "prices", "import", code=2)


def test_a_price_in_a_file_is_read_to_its_last_digit(environment: dict[str, str], tmp_path: Path) -> None:
    """No float stands between a price file and the book: a number that is not exact in picodollars is refused, not rounded."""
    path = tmp_path / "prices.toml"
    path.write_text('[[model]]\nname = "digits"\nusd_per_million = { output = 0.10000000000000000001 }\n')
    assert "This is no price" in manage(environment, "prices", "import", "--file", str(path), "--dry-run", code=1)
    path.write_text('[[model]]\nname = "digits"\nusd_per_million = { output = 12.123456 }\n')
    assert "digits: output 12.123456" in manage(environment, "prices", "import", "--file", str(path), "--dry-run")



def test_without_a_database_every_command_says_so_in_a_sentence(environment: dict[str, str]) -> None:
    """A database that is away is a sentence, not a traceback."""
    said = manage({**environment, "DATABASE_URL": "postgresql://a:hush@127.0.0.1:1/x"}, "audit", code=1)
    assert "the database or the queue cannot be reached" in said
    assert "Traceback" not in said
    assert "hush" not in said


def test_commands_borrow_the_environment_of_a_first_run(environment: dict[str, str], tmp_path: Path) -> None:
    """Beside `make run`, a command without an environment takes the one that the run wrote into its data folder."""
    (tmp_path / "server.env").write_text("".join(f"{name}='{value}'\n" for name, value in environment.items() if name not in ("PATH", "TALLYGATE_DATA")))
    assert manage({"PATH": environment["PATH"], "TALLYGATE_DATA": str(tmp_path)}, "audit").endswith("\nthe books are sound\n")


def test_a_tier_is_given_listed_and_ended(environment: dict[str, str]) -> None:
    """`subscription grant` gives a tier once for a ref, `list` shows it with its quotas, `end` ends it; a tier that is none is one sentence."""
    workspace = manage(environment, "workspace", "create", "Subscribers").strip()
    assert manage(environment, "subscription", "list", workspace) == "no subscription\n"
    given = manage(environment, "subscription", "grant", workspace, "pro", "--reason", "partner", "--ref", "p1").strip()
    assert manage(environment, "subscription", "grant", workspace, "pro", "--reason", "partner", "--ref", "p1").strip() == given
    listed = manage(environment, "subscription", "list", workspace)
    assert f"{given}  pro  granted active  entitled" in listed
    assert "tokens in 5h: 0 of 2000000" in listed
    assert "There is no such tier." in manage(environment, "subscription", "grant", workspace, "gold", "--reason", "partner", code=1)
    assert manage(environment, "subscription", "end", given).startswith("pro ended at ")
    assert "not entitled" in manage(environment, "subscription", "list", workspace)
