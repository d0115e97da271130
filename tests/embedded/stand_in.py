"""Stand-ins for the commands of `manage.py`, and a supervisor that runs with them: `python -m tests.embedded.stand_in <part> ...`.

They use the servers as the real ones do, so that the order of starts and stops shows in their results.
"""

import asyncio
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType

import asyncpg

from embedded.first_run import Commands, run

CHAT = "http://chat.localhost/"


async def ask(url: str, statement: str, *values: object) -> list[asyncpg.Record]:
    """Run one statement."""
    connection = await asyncpg.connect(os.environ[url])
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()


def migrate() -> None:
    """Make the one table, as its owner."""
    asyncio.run(ask("MIGRATION_DATABASE_URL", "CREATE TABLE IF NOT EXISTS demo (id int GENERATED ALWAYS AS IDENTITY)"))
    asyncio.run(ask("MIGRATION_DATABASE_URL", "GRANT SELECT, INSERT ON demo TO tallygate_app"))


def demo(renew: bool) -> None:
    """Print keys when there are none yet or new ones are wanted, each key with its number in the table."""
    there = asyncio.run(ask("DATABASE_URL", "SELECT id FROM demo"))
    if there and not renew:
        print(json.dumps({"chat_url": CHAT}))
        return
    number = asyncio.run(ask("DATABASE_URL", "INSERT INTO demo DEFAULT VALUES RETURNING id"))[0]["id"]
    print("making the demo workspace")
    print(json.dumps({"api_key": f"tg_live_{number}", "operator_key": f"tg_operator_{number}", "workspace_id": "w", "chat_url": CHAT}))


class Ready(BaseHTTPRequestHandler):
    """GET answers 200 with the environment that a test looks at."""

    def do_GET(self) -> None:
        """Answer."""
        names = [name for name in os.environ if name.startswith("TALLYGATE_") or name.endswith(("URL", "PORT", "HOST"))]
        body = json.dumps({name: os.environ[name] for name in names})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(kind: str) -> None:
    """Serve until SIGTERM, then prove that Postgres is still there."""
    if kind == "dies":
        sys.exit(3)
    server = HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Ready)

    def stop(_number: int, _frame: FrameType | None) -> None:
        asyncio.run(ask("DATABASE_URL", "SELECT 1"))
        Path(os.environ["TALLYGATE_DATA"], "stopped-in-order").touch()
        sys.exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "stubborn" else stop)
    server.serve_forever(poll_interval=0.05)


def main() -> int:
    """Run one part, or with `run <folder> <port> <kind of server>` all of them."""
    part, *arguments = sys.argv[1:]
    if part == "run":
        own = (sys.executable, "-m", "tests.embedded.stand_in")
        folder, port, kind = arguments
        failing = (sys.executable, "-c", "raise SystemExit(5)")
        migrating = failing if kind == "unmigrated" else (*own, "migrate")
        return run(Path(folder), int(port), Commands(migrate=migrating, demo=(*own, "demo"), serve=(*own, "serve", kind), console=failing))
    if part == "migrate":
        migrate()
    elif part == "demo":
        demo("--renew" in arguments)
    else:
        serve(arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
