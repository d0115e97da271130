"""Commands under a keeper: how they end, and that they always do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.first_run import ROOT
from embedded.processes import EmbeddedError, FolderLock, Kept, SocketFolder
from tests.embedded.processes import over, wait_until


def shell(folder: Path, script: str, *steps: tuple[str, float]) -> Kept:
    """A shell in the folder; `ready` appears there when the script says so."""
    return Kept(["/bin/sh", "-c", script], steps=steps or (("TERM", 60.0),), cwd=folder)


def test_return_codes(folder: Path) -> None:
    """A command's own return code is told, 128 + n for a signal, and 127 for a program that does not exist."""
    assert shell(folder, "exit 7").wait(lambda: None) == 7
    assert shell(folder, "kill -9 $$").wait(lambda: None) == 137
    missing = Kept([folder / "nothing"], steps=(("TERM", 1.0),), errors=subprocess.DEVNULL)
    assert missing.wait(lambda: None) == 127


def test_steps_of_a_stop(folder: Path) -> None:
    """Each signal of the steps is sent when the patience after the one before is over, and SIGKILL at last."""
    script = "trap 'echo int >> said' INT; trap 'echo term >> said' TERM; touch ready; while true; do sleep 0.01; done"
    kept = shell(folder, script, ("INT", 0.2), ("TERM", 0.2))
    wait_until((folder / "ready").exists)
    assert kept.stop() == 137
    assert (folder / "said").read_text() == "int\nterm\n"
    assert kept.stop() == 137


def test_a_commands_own_children_go_with_it(folder: Path) -> None:
    """What the command started and left behind is ended with it."""
    kept = shell(folder, "sleep 600 & touch ready; wait")
    wait_until((folder / "ready").exists)
    assert len(over(folder)) == 3  # keeper, shell, sleep
    kept.kill()
    wait_until(lambda: over(folder) == {})


STORM = """
import os, signal, subprocess, sys
from embedded.processes import Kept

signal.signal(signal.SIGINT, lambda number, frame: None)
storm = f"import os, signal\\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\\nprint(flush=True)\\nwhile True: os.killpg({os.getpgrp()}, signal.SIGINT)"
storming = subprocess.Popen([sys.executable, "-c", storm], start_new_session=True, stdout=subprocess.PIPE)
storming.stdout.readline()
try:
    for _ in range(20):
        Kept(["sleep", "60"], steps=(("TERM", 5.0),)).stop()
finally:
    storming.kill()
print("all started")
"""


def test_a_ctrl_c_while_a_command_is_started() -> None:
    """A terminal's Ctrl-C in the middle of a start, before the command has a session of its own, leaves it to whoever starts it: the start succeeds."""
    told = subprocess.run([sys.executable, "-c", STORM], cwd=ROOT, start_new_session=True, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "all started\n"), told.stderr


def test_a_given_up_wait_stops_the_command(folder: Path) -> None:
    """When the check of a wait raises, the command is stopped before the exception goes on."""

    def give_up() -> None:
        raise LookupError

    kept = shell(folder, "sleep 600")
    with pytest.raises(LookupError):
        kept.wait(give_up)
    assert kept.poll() == 143
    assert over(folder) == {}


def test_a_fork_that_holds_the_pipe(folder: Path) -> None:
    """The command ends with the process that asked for it even when a fork of that process lives on with a copy of its pipe."""
    script = (
        "import os, sys, time; from pathlib import Path; from embedded.processes import Kept\n"
        "kept = Kept(['sleep', '600'], steps=(('TERM', 60.0),), cwd=Path(sys.argv[1]))\n"
        "fork = os.fork()\n"
        "if fork: print(kept.pid, fork, flush=True)\n"
        "time.sleep(600)"
    )
    asker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    command, fork = map(int, asker.stdout.readline().split())
    asker.kill()
    asker.wait()
    asker.stdout.close()
    wait_until(lambda: command not in over(folder))
    os.kill(fork, signal.SIGKILL)


def test_lock_of_a_folder(folder: Path) -> None:
    """A folder has one user; taking the lock again is no second user, and giving it back lets the next one in."""
    first, second = FolderLock(folder / "lock"), FolderLock(folder / "lock")
    assert first.acquire().acquire() is first
    with pytest.raises(EmbeddedError, match="is in use by another run"):
        second.acquire()
    first.release()
    second.acquire().release()
    first.release()


def test_no_folder_short_enough(folder: Path) -> None:
    """A name that fits nowhere is told in one sentence."""
    with pytest.raises(EmbeddedError, match=r"^No folder has a path short enough for a socket \(107 bytes\): .+TALLYGATE_DATA\.$"):
        SocketFolder(folder, "s" * 108)
