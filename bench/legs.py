"""The legs that are compared: the mock itself, nginx before it, our pass-through, and the real server with and without bounds."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import await_answer, free_port, on_cores, split_cores
from bench.stage import SECRET, Stage, Tenant
from embedded.first_run import SERVERS
from embedded.processes import Kept, open_log

ROOT = Path(__file__).resolve().parent.parent
STOP = (("TERM", 20.0),)

# Strong on purpose: kept connections, bodies in memory and not in files, no log. Buffering of answers is off, as it must be before streams.
NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

# As strong: files open and known, sent by the kernel, nothing compressed, no log.
STATIC_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  include /etc/nginx/mime.types;
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=1000 inactive=60s;
  open_file_cache_valid 60s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    root {root};
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Leg:
    """One way to the mock: where to send, which processes stand between, who pays, and whether answers are written anew on the way."""

    name: str
    port: int
    pid: int
    database_pid: int | None = None
    tenant: Tenant | None = None
    rewrites: bool = False


def _started(command: Sequence[str | Path], folder: Path, name: str, port: int, path: str, env: dict[str, str] | None = None) -> Kept:
    with open_log(folder / f"{name}.log") as log:
        kept = Kept(command, steps=STOP, cwd=ROOT, env=env, output=log, errors=log)
    try:
        await_answer(port, path, lambda: kept.poll() is None)
    except RuntimeError as error:
        kept.stop()
        words = (folder / f"{name}.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{name}: {error}\n{words}") from None
    return kept


@contextlib.contextmanager
def mock(stage: Stage) -> Iterator[Leg]:
    """Start the mock upstream, on the other cores than the gateways."""
    port = free_port()
    with on_cores(split_cores()[1]):
        kept = _started([sys.executable, "-m", "bench.mock", str(port)], stage.folder, "mock", port, "/")
    try:
        yield Leg("direct", port, kept.pid)
    finally:
        kept.stop()


@contextlib.contextmanager
def _nginx(stage: Stage, text: str, **places: object) -> Iterator[Leg | None]:
    """Start nginx with one worker; None, and one line that says so, where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        print("nginx is not installed: its leg is left out, and with it every ratio against it.", file=sys.stderr)
        yield None
        return
    folder, port = stage.folder / "nginx", free_port()
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(text.format(user=user, folder=folder, port=port, **places))
    with on_cores(split_cores()[0]):
        kept = _started([program, "-p", folder, "-c", folder / "nginx.conf"], stage.folder, "nginx", port, "/")
    try:
        yield Leg("nginx", port, kept.pid)
    finally:
        kept.stop()


def nginx(stage: Stage, upstream: int) -> AbstractContextManager[Leg | None]:
    """Start nginx before the mock; None where it is not installed."""
    return _nginx(stage, NGINX, upstream=upstream)


def static_nginx(stage: Stage, root: Path) -> AbstractContextManager[Leg | None]:
    """Start nginx over a folder of files; None where it is not installed."""
    return _nginx(stage, STATIC_NGINX, root=root)


@contextlib.contextmanager
def hosting(stage: Stage) -> Iterator[Leg]:
    """Start the hosting of apps, as an operator would, over the stage's Postgres and its data folder."""
    port = free_port()
    with on_cores(split_cores()[0]):
        kept = _started([sys.executable, "-m", "manage", "hosting"], stage.folder, "hosting", port, "/", _environment(stage, port))
    try:
        yield Leg("hosting", port, kept.pid, stage.postgres.pid)
    finally:
        kept.stop()


@contextlib.contextmanager
def unmetered(stage: Stage, upstream: int) -> Iterator[Leg]:
    """Start our pass-through."""
    port = free_port()
    with on_cores(split_cores()[0]):
        kept = _started([sys.executable, "-m", "bench.passthrough", str(port), f"http://127.0.0.1:{upstream}"], stage.folder, "unmetered", port, "/")
    try:
        yield Leg("unmetered", port, kept.pid)
    finally:
        kept.stop()


@contextlib.contextmanager
def litellm(stage: Stage, upstream: int, models: Sequence[str]) -> Iterator[Leg | None]:
    """Start LiteLLM's proxy with one worker, without a database, a log or a guard; None where it is not installed (docs/benchmarks.md)."""
    here = ROOT / "bench" / ".litellm" / "bin" / "litellm"
    program = str(here) if here.exists() else shutil.which("litellm")
    if program is None:
        print("LiteLLM is not installed: its leg is left out (docs/benchmarks.md says how to have it).", file=sys.stderr)
        yield None
        return
    folder, port = stage.folder / "litellm", free_port()
    folder.mkdir()
    listed = "".join(
        f"  - model_name: {name}\n    litellm_params: {{model: openai/{name}, api_base: 'http://127.0.0.1:{upstream}/v1', api_key: none}}\n" for name in models
    )
    (folder / "config.yaml").write_text(f"model_list:\n{listed}litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 600}}\n")
    env = {name: value for name, value in os.environ.items() if name not in SERVERS and not name.startswith("TALLYGATE_")}
    env |= {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # on the loopback, for the length of this run
    command: list[str | Path] = [program, "--config", folder / "config.yaml", "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with on_cores(split_cores()[0]):
        kept = _started(command, stage.folder, "litellm", port, "/health/liveliness", env)
    try:
        yield Leg("litellm", port, kept.pid, rewrites=True)
    finally:
        kept.stop()


@contextlib.contextmanager
def metered(stage: Stage, upstream: int, models: Sequence[str], tenants: dict[str, Tenant], *, worker: bool = False) -> Iterator[list[Leg]]:
    """Start the real server, as an operator would, over the stage's Postgres and Valkey; one leg for each tenant.

    The database is migrated, and has the models and tenants. Without `worker` jobs run elsewhere (`TALLYGATE_WORKER=apart`), and here nowhere: usage
    stays unfolded. Both dialects go to the mock.
    """
    port = free_port()
    names = ", ".join(f'"{name}"' for name in models)
    config = stage.folder / "bench.toml"
    config.write_text(
        "".join(f'[upstreams.mock_{dialect}]\ndialect = "{dialect}"\nurl = "http://127.0.0.1:{upstream}"\nmodels = [{names}]\n\n' for dialect in ("openai", "anthropic"))
    )
    env = {**_environment(stage, port), "TALLYGATE_CONFIG": str(config), "TALLYGATE_WORKER": "inside" if worker else "apart"}
    with on_cores(split_cores()[0]):
        kept = _started([sys.executable, "-m", "manage", "serve"], stage.folder, "metered", port, "/readyz", env)
    try:
        yield [Leg(name, port, kept.pid, stage.postgres.pid, tenant) for name, tenant in tenants.items()]
    finally:
        kept.stop()


def _environment(stage: Stage, port: int) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name not in SERVERS and not name.startswith("TALLYGATE_")},
        "DATABASE_URL": stage.url,
        "REDIS_URL": stage.valkey.url,
        "TALLYGATE_SECRET": SECRET,
        "TALLYGATE_DATA": str(stage.folder / "data"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
