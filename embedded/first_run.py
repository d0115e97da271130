"""The first run: one command that starts everything on this machine, says how to call it, and leaves nothing behind."""

import errno
import http.client
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedded.postgres import Postgres
from embedded.processes import EmbeddedError, FolderLock, Kept, open_log, stop_left_running, was_given
from embedded.provision import APPLICATION, DATABASE, OWNER, provision
from embedded.valkey import Valkey

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "127.0.0.1"
PID_NAME = "server.pid"
LOCK_NAME = "run.lock"  # also the mark of a folder that is ours
MANAGE = (sys.executable, "-m", "manage")
STOP_CHILD = (("TERM", 30.0),)  # then SIGKILL
LOOK_SECONDS = 0.2
READY = "status 200"
SECRET_BYTES = 48
SERVERS = ("DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL")  # of the user's other installations


@dataclass(frozen=True)
class Commands:
    """The commands that a run starts, each in the repository's root; `console` is None when there is nothing to build.

    `demo` prints one JSON object as its last line: `api_key` and `operator_key` when it made them, not when they exist; with
    `--renew` it makes new ones; `chat_url` when there is an example to open. `serve` answers GET /readyz on HOST and PORT.
    """

    migrate: Sequence[str] = (*MANAGE, "migrate")
    demo: Sequence[str] = (*MANAGE, "demo")
    serve: Sequence[str] = (*MANAGE, "serve")
    console: Sequence[str] | None = (sys.executable, "-m", "console.build") if (ROOT / "console" / "build.py").exists() else None


class Stopped(Exception):
    """A signal asks for the end."""


def run(data: Path, port: int, commands: Commands | None = None) -> int:
    """Serve on 127.0.0.1:`port` with everything that is kept in the folder `data`, until SIGINT, SIGTERM or SIGHUP.

    Returns 0 after such a signal (deliberately not 130 or 143: being stopped is how a run ends), and 1, with one sentence on
    stderr, when it cannot start or when one of its processes dies. Nothing is restarted. Whatever the end, even a kill -9, no
    process stays, and the next run continues with the folder.
    """
    data = data.absolute()
    try:
        with _signals() as check, ExitStack() as stack:
            _serve(data, port, commands or Commands(), stack, check)
    except Stopped:
        _say("Stopped.")
        return 0
    except EmbeddedError as error:
        _say(str(error), sys.stderr.fileno())
        return 1
    return 1


def _serve(data: Path, port: int, commands: Commands, stack: ExitStack, check: Callable[[], None]) -> None:
    """Start everything, in order, on the stack that stops it in the opposite order, and watch it; never returns quietly."""
    _claim(data)
    stack.callback(FolderLock(data / LOCK_NAME).acquire().release)
    _stop_predecessor(data)
    _refuse_used_port(port)
    secret = _keep_secret(data / "secret")

    _say("Starting Postgres and Valkey ...")
    postgres, valkey = Postgres(data / "postgres", say=_say, check=check), Valkey(data / "valkey", say=_say, check=check)
    stack.callback(postgres.stop)
    postgres.start()
    stack.callback(valkey.stop)
    valkey.start()
    provision(postgres)

    base_url = f"http://{ADDRESS}:{port}"
    settings = {
        "DATABASE_URL": postgres.dsn(APPLICATION, DATABASE),
        "REDIS_URL": valkey.url,
        "TALLYGATE_SECRET": secret,
        "TALLYGATE_DATA": str(data),
        "TALLYGATE_PUBLIC_URL": os.environ.get("TALLYGATE_PUBLIC_URL", base_url),
        "HOST": ADDRESS,
        "PORT": str(port),
        "TALLYGATE_WORKER": "inside",
        "TALLYGATE_LOCAL_ISSUER": "true",
        "TALLYGATE_SIGNUP": "open",
        "TALLYGATE_ECHO": "true",
        "TALLYGATE_STRIPE_SIMULATOR": "true",  # a STRIPE_SECRET_KEY of the user's takes its place
    }
    if os.environ.get("TALLYGATE_CONFIG"):
        settings["TALLYGATE_CONFIG"] = str(Path(os.environ["TALLYGATE_CONFIG"]).absolute())
    owner = {**settings, "MIGRATION_DATABASE_URL": postgres.dsn(OWNER, DATABASE)}
    _write_private(data / "server.env", "".join(f"{name}={shlex.quote(value)}\n" for name, value in owner.items()))

    _child(commands.migrate, owner, check)
    keys, chat_url = _demo(data / "demo.env", base_url, commands.demo, settings, check)
    check()

    server = Kept(commands.serve, steps=STOP_CHILD, env=_environment(settings), cwd=ROOT)
    stack.callback(server.stop)
    (data / PID_NAME).write_text(f"{server.pid}\n")
    parts: dict[str, Callable[[], int | None]] = {
        "The server": server.poll,
        "Postgres": lambda: None if postgres.pid else 1,
        "Valkey": lambda: None if valkey.pid else 1,
    }
    said = time.monotonic()
    while (answer := _readiness(port)) != READY:
        check()
        _refuse_dead(parts)
        if time.monotonic() - said > 15:
            said = time.monotonic()
            _say(f"The server runs but is not ready: GET {base_url}/readyz gets {answer}.")
        time.sleep(LOOK_SECONDS)
    _refuse_dead(parts)
    _say(_greeting(base_url, keys["TALLYGATE_API_KEY"], data, chat_url))

    console = _start_console(commands.console, data / "console.log", stack)
    while True:
        check()
        _refuse_dead(parts)
        if console is not None and console.poll() is not None:
            code = console.stop()
            failed = f"The pages could not be built; everything else runs (see {data / 'console.log'})."
            _say("The pages are built." if code == 0 else failed)
            console = None
        time.sleep(LOOK_SECONDS)


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """Note every signal that asks for the end; the function given raises Stopped once there was one.

    The signal itself interrupts nothing: a start or a stop of a process is never left half done.
    """
    asked: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means what it says
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, lambda number, _frame: asked.append(number)) for number in numbers]

    def check() -> None:
        if asked:
            raise Stopped

    try:
        yield check
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _claim(data: Path) -> None:
    """Make the folder, or take one that is empty or ours, and close it to others."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (data / LOCK_NAME).exists() and any(data.iterdir()):
            raise EmbeddedError(f"The folder {data} holds files that are not Tallygate's: choose another one with TALLYGATE_DATA.")
        data.chmod(0o700)
        (data / LOCK_NAME).touch(mode=0o600)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise EmbeddedError(f"The folder {data} cannot be used ({reason}): choose another one with TALLYGATE_DATA.") from None


def _stop_predecessor(data: Path) -> None:
    """End a server that a killed run left with its calls: it holds the port, and its Postgres is gone."""
    path = data / PID_NAME
    if path.exists():
        pid = int(path.read_text().strip() or 0)
        if pid > 1 and was_given(pid, "TALLYGATE_DATA", str(data)):
            stop_left_running(pid, (("TERM", 5.0),))
        path.unlink()


def _refuse_used_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise EmbeddedError(f"{port} is not a port: choose one from 1 to 65535 with PORT.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that only has closing connections is free
        try:
            trial.bind((ADDRESS, port))
            trial.listen()
        except OSError as error:
            reason = "in use" if error.errno == errno.EADDRINUSE else f"not to be had ({(error.strerror or 'refused').lower()})"
            raise EmbeddedError(f"Port {port} of {ADDRESS} is {reason}: choose another one with PORT.") from None


def _keep_secret(path: Path) -> str:
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(SECRET_BYTES) + "\n")
    return path.read_text().strip()


def _write_private(path: Path, text: str) -> None:
    """Write a whole file that only its owner may read; a kill in the middle leaves the old one."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name not in SERVERS}, **settings}


