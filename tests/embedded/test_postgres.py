"""The embedded Postgres: what it keeps through every kind of end, and whom it lets in."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from embedded.postgres import SOCKET_NAME, Postgres, programs
from embedded.privileges import unprivileged
from embedded.processes import EmbeddedError
from tests.embedded.processes import over, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """asyncpg needs asyncio."""
    return "asyncio"


@pytest.fixture
def postgres(folder: Path) -> Iterator[Postgres]:
    """A started server with one row."""
    server = Postgres(folder / "p", settings={"fsync": "off"})  # only processes are killed here, not the machine
    server.start()
    server.run_sql("CREATE TABLE kept (id int); INSERT INTO kept VALUES (41)")
    yield server
    server.stop()
    assert over(folder) == {}


def test_data_survives_a_stop(postgres: Postgres) -> None:
    """A stopped server starts again with its rows, and a second start of a running one does nothing."""
    first = postgres.pid
    postgres.start()
    assert postgres.pid == first
    postgres.stop()
    assert postgres.pid is None
    postgres.start()
    assert postgres.run_sql("SELECT id FROM kept") == "41"


def test_data_survives_a_crash(postgres: Postgres) -> None:
    """After kill -9 of the postmaster the same object starts again with every committed row (F20)."""
    for number in range(3):
        postgres.run_sql(f"INSERT INTO kept VALUES ({number})")
        postgres.kill()
        postgres.start()
    assert postgres.run_sql("SELECT count(*) FROM kept") == "4"


def test_crash_noticed_at_start(postgres: Postgres) -> None:
    """A postmaster that was killed by somebody else is seen as not running, and `start()` starts it."""
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    wait_until(lambda: postgres.pid is None)
    postgres.start()
    assert postgres.run_sql("SELECT id FROM kept") == "41"


def test_stale_pid_files_of_another_program(postgres: Postgres) -> None:
    """Pid files whose number now belongs to a living program of the same user do not stop a start, nor does the start stop that program."""
    postgres.kill()
    prefix = unprivileged(postgres.folder, programs() / "postgres").prefix
    other = subprocess.Popen([*prefix, "sleep", "600"])
    try:
        for file in (postgres.data / "postmaster.pid", postgres.folder / "socket" / SOCKET_NAME):
            rest = file.read_text().split("\n")[1:]
            file.write_text("\n".join([str(other.pid), *rest]))
        postgres.start()
        assert postgres.run_sql("SELECT id FROM kept") == "41"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_server_of_a_killed_run_is_replaced(postgres: Postgres) -> None:
    """A postmaster without a keeper, as some earlier run may have left, is stopped before a new one starts over its data."""
    socket_folder = str(postgres.socket_folder)
    postgres.kill()
    prefix = unprivileged(postgres.folder, programs() / "postgres").prefix
    command: list[str | Path] = [*prefix, programs() / "postgres", "-D", postgres.data, "-k", socket_folder, "-h", ""]
    stray = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    ready: list[str | Path] = [programs() / "pg_isready", "-q", "-h", socket_folder]
    wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
    postgres.start()
    assert stray.wait() == 0
    assert postgres.pid not in (None, stray.pid)
    assert postgres.run_sql("SELECT id FROM kept") == "41"


def test_killed_keeper_leaves_no_server(postgres: Postgres) -> None:
    """kill -9 of the keeper ends the server too, and the next start works at once."""
    assert postgres.keeper_pid is not None
    os.kill(postgres.keeper_pid, signal.SIGKILL)
    wait_until(lambda: postgres.pid is None)
    postgres.start()
    assert postgres.run_sql("SELECT id FROM kept") == "41"


def test_half_made_data_is_made_again(folder: Path) -> None:
    """What a kill left in the middle of the first start is thrown away."""
    (folder / "p" / "data.new" / "base").mkdir(parents=True)
    server = Postgres(folder / "p", settings={"fsync": "off"})
    server.start()
    assert server.run_sql("SELECT 1") == "1"
    server.stop()


def test_one_user_of_a_folder(postgres: Postgres) -> None:
    """A second server over the same folder is refused in one sentence, and the first one lives on."""
    with pytest.raises(EmbeddedError, match=r"^The folder .+/p is in use by another run: .+TALLYGATE_DATA\.$"):
        Postgres(postgres.folder).start()
    assert postgres.run_sql("SELECT id FROM kept") == "41"


def test_data_of_another_release(postgres: Postgres) -> None:
    """Data of another major release is refused in one sentence, untouched."""
    postgres.stop()
    version = postgres.data / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"^The data in .+ is of Postgres 17, and this is Postgres 18: .+\.$"):
        postgres.start()
    assert version.read_text() == "17\n"


@pytest.mark.parametrize("name", ["x" * 120, "two words", "a,b", "ümläut %41"], ids=["long", "space", "comma", "escapes"])
async def test_awkward_paths(folder: Path, name: str) -> None:
    """Where the folder's own path cannot carry a socket, a private folder does, and goes with the server."""
    server = Postgres(folder / name / "p", settings={"fsync": "off"})
    server.start()
    try:
        assert server.socket_folder.stat().st_mode & 0o777 == 0o700
        assert server.data.parent == folder / name / "p"
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SELECT current_setting('data_directory')") == str(server.data)
        await connection.close()
        used = server.socket_folder
    finally:
        server.stop()
    assert used.parent != folder / name / "p"
    assert not used.exists()


def test_only_a_private_socket(postgres: Postgres) -> None:
    """Nothing listens on TCP; the socket and its folder are their owner's alone."""
    assert postgres.run_sql("SHOW listen_addresses") == ""
    assert stat.S_IMODE(postgres.socket_folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((postgres.socket_folder / ".s.PGSQL.5432").stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.folder.stat().st_mode) == 0o700


def test_made_for_exact_books(folder: Path) -> None:
    """The data has checksums, sorts by code point without the machine's locales, and is written durably."""
    postgres = Postgres(folder / "p")
    postgres.start()
    values = postgres.run_sql("SHOW data_checksums; SHOW fsync; SHOW synchronous_commit; SHOW server_encoding; SHOW timezone")
    locale = postgres.run_sql("SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'postgres'")
    version = postgres.run_sql("SHOW server_version")
    postgres.stop()
    assert values.split() == ["on", "on", "on", "UTF8", "UTC"]
    assert locale == "b|C.UTF-8"
    assert version.startswith("18.")


def test_log_keeps_no_values(postgres: Postgres) -> None:
    """A refused statement leaves neither its text nor its values in the log."""
    with pytest.raises(EmbeddedError, match="violates unique constraint"):
        postgres.run_sql("CREATE TABLE once (word text UNIQUE); INSERT INTO once VALUES ('canary-5e1'), ('canary-5e1')")
    log = postgres.log.read_text()
    assert "duplicate key value violates unique constraint" in log
    assert "canary" not in log


def test_root_without_a_way_down(folder: Path) -> None:
    """Root is told in one sentence when no other user can run Postgres here; anyone else needs no way down."""
    script = (
        "import sys; from pathlib import Path; from embedded.privileges import unprivileged; from embedded.processes import EmbeddedError\n"
        "try: print(unprivileged(Path(sys.argv[1]), Path(sys.argv[2])).prefix)\n"
        "except EmbeddedError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder, programs() / "postgres"],
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = (
        f"Postgres does not run as root, and no other user of this machine may use {folder}: "
        "start again as an ordinary user, or name a folder open to everyone with TALLYGATE_DATA."
    )
    assert done.stdout.strip() == (expected if os.geteuid() == 0 else "()")
