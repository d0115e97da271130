"""Where there is no browser: a run says last that its browser stories were left out, and does not begin where they are required."""

import os
import subprocess
import sys

import pytest

from tests import conftest
from tests.support.chromium import REQUIRED, VARIABLE
from tests.support.gateway import ROOT


def test_what_was_not_run_is_said_last() -> None:
    """The last line of the output names the stories; nothing failed."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/browser"]
    environment = {**os.environ, VARIABLE: "no-browser-here", REQUIRED: ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"Browser stories were not run: there is no browser on the path, and {VARIABLE} names none."
    assert "deselected" in done.stdout


def test_what_is_required_is_not_left_out(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """With the variable that `.ci/run` sets, a run without a browser does not begin."""
    assert f"export {REQUIRED}=1" in (ROOT / ".ci" / "run").read_text()
    monkeypatch.setenv(VARIABLE, "no-browser-here")
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.UsageError, match="there is no browser"):
        conftest.pytest_configure(request.config)
