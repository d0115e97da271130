"""How Tortoise reaches the database; `TORTOISE_ORM` is what its own command line reads."""

import os
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

TABLES = [
    "models.access",
    "models.money",
    "models.payments",
    "models.serving",
    "models.usage",
    "models.jobs",
    "models.apps",
    "models.alerts",
    "models.exports",
    "models.audit",
    "models.books",
    "models.reratings",
    "models.reconciliations",
]


def config(url: str, *, pool: int = 12, application: str = "tallygate") -> dict[str, Any]:
    """Return Tortoise's configuration for a postgresql:// URL.

    The host may be a socket folder (`?host=/folder`). Every connection has a bound on statements, locks and idle transactions, so that
    one that went astray cannot stop the others.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    credentials: dict[str, Any] = {
        "host": query.pop("host", parts.hostname or "localhost"),
        "port": int(query.pop("port", parts.port or 5432)),
        "user": unquote(parts.username or "postgres"),
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.lstrip("/")) or "tallygate",
        "minsize": min(2, pool),
        "maxsize": pool,
        "application_name": application,
        "server_settings": {
            "statement_timeout": "30s",
            "lock_timeout": "10s",
            "idle_in_transaction_session_timeout": "60s",
            "timezone": "UTC",
            "jit": "off",
        },
        "timeout": 10,
    }
    if "sslmode" in query:
        credentials["ssl"] = query["sslmode"]
    return {
        "connections": {"default": {"engine": "models.engine", "credentials": credentials}},
        "apps": {"models": {"models": TABLES, "default_connection": "default", "migrations": "models.migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


TORTOISE_ORM = config(os.environ.get("MIGRATION_DATABASE_URL") or os.environ.get("DATABASE_URL") or "postgresql:///tallygate")
