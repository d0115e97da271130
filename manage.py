"""The operator's command line: `python -m manage --help`."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from settings import VERSION, Settings, SettingsError, load


def _borrow_environment() -> None:
    """Take the environment of `make run` where this process has none of its own, so that commands just work beside it."""
    file = Path(os.environ.get("TALLYGATE_DATA") or ".tallygate") / "server.env"
    if "DATABASE_URL" in os.environ:
        return
    try:
        lines = file.read_text().splitlines() if file.is_file() else []
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read ({error.strerror}): run this as the user of `make run`, or set DATABASE_URL and its companions") from None
    for line in lines:
        name, separator, value = line.partition("=")
        if separator:
            os.environ.setdefault(name, "".join(shlex.split(value)))


def _settings() -> Settings:
    _borrow_environment()
    try:
        return load()
    except SettingsError as error:
        raise click.ClickException(f"the environment is incomplete:\n{error}") from None


def _run(work: Callable[[Settings], Coroutine[Any, Any, None]], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run a command's work; what an operator can repair is one sentence, everything else is a traceback."""
    import asyncpg

    from domain.errors import Refusal

    settings = _settings()
    import logs

    logs.configure()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(work(settings))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    except Refusal as refusal:
        raise click.ClickException(refusal.message) from None
    except (OSError, asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError) as error:
        raise click.ClickException(f"the database or the queue cannot be reached: {error}") from None
    except asyncpg.UndefinedTableError:
        raise click.ClickException("the database is not up to date: run `python -m manage migrate` first") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tallygate")
def main() -> None:
    """Run and look after a Tallygate installation."""


@main.command()
@click.option("--port", default=lambda: os.environ.get("PORT") or "8000", show_default="PORT, else 8000")
@click.option("--data", default=lambda: os.environ.get("TALLYGATE_DATA") or ".tallygate", show_default="TALLYGATE_DATA, else .tallygate")
def run(port: str, data: str) -> None:
    """Run everything on this machine: embedded servers, migrations, a demo workspace, the gateway and its worker."""
    from embedded.first_run import run as first_run

    # texts, because what is wrong with them is one sentence of the run's own, not a page of usage
    if not (port.isascii() and port.isdigit()):
        raise click.ClickException(f"{port} is not a port: choose one from 1 to 65535 with PORT.")
    sys.exit(first_run(Path(data), int(port)))


@main.command()
def serve() -> None:
    """Serve the gateway and the control plane until SIGTERM."""
    from uvicorn.loops.auto import auto_loop_factory

    import app

    _run(app.serve, auto_loop_factory())  # uvloop where there is one: it halves what a byte costs


@main.command()
def hosting() -> None:
    """Serve apps and nothing else until SIGTERM, for visitors' traffic of its own."""
    from uvicorn.loops.auto import auto_loop_factory

    import app

    _run(app.serve_apps, auto_loop_factory())


@main.command()
def worker() -> None:
    """Do what is queued until SIGTERM."""
    from jobs.commands import work

    _run(work)


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the database is behind this code.")
def migrate(*, check: bool) -> None:
    """Bring the database up to date; safe to repeat."""
    from operations import database

    if check:

        async def look(settings: Settings) -> None:
            behind = await database.behind(settings)
            if behind:
                raise click.ClickException(f"the database lacks {', '.join(behind)}")
            click.echo("the database is up to date")

        _run(look)
        return

    async def change(settings: Settings) -> None:
        await database.migrate(settings)
        click.echo("the database is up to date")

    _run(change)


@main.command()
@click.option("--renew", is_flag=True, help="Make new keys although there is a demo workspace.")
def demo(*, renew: bool) -> None:
    """Make the demo workspace and its chat, and print one line of JSON: where the chat is, and the keys unless they were made before."""
    from operations import demo as demo_workspace

    async def make(settings: Settings) -> None:
        click.echo(json.dumps(await demo_workspace.make(settings, renew=renew)))

    _run(make)


