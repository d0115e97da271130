"""Commands of `manage.py`, each in a process of its own that has nothing left to import."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "manage", "logs", "app", "operations.money", "operations.people", "operations.subscriptions", "operations.demo"])
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
        process = _PROCESSES.Process(target=_command, args=(dict(environment), arguments, folder))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Done(process.exitcode, *((Path(folder) / name).read_text() for name in ("output", "errors")))


def _command(environment: Mapping[str, str], arguments: Sequence[str], folder: str) -> None:
    for descriptor, name in ((1, "output"), (2, "errors")):
        opened = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["manage.py", *arguments]

    import manage

    manage.main(prog_name="python -m manage")
