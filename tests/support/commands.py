"""Commands of `manage.py`, each in a process of its own that has nothing left to import."""

import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_PROCESSES = multiprocessing.get_context("forkserver")
_OPERATIONS = [f"operations.{name}" for name in ("database", "demo", "doctor", "money", "people", "subscriptions")]
_PROCESSES.set_forkserver_preload(["pytest", "manage", "logs", "app", "jobs.commands", "uvloop", *_OPERATIONS])
"""Importing these takes longer than any command does."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    output: str
    errors: str


def run(environment: Mapping[str, str], *arguments: str) -> Done:
    """Run `python -m manage` with these arguments and this environment alone."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        process = start(environment, output, errors, *arguments)
        process.join()
        assert process.exitcode is not None
        return Done(process.exitcode, output.read_text(), errors.read_text())


def start(environment: Mapping[str, str], output: Path, errors: Path, *arguments: str) -> ForkServerProcess:
    """Start such a command, which adds what it prints to these files."""
    process = _PROCESSES.Process(target=_command, args=(dict(environment), str(output), str(errors), arguments), daemon=True)
    process.start()
    return process


def _command(environment: Mapping[str, str], output: str, errors: str, arguments: tuple[str, ...]) -> None:
    for descriptor, path in ((1, output), (2, errors)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter(environment.get("PYTHONWARNINGS", "default"))  # type: ignore[arg-type]  # tests name actions only
    sys.argv = ["manage.py", *arguments]

    import manage

    manage.main(prog_name="python -m manage")
