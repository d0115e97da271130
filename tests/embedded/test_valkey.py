"""The embedded Valkey: what it keeps through every kind of end, and who can reach it."""

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from arq.connections import RedisSettings

from embedded.processes import EmbeddedError
from embedded.valkey import Valkey, program
from tests.embedded.processes import over, wait_until


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    """A started server with one key."""
    server = Valkey(folder / "v")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "41")
    yield server
    server.stop()
    assert over(folder) == {}


def kept(server: Valkey) -> object:
    """The value of the one key."""
    with redis.Redis.from_url(server.url) as client:
        return client.get("kept")


def test_data_survives_a_stop(valkey: Valkey) -> None:
    """A stopped server starts again with its keys, and a second start of a running one does nothing."""
    first = valkey.pid
    valkey.start()
    assert valkey.pid == first
    valkey.stop()
    valkey.start()
    assert kept(valkey) == b"41"


def test_data_survives_a_crash(valkey: Valkey) -> None:
    """After kill -9 the same object starts again with what was written to its file."""
    for _ in range(3):
        valkey.kill()
        valkey.start()
    assert kept(valkey) == b"41"


def test_crash_noticed_at_start(valkey: Valkey) -> None:
    """A server killed by somebody else is seen as not running, and `start()` starts it."""
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    wait_until(lambda: valkey.pid is None)
    valkey.start()
    assert kept(valkey) == b"41"


def test_server_of_a_killed_run_is_replaced(valkey: Valkey) -> None:
    """A server without a keeper over the same folder is stopped before a new one starts."""
    valkey.kill()
    path = valkey.socket_path
    path.unlink()
    command: list[str | Path] = [program(), "--port", "0", "--unixsocket", path, "--appendonly", "yes"]
    stray = subprocess.Popen(command, cwd=valkey.folder, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(path.exists)
    (valkey.folder / "valkey.pid").write_text(f"{stray.pid}\n")
    valkey.start()
    assert stray.wait() == 0
    assert kept(valkey) == b"41"


def test_stale_pid_file_of_another_program(valkey: Valkey) -> None:
    """A pid file whose number now belongs to another program harms neither."""
    valkey.kill()
    other = subprocess.Popen(["sleep", "600"], cwd=valkey.folder)
    try:
        (valkey.folder / "valkey.pid").write_text(f"{other.pid}\n")
        valkey.start()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_one_user_of_a_folder(valkey: Valkey) -> None:
    """A second server over the same folder is refused in one sentence."""
    with pytest.raises(EmbeddedError, match=r"^The folder .+/v is in use by another run: .+TALLYGATE_DATA\.$"):
        Valkey(valkey.folder).start()
    assert kept(valkey) == b"41"


@pytest.mark.parametrize("name", ["x" * 120, "two words", "a,b"], ids=["long", "space", "comma"])
def test_awkward_paths(folder: Path, name: str) -> None:
    """The URL means the same socket to redis-py and to arq wherever the folder lies."""
    server = Valkey(folder / name / "v")
    server.start()
    try:
        assert RedisSettings.from_dsn(server.url).unix_socket_path == str(server.socket_path)
        with redis.Redis.from_url(server.url) as client:
            assert client.ping() is True
    finally:
        server.stop()
    assert not server.folder.joinpath("valkey.pid").exists()


def test_only_a_private_socket(valkey: Valkey) -> None:
    """Nothing listens on TCP, the socket is its owner's alone, and keys are never evicted."""
    with redis.Redis.from_url(valkey.url) as client:
        options = {"port", "maxmemory-policy", "appendonly", "appendfsync", "save"}
        found = {name: client.config_get(name)[name] for name in options}
    assert found == {"port": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    assert stat.S_IMODE(valkey.socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(valkey.socket_path.parent.stat().st_mode) == 0o700
