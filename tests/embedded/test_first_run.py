"""The first run as a stranger meets it: a process of its own, real servers, stand-ins for the commands of `manage.py`."""

import fcntl
import json
import os
import pty
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from embedded.first_run import ROOT
from embedded.processes import FolderLock
from tests.embedded.processes import over, wait_until

CANARY_URL = "postgresql://canary@elsewhere/other"


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


class Run:
    """A run over a folder, with its output in files beside the folder."""

    def __init__(
        self, data: Path, *, port: int | None = None, kind: str = "ok", prefix: Sequence[str] = (), terminal: int | None = None
    ) -> None:
        self.data = data
        self.port = port or free_port()
        self.output = data.parent / "output"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TALLYGATE_BROWSER")}  # those are the suite's
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.embedded.stand_in", "run", data, str(self.port), kind],
                cwd=ROOT,
                env={**inherited, "MIGRATION_DATABASE_URL": CANARY_URL, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if terminal is None else lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )

    def said(self) -> str:
        """Everything that it has written."""
        return self.output.read_text()

    def until_said(self, words: str) -> str:
        """Wait for words, or for the end, and return everything said."""
        wait_until(lambda: words in self.said() or self.process.poll() is not None)
        assert words in self.said(), self.said()
        return self.said()

    def environment(self) -> dict[str, str]:
        """What the server was given."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=30) as answer:
            found: dict[str, str] = json.load(answer)
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return how the run left."""
        self.process.send_signal(number)
        return self.process.wait()


@pytest.fixture
def home(folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for runs; at the test's end nothing may run over it any more. What a failed test left is killed, so that it stops no other."""
    failed = request.session.testsfailed
    yield folder
    if request.session.testsfailed > failed:
        for pid in over(folder):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: over(folder) == {})


