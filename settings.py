"""What the environment says, as one frozen value; it refuses to be made when something is missing or unsafe."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

VERSION = "0.1.0"
PLACEHOLDERS = ("changeme", "change-me", "placeholder", "example", "secret-goes-here")


class SettingsError(Exception):
    """The environment cannot be served from; the message is one line for each fault, for a person to read."""


class Settings(BaseSettings):
    """Every setting, with its environment name as alias, its default and its reason.

    Secrets are `SecretStr`: they never print. A list is written as comma-separated values.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=False, env_ignore_empty=True)

    database_url: Annotated[SecretStr, Field(alias="DATABASE_URL", description="Postgres 18, as the application's role: postgresql://role:password@host/database.")]
    migration_database_url: Annotated[
        SecretStr | None,
        Field(alias="MIGRATION_DATABASE_URL", description="The same database as the role that owns the tables; only `migrate` uses it."),
    ] = None
    redis_url: Annotated[SecretStr, Field(alias="REDIS_URL", description="Valkey 9 or Redis 6.2 and later: redis://host:6379/0, or unix:///path.")]
    secret: Annotated[
        SecretStr,
        Field(alias="TALLYGATE_SECRET", min_length=32, description="At least 32 random characters; signs local sessions and invitations."),
    ]
    public_url: Annotated[str, Field(alias="TALLYGATE_PUBLIC_URL", description="The base address as clients see it.")] = "http://127.0.0.1:8000"
    host: Annotated[str, Field(alias="HOST", description="The address to listen on.")] = "127.0.0.1"
    hosts: Annotated[
        str,
        Field(
            alias="TALLYGATE_HOSTS",
            description="Further names that requests may give as Host, comma-separated; *.example.com is all below it, * any. "
            "The public URL's own, localhost and addresses always may.",
        ),
    ] = ""
    trusted_proxies: Annotated[
        str,
        Field(
            alias="TALLYGATE_TRUSTED_PROXIES",
            description="Networks of proxies, comma-separated, as 10.0.0.0/8: X-Forwarded-For and Forwarded are believed from them, and from nobody else.",
        ),
    ] = ""
    port: Annotated[int, Field(alias="PORT", ge=0, le=65535, description="The port to listen on.")] = 8000
    data: Annotated[Path, Field(alias="TALLYGATE_DATA", description="The folder of embedded servers, mail that nobody sends, and demo.env.")] = Path(".tallygate")
    config: Annotated[
        Path | None, Field(alias="TALLYGATE_CONFIG", description="A TOML file that names upstreams, models and issuers of sessions; see docs/upstreams.md.")
    ] = None
    tiers: Annotated[
        Path | None, Field(alias="TALLYGATE_TIERS", description="A TOML file of the tiers that are offered, in place of the shipped one; see docs/tiers.md.")
    ] = None
    worker: Annotated[
        Literal["inside", "apart"], Field(alias="TALLYGATE_WORKER", description="Whether jobs run in the server's process or in `manage.py worker`.")
    ] = "apart"
    signup: Annotated[
        Literal["invite", "open"], Field(alias="TALLYGATE_SIGNUP", description="Whether a first log-in makes a workspace, or needs an invitation.")
    ] = "invite"
    local_issuer: Annotated[
        bool, Field(alias="TALLYGATE_LOCAL_ISSUER", description="Whether sessions made by `manage.py login` are believed.")
    ] = False
    echo: Annotated[bool, Field(alias="TALLYGATE_ECHO", description="Whether the built-in model `echo` is offered.")] = True
    smtp_url: Annotated[
        SecretStr | None, Field(alias="SMTP_URL", description="smtp://user:password@host:587; without it, mail is written to the data folder.")
    ] = None
    mail_from: Annotated[str, Field(alias="TALLYGATE_MAIL_FROM", description="The sender of mail.")] = "tallygate@localhost"
    webhooks_private: Annotated[
        bool, Field(alias="TALLYGATE_WEBHOOKS_PRIVATE", description="Whether webhooks may go to private addresses and over plain HTTP; for development.")
    ] = False
    storage: Annotated[
        str | None,
        Field(
            alias="TALLYGATE_STORAGE",
            description="Where files are kept: s3://bucket or s3://bucket/prefix; without it, the folder `files` in TALLYGATE_DATA.",
        ),
    ] = None
    s3_endpoint: Annotated[
        str | None, Field(alias="S3_ENDPOINT", description="The store's address, for R2 https://<account>.r2.cloudflarestorage.com; without it, Amazon's.")
    ] = None
    s3_region: Annotated[str, Field(alias="S3_REGION", description="The store's region; `auto` for R2.")] = "auto"
    s3_access_key_id: Annotated[str | None, Field(alias="S3_ACCESS_KEY_ID", description="The id of the store's access key.")] = None
    s3_secret_access_key: Annotated[SecretStr | None, Field(alias="S3_SECRET_ACCESS_KEY", description="The store's access key.")] = None
    uploads: Annotated[
        Literal["store", "gateway"],
        Field(
            alias="TALLYGATE_UPLOADS",
            description="Where clients send the files of a deployment: to the bucket itself, or to the gateway, for a bucket that they cannot reach.",
        ),
    ] = "store"
    apps_domain: Annotated[
        str,
        Field(
            alias="APPS_DOMAIN",
            description="The domain below which every app has its origin; its own registrable domain in production. See docs/apps/hosting.md.",
        ),
    ] = "localhost"
    calls_kept_days: Annotated[
        int | None,
        Field(
            alias="TALLYGATE_CALLS_KEPT_DAYS",
            ge=31,
            le=3650,
            description="For how many days single calls are kept, by whole months; reports stay. Without it, for ever. A workspace may keep its own for less.",
        ),
    ] = None
    metrics_token: Annotated[
        SecretStr | None, Field(alias="TALLYGATE_METRICS_TOKEN", description="The bearer token of /metrics; without it, /metrics does not exist.")
    ] = None
    stripe_secret_key: Annotated[
        SecretStr | None, Field(alias="STRIPE_SECRET_KEY", description="The secret key of the account at Stripe; without it, payments are off. See docs/stripe.md.")
    ] = None
    stripe_webhook_secret: Annotated[
        SecretStr | None,
        Field(alias="STRIPE_WEBHOOK_SECRET", description="The signing secret of POST /webhooks/stripe; two with a comma between while it is rolled."),
    ] = None
    stripe_api_url: Annotated[str | None, Field(alias="STRIPE_API_URL", description="Another base address of Stripe's API: a simulator's, for tests.")] = None
    stripe_simulator: Annotated[
        bool,
        Field(alias="TALLYGATE_STRIPE_SIMULATOR", description="Whether a simulator stands in for Stripe while STRIPE_SECRET_KEY is not set; never in production."),
    ] = False
    database_pool: Annotated[int, Field(alias="TALLYGATE_DATABASE_POOL", ge=2, le=200, description="Database connections of one process.")] = 12
    batch: Annotated[
        int, Field(alias="TALLYGATE_BATCH", ge=1, le=2000, description="The most admissions or settlements in one commit; 1 switches batching off.")
    ] = 500
    hold_seconds: Annotated[
        int, Field(alias="TALLYGATE_HOLD_SECONDS", ge=4, le=3600, description="How long a hold lives without a sign of life of its call.")
    ] = 60
    instalment_tokens: Annotated[
        int, Field(alias="TALLYGATE_INSTALMENT_TOKENS", ge=1, le=1_000_000, description="Output tokens that a stream's hold reserves ahead.")
    ] = 4096
    rate_per_second: Annotated[
        int, Field(alias="TALLYGATE_RATE_PER_SECOND", ge=0, le=100_000, description="Requests a second that each key may make after its burst; 0 for no such limit.")
    ] = 1000
    rate_burst: Annotated[
        int, Field(alias="TALLYGATE_RATE_BURST", ge=1, le=1_000_000, description="Requests that each key may make at once, refilled at the rate above.")
    ] = 5000
    on_client_loss: Annotated[
        Literal["cancel", "drain"],
        Field(
            alias="TALLYGATE_ON_CLIENT_LOSS",
            description="Whether a stream is cancelled when its client leaves, or read to its end. A whole answer is always read: its provider bills it.",
        ),
    ] = "cancel"

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The signing secrets of Stripe's webhook, none where it is not configured."""
        text = self.stripe_webhook_secret.get_secret_value() if self.stripe_webhook_secret else ""
        return tuple(filter(None, (part.strip() for part in text.split(","))))

    @model_validator(mode="after")
    def refuse_shared_origins(self) -> Self:
        """Raise ValueError when the gateway's own address would be an app's, or a store or a domain is none."""
        if self.storage is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?", self.storage):
            raise ValueError("TALLYGATE_STORAGE is written as s3://bucket or s3://bucket/prefix")
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?", self.apps_domain):
            raise ValueError("APPS_DOMAIN is a domain in lower case, with a port if need be")
        host = urlsplit(self.public_url).hostname or ""
        if host.endswith(f".{self.apps_domain.partition(':')[0]}"):
            raise ValueError("APPS_DOMAIN covers TALLYGATE_PUBLIC_URL: apps need a domain of their own")
        return self

    @model_validator(mode="after")
    def refuse_placeholders(self) -> Self:
        """Raise ValueError when a secret is an obvious placeholder."""
        if any(word in self.secret.get_secret_value().lower() for word in PLACEHOLDERS):
            raise ValueError("TALLYGATE_SECRET is a placeholder: generate one with `openssl rand -base64 48`")
        return self


    @model_validator(mode="after")
    def refuse_odd_networks(self) -> Self:
        """Raise ValueError when a trusted proxy is no network."""
        for text in listed(self.trusted_proxies):
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise ValueError(f"TALLYGATE_TRUSTED_PROXIES has {text[:60]!r}, which is no network like 10.0.0.0/8 or 192.0.2.7") from None
        return self

    @property
    def answered_hosts(self) -> tuple[str, ...]:
        """The names that a request's Host may have, without ports: those listed, and the public URL's."""
        return (*listed(self.hosts), urlsplit(self.public_url).hostname or "")

    @property
    def trusted_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks whose word on a client's address is believed."""
        return tuple(ipaddress.ip_network(text) for text in listed(self.trusted_proxies))


def listed(text: str) -> tuple[str, ...]:
    """Return the values of a setting that is a list."""
    return tuple(value for value in (part.strip() for part in text.split(",")) if value)


def load() -> Settings:
    """Read the environment once.

    Raises SettingsError, with one line for each variable that is missing or malformed, and never with its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise SettingsError("\n".join(lines)) from None
