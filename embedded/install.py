"""Make `.venv` and put exactly the locked packages into it; run by `make` with the machine's Python, before anything is installed.

`python -I embedded/install.py [--into FOLDER] <lock> ...`: the first lock is installed; the others are parts of it. Nothing is done, and
no network used, when this lock was installed already. A fault is one sentence on stderr and return code 1. Standard library only.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 14)
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 28)  # the wheels of the embedded servers are built for it
VENV = Path(".venv")
MARK = "installed-locks"  # a file of the environment, there once that is whole: the hashes of the locks that are installed in it


class Unfit(Exception):
    """This machine or interpreter cannot be used; the message is one sentence."""


def refuse_unfit() -> None:
    """Raise Unfit unless this is CPython 3.11 to 3.14 on a Linux whose wheels exist."""
    name = f"{sys.executable} ({platform.python_implementation()} {platform.python_version()})"
    if sys.implementation.name != "cpython" or not OLDEST <= sys.version_info[:2] <= NEWEST or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Unfit(f"Tallygate needs CPython 3.11 to 3.14 with its global lock, and {name} is not one: name another with PYTHON=.")
    try:
        library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        library, version = "", ""
    new_enough = library == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= GLIBC
    if sys.platform != "linux" or platform.machine() not in MACHINES or sys.maxsize < 1 << 32 or not new_enough:
        found = f"{platform.system()} {platform.machine()} with {f'{library} {version}'.strip() or 'another C library'}"
        raise Unfit(f"`make` needs 64-bit Linux (x86_64, aarch64) with glibc 2.28 or later, and this is {found}: use docker-compose.yml.")


def installer(venv: Path) -> list[str]:
    """The command that installs into an environment; raises Unfit when this Python has neither ensurepip nor pip."""
    inside = str(venv / "bin" / "python")
    if find_spec("venv") and find_spec("ensurepip"):
        return [inside, "-m", "pip"]
    if find_spec("venv") and find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", inside]
    major, minor = sys.version_info[:2]
    raise Unfit(
        f"{sys.executable} cannot make a virtual environment (module ensurepip is missing): "
        f"install its package (Debian: python{major}.{minor}-venv), or name another Python with PYTHON=."
    )


def make_environment(venv: Path, pip: Sequence[str]) -> None:
    """Make an environment unless a whole one is there whose interpreter still starts; raises Unfit."""
    python, mark = venv / "bin" / "python", venv / MARK
    if mark.exists() and python.exists() and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return
    if venv.exists():
        mark.unlink(missing_ok=True)  # first: a removal that is interrupted leaves no whole environment
        shutil.rmtree(venv)
    own_pip = [] if pip[0] == str(python) else ["--without-pip"]
    made = subprocess.run([sys.executable, "-m", "venv", *own_pip, venv], check=False)  # noqa: S603  # this interpreter
    if made.returncode != 0:
        raise Unfit(f"The virtual environment {venv} could not be made; the reason stands above.")
    mark.touch()


def install(venv: Path, locks: Sequence[Path], pip: Sequence[str]) -> None:
    """Install the first lock, unless the mark says that it is installed; raises Unfit."""
    mark = venv / MARK
    hashes = {lock.name: hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks}
    if f"{locks[0].name} {hashes[locks[0].name]}" in mark.read_text().splitlines():
        return
    packages = sum(1 for line in locks[0].read_text().splitlines() if "==" in line)
    sys.stdout.write(f"Installing {packages} packages into {venv} (once) ...\n")
    sys.stdout.flush()
    mark.write_text("")  # an interrupted installation is none
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--root-user-action=ignore"]
    options = ["--require-hashes", "--only-binary=:all:", *quiet]
    settings = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # of a user's configuration, these two would stop it
    done = subprocess.run([*pip, "install", *options, "-r", str(locks[0])], env=settings, check=False)  # noqa: S603  # pip
    if done.returncode != 0:
        raise Unfit(f"The packages of {locks[0]} could not be installed; the reason stands above.")
    mark.write_text("".join(f"{name} {value}\n" for name, value in hashes.items()))


def main(names: Sequence[str]) -> int:
    """Bring an environment up to the lock of this name; 0, or 1 after one sentence."""
    venv = Path(names[1]) if names[0] == "--into" else VENV
    locks = [Path(name) for name in (names[2:] if names[0] == "--into" else names)]
    try:
        refuse_unfit()
        with locks[0].open("rb") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            pip = installer(venv)
            make_environment(venv, pip)
            install(venv, locks, pip)
    except Unfit as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stderr.write(f"The virtual environment {venv.absolute()} cannot be made ({(error.strerror or 'refused').lower()}).\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