def assignments(path: Path) -> dict[str, str]:
    """The assignments of an environment file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_first_and_second_run(home: Path) -> None:
    """The first run says how to call it and keeps its keys in demo.env; the second, on another port, continues with the same keys."""
    data = home / ".tallygate"
    first = Run(data)
    said = first.until_said("Ctrl-C stops it.")
    base_url = f"http://127.0.0.1:{first.port}"
    assert assignments(data / "demo.env") == {
        "TALLYGATE_BASE_URL": base_url,
        "TALLYGATE_API_KEY": "tg_live_1",
        "TALLYGATE_OPERATOR_KEY": "tg_operator_1",
    }
    assert f"  Base URL   {base_url}\n" in said
    assert f"  GraphQL    {base_url}/graphiql\n  Chat       http://chat.localhost/\n" in said
    assert "  Key        tg_live_1\n" in said
    body = '{"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}'
    headers = "-H 'authorization: Bearer tg_live_1' -H 'content-type: application/json'"
    assert f"\ncurl {base_url}/v1/chat/completions {headers} -d '{body}'\n" in said
    given = first.environment()
    secret = given.pop("TALLYGATE_SECRET")
    socket_folder = data / "postgres" / "socket"
    assert given == {
        "DATABASE_URL": f"postgresql://tallygate_app@/tallygate?host={socket_folder}",
        "REDIS_URL": f"unix://{data}/valkey/socket/valkey.sock",
        "TALLYGATE_DATA": str(data),
        "TALLYGATE_PUBLIC_URL": base_url,
        "HOST": "127.0.0.1",
        "PORT": str(first.port),
        "TALLYGATE_WORKER": "inside",
        "TALLYGATE_LOCAL_ISSUER": "true",
        "TALLYGATE_SIGNUP": "open",
        "TALLYGATE_ECHO": "true",
        "TALLYGATE_STRIPE_SIMULATOR": "true",
    }
    assert re.fullmatch(r"[A-Za-z0-9_-]{64}", secret)
    for_operator = assignments(data / "server.env")
    assert for_operator["MIGRATION_DATABASE_URL"] == f"'postgresql://tallygate_owner@/tallygate?host={socket_folder}'"
    for name in ("secret", "demo.env", "server.env", "run.lock"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    first.until_said("The pages could not be built; everything else runs")
    assert first.end(signal.SIGTERM) == 0
    assert (data / "stopped-in-order").exists()
    assert over(home) == {}

    second = Run(data)
    said = second.until_said("Ctrl-C stops it.")
    assert second.environment()["TALLYGATE_SECRET"] == secret
    assert "  Key        tg_live_1\n" in said
    assert assignments(data / "demo.env")["TALLYGATE_BASE_URL"] == f"http://127.0.0.1:{second.port}"
    assert assignments(data / "demo.env")["TALLYGATE_API_KEY"] == "tg_live_1"
    assert second.end(signal.SIGINT) == 0
    assert over(home) == {}


def test_lost_keys_are_renewed(home: Path) -> None:
    """When demo.env is gone, the next run makes new keys, because keys are shown once."""
    first = Run(home / "d")
    first.until_said("Ctrl-C stops it.")
    first.end(signal.SIGTERM)
    (home / "d" / "demo.env").unlink()
    second = Run(home / "d")
    second.until_said("  Key        tg_live_2\n")
    second.end(signal.SIGTERM)
    assert assignments(home / "d" / "demo.env")["TALLYGATE_OPERATOR_KEY"] == "tg_operator_2"


def test_everything_killed(home: Path) -> None:
    """After kill -9 of every process, the next run just works, with the same keys."""
    first = Run(home / "d")
    first.until_said("Ctrl-C stops it.")
    for pid in over(home):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # its parent's death was faster
    first.process.wait()
    second = Run(home / "d")
    second.until_said("  Key        tg_live_1\n")
    assert second.end(signal.SIGTERM) == 0


def test_killed_supervisor_leaves_no_process(home: Path) -> None:
    """After kill -9 of the run itself its servers end by themselves, and the next run works at once."""
    first = Run(home / "d")
    first.until_said("Ctrl-C stops it.")
    assert len(over(home)) >= 7
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = Run(home / "d")
    second.until_said("  Key        tg_live_1\n")
    assert second.end(signal.SIGTERM) == 0
    wait_until(lambda: over(home) == {})


def test_killed_supervisor_of_a_busy_server(home: Path) -> None:
    """A server that will not end yet, because its run was killed in the middle of calls, does not keep the port from the next run."""
    first = Run(home / "d", kind="stubborn")
    first.until_said("Ctrl-C stops it.")
    first.end(signal.SIGKILL)
    second = Run(home / "d", port=first.port)
    second.until_said("  Key        tg_live_1\n")
    assert second.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("made", ["postgres", "postgres/data.new", "postgres/data", "valkey", "demo.env", "server.pid"])
def test_stopped_while_it_starts(home: Path, made: str) -> None:
    """A signal at any point of the start, here when a file appears, ends it as cleanly."""
    started = Run(home / "d")
    wait_until((home / "d" / made).exists)
    assert started.end(signal.SIGTERM) == 0
    assert over(home) == {}
    assert started.said().endswith("Stopped.\n")
    assert "Traceback" not in started.said()


def test_ctrl_c_at_a_terminal(home: Path) -> None:
    """Ctrl-C reaches the run alone, which stops the server while Postgres still answers it."""
    ours, theirs = pty.openpty()
    started = Run(home / "d", terminal=theirs)
    started.until_said("Ctrl-C stops it.")
    os.write(ours, b"\x03")
    assert started.process.wait() == 0
    os.close(ours)
    os.close(theirs)
    assert (home / "d" / "stopped-in-order").exists()
    assert over(home) == {}


def test_port_in_use(home: Path) -> None:
    """A port in use is one sentence, before any server starts."""
    with socket.socket() as user:
        user.bind(("127.0.0.1", 0))
        user.listen()
        port = user.getsockname()[1]
        refused = Run(home / "d", port=port)
        assert refused.process.wait() == 1
    assert refused.said() == f"Port {port} of 127.0.0.1 is in use: choose another one with PORT.\n"
    assert not (home / "d" / "postgres").exists()


def test_port_out_of_range(home: Path) -> None:
    """A number that is no port is one sentence."""
    refused = Run(home / "d", port=70000)
    assert refused.process.wait() == 1
    assert refused.said() == "70000 is not a port: choose one from 1 to 65535 with PORT.\n"


def test_second_run_over_one_folder(home: Path) -> None:
    """A second run over a folder in use is one sentence, and the first is not disturbed."""
    data = home / "d"
    data.mkdir()
    lock = FolderLock(data / "run.lock").acquire()
    refused = Run(data)
    assert refused.process.wait() == 1
    assert refused.said() == f"The folder {data} is in use by another run: stop that one, or choose another folder with TALLYGATE_DATA.\n"
    lock.release()
    assert not (data / "postgres").exists()


def test_folder_of_somebody_else(home: Path) -> None:
    """A folder with files that are not ours is refused in one sentence and left as it is."""
    (home / "d").mkdir(mode=0o755)
    (home / "d" / "thesis.txt").touch()
    refused = Run(home / "d")
    assert refused.process.wait() == 1
    assert refused.said() == f"The folder {home}/d holds files that are not Tallygate's: choose another one with TALLYGATE_DATA.\n"
    assert stat.S_IMODE((home / "d").stat().st_mode) == 0o755


def test_folder_that_cannot_be_made(home: Path) -> None:
    """A folder that cannot be used is one sentence."""
    (home / "file").touch()
    command = [sys.executable, "-m", "tests.embedded.stand_in", "run", str(home / "file" / "d"), str(free_port()), "ok"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"The folder {home}/file/d cannot be used (not a directory): choose another one with TALLYGATE_DATA.\n"


def test_server_that_dies(home: Path) -> None:
    """A server that ends by itself is said and stops everything; nothing is restarted."""
    dead = Run(home / "d", kind="dies")
    assert dead.process.wait() == 1
    assert dead.said().endswith("The server has ended by itself: everything else is stopped.\n")
    assert over(home) == {}


def test_postgres_that_dies(home: Path) -> None:
    """So is a Postgres that ends by itself."""
    started = Run(home / "d")
    started.until_said("Ctrl-C stops it.")
    os.kill(int((home / "d/postgres/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    assert started.process.wait() == 1
    assert "\nPostgres has ended by itself: everything else is stopped.\n" in started.said()


def test_failed_migration(home: Path) -> None:
    """A failed migration is one sentence, and nothing serves or stays."""
    failed = Run(home / "d", kind="unmigrated")
    assert failed.process.wait() == 1
    assert re.search(r"\n`python -c .+` failed with return code 5; nothing is left running\.\n$", failed.said())
    assert over(home) == {}


@pytest.mark.parametrize("name", ["two words", "y" * 110], ids=["space", "long"])
def test_awkward_paths(home: Path, name: str) -> None:
    """A data folder with spaces or a long path works, and leaves nothing in the temporary directory."""
    (home / name).mkdir()
    started = Run(home / name / "d")
    started.until_said("Ctrl-C stops it.")
    assert started.environment()["TALLYGATE_DATA"] == str(home / name / "d")
    sockets = Path(started.environment()["REDIS_URL"].removeprefix("unix://")).parent
    assert started.end(signal.SIGTERM) == 0
    assert not sockets.exists()


def test_ordinary_user(home: Path) -> None:
    """It works for an ordinary user as for root: when root runs the tests, they become `nobody` here.

    `nobody` keeps the right to read closed folders, because the clone and the interpreter may lie in one; Postgres and Valkey see
    a user that is not root.
    """
    prefix: list[str] = []
    data = home / "d"
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        rights = ["--inh-caps", "-all,+dac_override", "--ambient-caps", "-all,+dac_override", "--securebits", "+no_setuid_fixup"]
        setpriv = shutil.which("setpriv")
        assert setpriv is not None
        prefix = [setpriv, "--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups", *rights, "--"]
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
    started = Run(data, prefix=prefix)
    started.until_said("Ctrl-C stops it.")
    assert data.stat().st_uid != 0
    assert (data / "postgres" / "data").stat().st_uid == data.stat().st_uid
    assert (data / "secret").stat().st_uid == data.stat().st_uid
    assert started.end(signal.SIGTERM) == 0
    again = Run(data, prefix=prefix)
    again.until_said("  Key        tg_live_1\n")
    assert again.end(signal.SIGINT) == 0


def test_root_below_a_closed_folder(home: Path) -> None:
    """It works below a folder that only its owner may enter, whose mode stays as it is."""
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    started = Run(closed / "d")
    started.until_said("Ctrl-C stops it.")
    assert started.end(signal.SIGTERM) == 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == os.geteuid()