def _child(command: Sequence[str], settings: Mapping[str, str], check: Callable[[], None]) -> str:
    """Run a command to its end and return what it wrote to stdout; raises EmbeddedError when it fails."""
    with tempfile.TemporaryFile() as output:
        code = Kept(command, steps=STOP_CHILD, env=_environment(settings), cwd=ROOT, output=output).wait(check)
        output.seek(0)
        written = output.read().decode(errors="replace")
    if code != 0:
        raise EmbeddedError(f"`{' '.join(_named(command))}` failed with return code {code}; nothing is left running.")
    return written


def _demo(
    path: Path, base_url: str, command: Sequence[str], settings: Mapping[str, str], check: Callable[[], None]
) -> tuple[dict[str, str], str | None]:
    """The assignments of demo.env, brought up to date, and where the example is: keys are shown once, so the file that holds them is their only copy."""
    names = {"api_key": "TALLYGATE_API_KEY", "operator_key": "TALLYGATE_OPERATOR_KEY"}
    kept = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line) if path.exists() else {}
    made = _last_object(_child(command, settings, check))
    if not names.keys() <= made.keys() and not all(kept.get(name) for name in names.values()):
        made = _last_object(_child((*command, "--renew"), settings, check))
    keys = {name: str(made[field]) if field in made else kept.get(name, "") for field, name in names.items()}
    if not all(keys.values()):
        raise EmbeddedError(f"`{' '.join(_named(command))}` made no keys.")
    keys = {"TALLYGATE_BASE_URL": base_url, **keys}
    _write_private(path, "".join(f"{name}={value}\n" for name, value in keys.items()))
    return keys, str(made["chat_url"]) if "chat_url" in made else None


def _last_object(text: str) -> dict[str, object]:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EmbeddedError("The command that makes the demo workspace printed no JSON object.")
    return found


def _start_console(command: Sequence[str] | None, log: Path, stack: ExitStack) -> Kept | None:
    if command is None:
        return None
    with open_log(log) as output:
        console = Kept(command, steps=(("TERM", 5.0),), cwd=ROOT, output=output, errors=subprocess.STDOUT)
    stack.callback(console.stop)
    return console


def _readiness(port: int) -> str:
    """What GET /readyz is answered with, in words."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return f"status {connection.getresponse().status}"
    except (OSError, http.client.HTTPException):
        return "no answer"
    finally:
        connection.close()


def _refuse_dead(parts: Mapping[str, Callable[[], int | None]]) -> None:
    for name, poll in parts.items():
        if poll() is not None:
            raise EmbeddedError(f"{name} has ended by itself: everything else is stopped.")


def _greeting(base_url: str, key: str, data: Path, chat_url: str | None) -> str:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hello"}]})
    headers = f"-H 'authorization: Bearer {key}' -H 'content-type: application/json'"
    return (
        f"\nTallygate serves.\n"
        f"  Base URL   {base_url}\n"
        f"  GraphQL    {base_url}/graphiql\n"
        + (f"  Chat       {chat_url}\n" if chat_url else "")
        + f"  Key        {key}\n"
        f"  Keys are kept in {data / 'demo.env'}; the settings for `manage.py` in {data / 'server.env'}.\n\n"
        f"curl {base_url}/v1/chat/completions {headers} -d '{body}'\n\n"
        f"Ctrl-C stops it.\n"
    )


def _named(command: Sequence[str]) -> Sequence[str]:
    return ("python", *command[1:]) if command[0] == sys.executable else command


def _say(line: str, descriptor: int = 1) -> None:
    """Write a line for a person; a terminal that is gone is no reason to stop anything."""
    try:
        os.write(descriptor, f"{line}\n".encode())
    except OSError:
        return
