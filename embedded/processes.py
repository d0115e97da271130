"""Child processes that never outlive the process that asked for them, and locks on the folders that they use."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from embedded.keeper import HEARD

KEEPER = Path(__file__).with_name("keeper.py")
SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its final zero
Steps = Sequence[tuple[str, float]]


def nothing(*_: object) -> None:
    """Say nothing; check nothing."""


class EmbeddedError(Exception):
    """A server cannot be had; the message is one sentence for a person."""


class Kept:
    """A command in a session of its own, stopped in order when this process stops it, ends, or is killed.

    A terminal's Ctrl-C does not reach it. `steps` are signal names and seconds of patience, followed by SIGKILL. `pid` is the
    command's. Raises EmbeddedError when the command cannot be started at all.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        steps: Steps,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: IO[bytes] | int | None = None,
        errors: IO[bytes] | int | None = None,
    ) -> None:
        heard, status = os.pipe()
        stop = ",".join(f"{name}:{seconds}" for name, seconds in steps)
        # A fork is in our process group until it has a session of its own: a Ctrl-C at that moment would kill it. The keeper begins with what is
        # blocked here, and hears it once it can stop its command in order; we hear it below.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            self._keeper = subprocess.Popen(  # noqa: S603  # commands of ours
                [sys.executable, "-I", "-S", str(KEEPER), str(status), stop, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                env=None if env is None else dict(env),
                cwd=cwd,
                pass_fds=[status],
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(status)
        with os.fdopen(heard, "rb") as told:
            line = told.readline()
        if not line:
            self.stop()
            raise EmbeddedError(f"The process {Path(command[0]).name} could not be started.")
        self.pid = int(line)

    @property
    def keeper_pid(self) -> int:
        """The process id of the keeper."""
        return self._keeper.pid

    def poll(self) -> int | None:
        """The command's return code (128 + n for signal n), or None while it runs."""
        code = self._keeper.poll()
        if code is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()  # nobody may stop what has ended, and then nobody would close our end of the pipe
        return code

    def wait(self, check: Callable[[], None]) -> int:
        """Wait for the command's end and return its code; when `check`, called ten times a second, raises, the command is stopped."""
        try:
            while self._keeper.poll() is None:
                check()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._keeper.wait(0.1)
        finally:
            self.stop()
        return self._keeper.returncode

    def stop(self) -> int:
        """Ask for the steps of the stop, wait for the end, and return the command's code."""
        assert self._keeper.stdin is not None
        if not self._keeper.stdin.closed:
            self._keeper.stdin.close()
        return self._keeper.wait()

    def kill(self) -> int:
        """Send SIGKILL to the command itself, as a crash would, and wait for the end."""
        if self._keeper.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self.stop()


class FolderLock:
    """A lock that one process holds on a folder; its death frees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Take the lock, unless it is held already; raises EmbeddedError when another process holds it."""
        if self._descriptor is not None:
            return self
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise EmbeddedError(
                f"The folder {self.path.parent} is in use by another run: stop that one, or choose another folder with TALLYGATE_DATA."
            ) from None
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SocketFolder:
    """A folder for a server's socket: the wanted one, or a private one under the temporary directory.

    The second is taken when the wanted path is too long for a socket, or holds characters that a URL would have to escape (which
    the readers of connection URLs treat differently). `name` is the longest file name that will be put into it.
    """

    def __init__(self, wanted: Path, name: str) -> None:
        self._temporary = not fits(wanted, name)
        if self._temporary:
            for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108  # mkdtemp makes a private folder below it
                if fits(Path(parent) / "tallygate-xxxxxxxx", name) and os.access(parent, os.W_OK):
                    self.path = Path(tempfile.mkdtemp(prefix="tallygate-", dir=parent))
                    break
            else:
                raise EmbeddedError(
                    f"No folder has a path short enough for a socket ({SOCKET_PATH_BYTES} bytes): choose a shorter one with TALLYGATE_DATA."
                )
        else:
            self.path = wanted
            self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def remove(self) -> None:
        """Remove a folder under the temporary directory; one in the wanted place stays."""
        if self._temporary:
            for left in self.path.iterdir():
                left.unlink(missing_ok=True)
            self.path.rmdir()


def fits(folder: Path, name: str) -> bool:
    """Whether a socket of this name in this folder has a path that the system and every URL reader accept."""
    path = str(folder / name)
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES and quote(path) == path


def open_log(path: Path, keep_bytes: int = 8 << 20) -> IO[bytes]:
    """Open a log for appending; one that has grown beyond `keep_bytes` becomes `<name>.1` first."""
    if path.exists() and path.stat().st_size > keep_bytes:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def works_in(pid: int, folder: Path, names: Sequence[str]) -> bool:
    """Whether this process id is a server of one of these program names that works in this folder (Linux /proc)."""
    try:
        same_folder = os.path.samefile(f"/proc/{pid}/cwd", folder)
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return False
    return same_folder and program in names


def was_given(pid: int, name: str, value: str) -> bool:
    """Whether this process id was started with this environment variable (Linux /proc)."""
    try:
        return os.fsencode(f"{name}={value}") in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def stop_left_running(pid: int, steps: Steps) -> None:
    """Stop what an earlier, killed run left, until it holds nothing any more; raises EmbeddedError when it may not be stopped."""
    born = _birth(pid)
    for name, patience in (*steps, ("KILL", 60.0)):
        until = time.monotonic() + patience
        try:
            os.kill(pid, signal.Signals[f"SIG{name}"])
        except ProcessLookupError:
            return
        except PermissionError:
            raise EmbeddedError(f"Process {pid} of an earlier run by another user still runs: stop it first.") from None
        while time.monotonic() < until:
            if _birth(pid) != born or born is None:
                return
            time.sleep(0.02)
    raise EmbeddedError(f"Process {pid} of an earlier run does not end: stop it first.")


def _birth(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None when it has ended and closed its files and sockets (Linux /proc)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
