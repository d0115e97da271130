"""What a process writes into its log, and what it never does; seen from a process of its own, because logging is the process's."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
import asyncpg, structlog
import logs
logs.configure()
kind, *values = sys.argv[1:]
for value in values:
    if kind == "text":
        structlog.get_logger().info(f"found {value} here", call="kept")
    elif kind == "bytes":
        structlog.get_logger().info("found", header=value.encode(), call="kept")
    elif kind == "key":
        structlog.get_logger().info("found", inner={value: [1, {value}]}, call="kept")
    elif kind == "library":
        logging.getLogger("uvicorn.error").warning("found %s", value)
    else:
        error = asyncpg.CheckViolationError("new row violates check constraint")
        error.detail = f"Failing row contains (1, {value}, \\"quoted\\")."
        try:
            raise error if kind == "postgres" else ValueError(f"bad {value}")
        except Exception:
            structlog.get_logger().exception("failed", call="kept")
"""
SECRETS = {
    "tg_live_canary7Zq0canary7Zq0canary7Zq0abcdef": "tg_live_…",
    "Bearer canary7Zq0canary": "Bearer …",
    "sk-ant-canary7Zq0canary": "sk-…",
    "eyJhbGciOi.canary7Zq0.canary7Zq0": "eyJhbGciO…",
    "postgresql://app:canary7Zq0@db.example.com/x": "postgresql://app:…@db.example.com/x",
    "redis://:canary7Zq0@valkey:6379/0": "redis://:…@valkey:6379/0",
}


def written(kind: str, *values: str) -> list[str]:
    """Log values in one way, and return the line of each."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind, *values], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == len(values)
    return lines


@pytest.mark.parametrize("kind", ["text", "bytes", "key", "library", "exception"])
def test_a_credential_is_masked_wherever_it_stands(kind: str) -> None:
    """Keys, tokens and passwords of addresses are masked in messages, bytes, names of fields, libraries' warnings and tracebacks, and the line stays JSON."""
    for line, shown in zip(written(kind, *SECRETS), SECRETS.values(), strict=True):
        assert "canary" not in line
        assert shown in json.dumps(json.loads(line), ensure_ascii=False)


def test_what_postgres_tells_of_a_row_is_not_logged() -> None:
    """A database error is logged with its message, and without the values of its row: they may be a customer's."""
    [line] = written("postgres", "canary7Zq0")
    assert "canary" not in line
    told = json.loads(line)
    assert (told["event"], told["call"]) == ("failed", "kept")
    assert told["exception"][0]["exc_value"] == "new row violates check constraint"
