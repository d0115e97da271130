"""The processes of a benchmark: where they run, when they answer, and what they cost by /proc."""

import contextlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TICK_MICROSECONDS = 1_000_000 // os.sysconf("SC_CLK_TCK")
READY_SECONDS = 60.0


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Start the children of this block on these cores; this process itself goes back to where it was."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def split_cores() -> tuple[set[int], set[int]]:
    """Return the core of the gateway under test and those of everybody else; both empty on a machine with one core."""
    cores = sorted(os.sched_getaffinity(0))
    return (set(cores[:1]), set(cores[1:])) if len(cores) > 1 else (set(), set())


def await_answer(port: int, path: str, alive: Callable[[], bool], *, secure: bool = False) -> None:
    """Wait until GET `path` answers 200 (any answer for the path `/`); raises RuntimeError when the process ends or stays mute.

    With `secure` it is asked over TLS, and its certificate is not looked at.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and alive():
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=blind) if secure else http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200 or path == "/":
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port}")


def cpu_microseconds(pid: int) -> int:
    """Return the processor time, user and system, of a process, its living descendants, and those it has waited for.

    Of what lives, by the scheduler's nanoseconds (`/proc/<pid>/task/*/schedstat`), because a short leg of few streams is no more than a few ticks;
    of the dead, and where a kernel keeps no schedstat, in ticks (`utime`, `stime`, `cutime`, `cstime` of `/proc/<pid>/stat`).
    """
    children: dict[int, list[int]] = {}
    ticks: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        number = int(entry.name)
        children.setdefault(int(fields[1]), []).append(number)
        ticks[number] = (int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]))
    total, waiting = 0, [pid]
    while waiting:
        number = waiting.pop()
        own, of_dead = ticks.get(number, (0, 0))
        exact = _scheduled_microseconds(number)
        total += (own * TICK_MICROSECONDS if exact is None else exact) + of_dead * TICK_MICROSECONDS
        waiting += children.get(number, [])
    return total


def _scheduled_microseconds(pid: int) -> int | None:
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except (OSError, IndexError):
        return None
    return total // 1000


def peak_memory_mebibytes(pid: int) -> float:
    """Return the largest resident size that a process has had."""
    return _memory_mebibytes(pid, "VmHWM")


def memory_mebibytes(pid: int) -> float:
    """Return the resident size that a process has now."""
    return _memory_mebibytes(pid, "VmRSS")


def _memory_mebibytes(pid: int, name: str) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
