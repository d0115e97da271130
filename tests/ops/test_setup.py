"""Setting up: the locks, and the sentences for machines that do not fit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """The packages of a lock with their versions."""
    return dict(PIN.findall((ROOT / name).read_text()))


def test_locks_agree() -> None:
    """The tests run on exactly the packages that are served from, and on some more."""
    served, tested = pins("requirements.lock"), pins("requirements-test.lock")
    assert served.items() < tested.items()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-test.lock", "requirements-s3.lock"])
def test_locks_are_hashed_and_name_no_host(name: str) -> None:
    """Every package has hashes, and no line says where it comes from."""
    text = (ROOT / name).read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert len(blocks) == len(pins(name))
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"https?://|index|find-links", text)


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run make in the repository without the variables of a make around it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")}
    program = shutil.which("make")
    assert program is not None
    given = {**kept, "PATH": path or kept["PATH"]}
    return subprocess.run([program, *arguments], cwd=ROOT, env=given, capture_output=True, text=True, check=False)


def test_no_interpreter(tmp_path: Path) -> None:
    """A machine without a fitting Python is told in one sentence."""
    done = make("install", path=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "Tallygate needs CPython 3.11 to 3.14, and none was found: install one, or name it with PYTHON=."
    )


def test_unknown_interpreter() -> None:
    """A name that is no program is told in one sentence."""
    done = make("install", "PYTHON=python-of-nobody")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "There is no interpreter python-of-nobody: name another one with PYTHON=."


def install(folder: Path, pretence: str = "pass") -> subprocess.CompletedProcess[str]:
    """Set up an environment in a folder, as `make install` does in the repository's."""
    run = f"sys.path.insert(0, {str(ROOT)!r}); from embedded.install import main; sys.exit(main(['requirements.lock']))"
    command = [sys.executable, "-c", f"import sys; {pretence}; {run}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_set_up(tmp_path: Path) -> None:
    """An environment is made once and installed into until that succeeds, again only when its lock changes or it is not whole.

    A package with a wrong hash is refused in one closing sentence.
    """
    lock, mark = tmp_path / "requirements.lock", tmp_path / ".venv" / "installed-locks"
    wheel = tmp_path / "nothing-1.0-py3-none-any.whl"
    wheel.touch()
    lock.write_text(f"nothing @ {wheel.as_uri()} --hash=sha256:{'0' * 64}\n")
    for _ in range(2):
        failed = install(tmp_path)
        assert failed.returncode == 1
        assert failed.stderr.splitlines()[-1] == "The packages of requirements.lock could not be installed; the reason stands above."
    lock.write_text("# nothing\n")
    assert install(tmp_path).stdout == "Installing 0 packages into .venv (once) ...\n"
    assert re.fullmatch(r"requirements\.lock [0-9a-f]{64}\n", mark.read_text())
    again = install(tmp_path)
    assert (again.stdout, again.stderr, again.returncode) == ("", "", 0)
    stray = tmp_path / ".venv" / "half-made"
    stray.touch()
    mark.unlink()
    assert install(tmp_path).returncode == 0
    assert not stray.exists()


@pytest.mark.parametrize(
    ("pretence", "sentence"),
    [
        ("sys.version_info = (3, 10, 2, 'final', 0)", r"Tallygate needs CPython 3\.11 to 3\.14 .+ is not one: name another with PYTHON=\."),
        (
            "import sysconfig; sysconfig.get_config_vars(); sys.platform = 'darwin'",
            r"`make` needs 64-bit Linux \(x86_64, aarch64\) with glibc 2\.28 or later, .+: use docker-compose\.yml\.",
        ),
        ("import platform; platform.machine = lambda: 'riscv64'", r"`make` needs 64-bit Linux .+ riscv64 .+: use docker-compose\.yml\."),
        ("import os; os.confstr = lambda name: None", r"`make` needs .+ with another C library: use docker-compose\.yml\."),
        ("import os; os.confstr = lambda name: 'glibc 2.17'", r"`make` needs .+ with glibc 2\.17: use docker-compose\.yml\."),
        ("sys.modules.update(ensurepip=None, pip=None)", r".+ cannot make a virtual environment .+: install its package .+PYTHON=\."),
    ],
    ids=["version", "system", "machine", "musl", "old-glibc", "no-ensurepip"],
)
def test_unfit_machine(tmp_path: Path, pretence: str, sentence: str) -> None:
    """A machine or interpreter that cannot be used is told in one sentence, and nothing is made."""
    (tmp_path / "requirements.lock").write_text("")
    done = install(tmp_path, pretence)
    assert re.fullmatch(sentence + "\n", done.stderr), done.stderr
    assert done.returncode == 1
    assert not (tmp_path / ".venv").exists()
