"""Streams of the Responses API in the shapes that providers send, shortened, with their usage worked out by hand."""

import json

from proxy.dialects import responses
from proxy.dialects.base import Ask

MODEL = "gpt-5.5-2026-04-23"


def ask(**more: object) -> Ask:
    """Read a small streaming request; its input is counted as 2 tokens."""
    return responses.parse(json.dumps({"model": "gpt-asked", "input": "Hi", "stream": True, "store": False, **more}, separators=(",", ":")).encode())


def response(status: str = "completed", **more: object) -> dict[str, object]:
    """Give a response object."""
    head = {"id": "resp_1", "object": "response", "created_at": 1790000000, "model": MODEL, "service_tier": "default", "status": status}
    return {**head, "output": [], "usage": None, "error": None, **more}


def report(given: int = 75, made: int = 20, **details: int) -> dict[str, object]:
    """Give a usage report: `cached`, `written`, `reasoning` are its details."""
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": details.get("cached", 0), "cache_write_tokens": details.get("written", 0)},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning", 0)},
        "total_tokens": given + made,
    }


def message(*texts: str) -> dict[str, object]:
    """Give an output item with text."""
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": text} for text in texts]}


def events(*values: tuple[str, dict[str, object]]) -> list[bytes]:
    """Write events with their names and running numbers."""
    return [
        f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **more}, separators=(',', ':'))}\n\n".encode()
        for number, (kind, more) in enumerate(values)
    ]


def deltas(*pieces: str) -> list[tuple[str, dict[str, object]]]:
    """Give the events of a text in pieces."""
    place: dict[str, object] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return [
        ("response.output_item.added", {"output_index": 0, "item": {"id": "msg_1", "type": "message", "status": "in_progress", "content": []}}),
        *(("response.output_text.delta", {**place, "delta": piece}) for piece in pieces),
        ("response.output_text.done", {**place, "text": "".join(pieces)}),
        ("response.output_item.done", {"output_index": 0, "item": message("".join(pieces))}),
    ]


CREATED: list[tuple[str, dict[str, object]]] = [
    ("response.created", {"response": response("in_progress")}),
    ("response.in_progress", {"response": response("in_progress")}),
]


def stream(*pieces: str, status: str = "completed", **more: object) -> list[bytes]:
    """Write a whole stream of a text."""
    whole = response(status, **{"output": [message("".join(pieces))], "usage": report(), **more})
    return events(*CREATED, *deltas(*pieces), (f"response.{status}", {"response": whole}))
