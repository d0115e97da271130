"""One simulated account at Stripe: its objects, its movable clock, and the events of what happened."""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
API_VERSION = "2026-10-28.endive"


class Missing(Exception):
    """There is no such object; `param` is where it was named."""

    def __init__(self, kind: str, key: str, param: str = "id") -> None:
        super().__init__(f"No such {kind}: '{key}'")
        self.param = param


class Refused(Exception):
    """What Stripe answers with an error: its status, type, code, and perhaps the payment it is about."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "invalid_request_error", code: str | None = None, decline: str | None = None, payment: Json | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.decline = decline
        self.payment = payment


class Account:
    """Objects by id, in the order they were made. `url` is where its pages are; `keep` is the file that remembers them, if any."""

    def __init__(self, url: str, keep: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self.keep = keep
        self.objects: dict[str, Json] = {}
        self.events: list[Json] = []
        self.replies: dict[str, list[Any]] = {}
        self.offset_seconds = 0
        self.heard: Callable[[Json], None] = lambda event: None
        if keep is not None and keep.exists():
            kept = json.loads(keep.read_text())
            self.objects, self.events, self.replies, self.offset_seconds = kept["objects"], kept["events"], kept["replies"], kept["offset_seconds"]

    def now(self) -> int:
        """The account's time in Unix seconds: the machine's, moved by `offset_seconds`."""
        return int(time.time()) + self.offset_seconds

    def save(self) -> None:
        """Write the whole account to its file; a kill in the middle leaves the old one."""
        if self.keep is None:
            return
        self.keep.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.keep.with_name(self.keep.name + ".new")
        fresh.write_text(json.dumps({"objects": self.objects, "events": self.events[-1000:], "replies": self.replies, "offset_seconds": self.offset_seconds}))
        os.replace(fresh, self.keep)

    def make(self, prefix: str, kind: str, **fields: Any) -> Json:
        """Make an object with an id of its own."""
        made = {"id": f"{prefix}_{secrets.token_hex(12)}", "object": kind, "created": self.now(), "livemode": False, **fields}
        self.objects[made["id"]] = made
        return made

    def get(self, kind: str, key: str, param: str = "id") -> Json:
        """Return an object of a kind; raises Missing."""
        found = self.objects.get(key)
        if found is None or found["object"] != kind:
            raise Missing(kind.replace(".", " "), key, param)
        return found

    def all(self, kind: str, **wanted: Any) -> Iterator[Json]:
        """Return the objects of a kind whose fields have these values, newest first."""
        for found in reversed(list(self.objects.values())):
            if found["object"] == kind and all(found.get(name) == value for name, value in wanted.items()):
                yield found

    def emit(self, kind: str, about: Mapping[str, Any]) -> Json:
        """Note an event with the object as it is now, and tell whoever listens."""
        event: Json = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": {"object": json.loads(json.dumps(shown(about)))},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        self.events.append(event)
        self.heard(event)
        return event


def shown(found: Mapping[str, Any]) -> Json:
    """An object without the fields that are the simulator's own, whose names begin with an underscore."""
    return {name: value for name, value in found.items() if not name.startswith("_")}
