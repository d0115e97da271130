"""Logs: one JSON object a line on standard error, and nothing in it that is secret."""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

_SECRET = re.compile(
    r"(tg_(?:live|test)_)[0-9A-Za-z]+|(?i:(bearer )[\w.~+/-]{8,}=*)|((?:sk|rk|pk|whsec)[-_])[\w-]{8,}|(eyJ[\w-]{6})[\w-]*\.[\w-]+\.[\w-]+"
    r"|(://[^\s\"/:@]*:)[^\s\"/@]+(?=@)"
)
_VALUES = re.compile(r"\\n(?:DETAIL|HINT):  (?:[^\"\\]|\\.)*")
"""What Postgres tells of a row beside its message, as it stands inside a JSON string."""
QUIET = ("tortoise", "tortoise.db_client", "asyncpg", "arq", "arq.worker", "aiohttp", "asyncio", "uvicorn", "uvicorn.error", "uvicorn.access", "strawberry.execution")
"""Libraries that print parameters, documents or addresses at lower levels."""


def mask(_: Any, __: str, line: str) -> str:
    """Take out of a finished line what looks like a credential, wherever it stands, and the values that Postgres adds to an error."""
    return _SECRET.sub(lambda found: f"{next(group for group in found.groups() if group is not None)}…", _VALUES.sub("", line))


def configure() -> None:
    """Set up logging for the process: structlog's events and the libraries' warnings in one shape; tracebacks without local variables."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    ]
    rendering: list[Any] = [structlog.processors.JSONRenderer(), mask]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