@main.command()
@click.option("--email", default="demo@localhost", show_default=True, help="Whom to sign in; made when there is nobody.")
@click.option("--name", help="The display name.")
def login(email: str, name: str | None) -> None:
    """Print a session token of the local issuer, good for 12 hours."""
    from clients.issuers import local_session
    from domain.access.users import check_email

    async def sign(settings: Settings) -> None:
        if not settings.local_issuer:
            raise click.ClickException("sessions of the local issuer are not believed here: set TALLYGATE_LOCAL_ISSUER=true, on a machine of your own only")
        click.echo(local_session(settings.secret.get_secret_value(), check_email(email), name, at=datetime.now(UTC)))

    _run(sign)


@main.group()
def operator() -> None:
    """People and keys that run the installation."""


@operator.command("create")
@click.option("--email", required=True)
@click.option("--name")
@click.option("--workspace", "workspace_id", type=click.UUID, help="Where the key belongs; a new workspace when absent.")
def operator_create(email: str, name: str | None, workspace_id: Any) -> None:
    """Make an operator, and print a key with every scope, once."""
    from operations import people

    async def make(settings: Settings) -> None:
        click.echo(json.dumps(await people.create_operator(settings, email, name, workspace_id)))

    _run(make)


@main.group()
def workspace() -> None:
    """Tenants."""


@workspace.command("create")
@click.argument("name")
@click.option("--owner", help="The address of the person who owns it.")
@click.option("--timezone", default="UTC", show_default=True)
def workspace_create(name: str, owner: str | None, timezone: str) -> None:
    """Make a workspace and print its id."""
    from operations import people

    async def make(settings: Settings) -> None:
        click.echo(await people.create_workspace(settings, name, owner, timezone))

    _run(make)


@main.group()
def user() -> None:
    """People of the local issuer."""


@user.command("create")
@click.argument("email")
@click.option("--name")
def user_create(email: str, name: str | None) -> None:
    """Make a person and print the id."""
    from operations import people

    async def make(settings: Settings) -> None:
        click.echo(await people.create_user(settings, email, name))

    _run(make)


@main.group()
def keys() -> None:
    """API keys."""


@keys.command("create")
@click.option("--workspace", "workspace_id", type=click.UUID, required=True)
@click.option("--name")
@click.option("--mode", type=click.Choice(["live", "test"]), default="live", show_default=True)
@click.option("--kind", type=click.Choice(["pay_per_token", "subscription"]), default="pay_per_token", show_default=True)
def keys_create(workspace_id: Any, name: str | None, mode: str, kind: str) -> None:
    """Make a key for a workspace and print it, once."""
    from operations import people

    async def make(settings: Settings) -> None:
        click.echo(await people.create_key(settings, workspace_id, name, mode, kind))

    _run(make)


@main.command()
@click.argument("workspace_id", type=click.UUID)
@click.argument("usd")
@click.option("--reason", required=True, help="Why; it stands in the ledger.")
@click.option("--actor", default=lambda: os.environ.get("USER", "operator"), help="Who; it stands in the ledger.")
@click.option("--ref", help="Makes a repeat add nothing.")
def credit(workspace_id: Any, usd: str, reason: str, actor: str, ref: str | None) -> None:
    """Add dollars to a workspace's balance: a transfer with a reason and an actor."""
    from operations import money

    async def give(settings: Settings) -> None:
        click.echo(await money.credit(settings, workspace_id, usd, reason, actor, ref))

    _run(give)


@main.group()
def subscription() -> None:
    """Who has which tier."""


