"""What runs over a folder, by the kernel's word."""

import os
import time
from collections.abc import Callable
from pathlib import Path

Found = dict[int, str]


def over(folder: Path) -> Found:
    """Every living process but this one that works in the folder, or names it in its command line or environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            named = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
        except OSError:
            continue  # ended meanwhile, or another user's
        if os.fsencode(folder) in named:
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def wait_until(true: Callable[[], bool]) -> None:
    """Return when it is true; a hang is the test run's to end."""
    while not true():
        time.sleep(0.02)