@subscription.command("grant")
@click.argument("workspace_id", type=click.UUID)
@click.argument("tier")
@click.option("--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="When it ends, in UTC; never when absent.")
@click.option("--reason", required=True, help="Why.")
@click.option("--actor", default=lambda: os.environ.get("USER", "operator"), help="Who.")
@click.option("--ref", help="Makes a repeat give nothing more.")
def subscription_grant(workspace_id: Any, tier: str, until: datetime | None, reason: str, actor: str, ref: str | None) -> None:
    """Give a workspace a tier without payment, and print the subscription's id."""
    from operations import subscriptions

    async def give(settings: Settings) -> None:
        click.echo(await subscriptions.grant(settings, workspace_id, tier, until.replace(tzinfo=UTC) if until else None, reason, actor, ref))

    _run(give)


@subscription.command("list")
@click.argument("workspace_id", type=click.UUID)
def subscription_list(workspace_id: Any) -> None:
    """Print a workspace's subscriptions and where its quotas stand."""
    from operations import subscriptions

    async def show(settings: Settings) -> None:
        for line in await subscriptions.show(settings, workspace_id):
            click.echo(line)

    _run(show)


@subscription.command("end")
@click.argument("subscription_id", type=click.UUID)
@click.option("--actor", default=lambda: os.environ.get("USER", "operator"), help="Who.")
def subscription_end(subscription_id: Any, actor: str) -> None:
    """End a granted subscription now."""
    from operations import subscriptions

    async def stop(settings: Settings) -> None:
        click.echo(await subscriptions.end(settings, subscription_id, actor))

    _run(stop)


@main.group()
def stripe() -> None:
    """What is sold at Stripe, and what moved there."""


@stripe.command("sync")
def stripe_sync() -> None:
    """Make a product and a price at Stripe for every tier that costs something; safe to repeat."""
    from operations import money

    async def make(settings: Settings) -> None:
        await money.sync_stripe(settings)

    _run(make)


@stripe.command("entries")
@click.option("--unexplained", is_flag=True, help="Only those that neither a transfer nor an explanation accounts for.")
@click.option("--most", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, the newest first.")
def stripe_entries(most: int, *, unexplained: bool) -> None:
    """Read Stripe's balance transactions and print the newest, each with the transfer or the explanation that accounts for it."""
    from operations import money

    async def show(settings: Settings) -> None:
        await money.list_entries(settings, most, unexplained=unexplained)

    _run(show)


@stripe.command("explain")
@click.argument("entry_id")
@click.option("--reason", required=True, help="What it is.")
@click.option("--actor", default=lambda: os.environ.get("USER", "operator"), help="Who says so.")
def stripe_explain(entry_id: str, reason: str, actor: str) -> None:
    """Account for a balance transaction that is none of the customers', so that the audit no longer tells it."""
    from operations import money

    async def explain(settings: Settings) -> None:
        click.echo(await money.explain_entry(settings, entry_id, reason, actor))

    _run(explain)


@main.group()
def prices() -> None:
    """What models cost."""


@prices.command("import")
@click.option("--file", "path", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A TOML file as docs/prices.md describes.")
@click.option("--from-genai-prices", "vendor", metavar="VENDOR", help="A vendor of the genai-prices package, such as anthropic or openai.")
@click.option("--model", "models", multiple=True, help="Only these models of the vendor.")
@click.option("--effective-from", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="Since when, in UTC; now when absent.")
@click.option("--dry-run", is_flag=True, help="Print what would be entered.")
def prices_import(path: Path | None, vendor: str | None, models: tuple[str, ...], effective_from: datetime | None, *, dry_run: bool) -> None:
    """Enter dated price versions; a model whose newest version says the same is left alone."""
    from operations import money

    if (path is None) == (vendor is None):
        raise click.UsageError("name either --file or --from-genai-prices")

    async def enter(settings: Settings) -> None:
        await money.import_prices(settings, path, vendor, models, effective_from.replace(tzinfo=UTC) if effective_from else None, dry_run=dry_run)

    _run(enter)


@main.group()
def upstream() -> None:
    """Providers that calls are sent to."""


@upstream.command("check")
@click.argument("name", required=False)
@click.option("--model", help="Which model to ask; one that the upstream serves when absent.")
def upstream_check(name: str | None, model: str | None) -> None:
    """Prove upstreams with a tiny call each, which the provider bills; exit 1 when one is not well."""
    from operations import upstreams

    async def look(settings: Settings) -> None:
        if not await upstreams.check(settings, name, model):
            sys.exit(1)

    _run(look)


@main.command()
def audit() -> None:
    """Print every broken invariant of the books; exit 1 when there is one."""
    from operations import money

    async def look(settings: Settings) -> None:
        if await money.audit(settings):
            sys.exit(1)

    _run(look)


@main.command()
def doctor() -> None:
    """Say what is configured, reachable, out of date or unsafe; exit 1 when something must be repaired."""
    from operations import doctor as examination

    _borrow_environment()
    sys.exit(asyncio.run(examination.examine()))


if __name__ == "__main__":
    main()
