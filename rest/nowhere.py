"""What a path that is nobody's answers: 404, in the shape that whoever asks can read."""

import re

from domain.errors import NotFound, Refusal
from rest.callers import Headers, header
from rest.shapes import ANTHROPIC, ENVELOPED, LISTED, OPENAI, PLAIN, TYPED, Shape

_OF_OPENAI = re.compile(r"/v1/(chat|completions|responses|embeddings|audio|images|moderations|files|batches)(/|$)")
"""Paths of OpenAI's API, whose SDKs read its error body alone."""
_OF_DOCUMENTS = {"/tenant/": TYPED, "/api/v1/": ENVELOPED, "/v1/billing/": LISTED, "/usage/": LISTED}
"""Paths of documents that have a shape of their own; document 0's is the plain one."""


def nowhere(path: str, headers: Headers, request_id: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the header fields of a 404 for `path`."""
    refusal = NotFound("path", path=())
    body = _shape(path, headers).write(refusal, request_id).model_dump_json().encode()
    return body, {"content-type": "application/json", "request-id": request_id, "cache-control": "no-store"}


class Misdirected(Refusal):
    """The request is none that any door takes; its status says why."""

    code = "invalid"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, path=())
        self.status = status


def refused(path: str, headers: Headers, request_id: str, status: int, message: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the header fields of a refusal that is made before a door is chosen, in the shape that whoever asks can read."""
    body = _shape(path, headers).write(Misdirected(status, message), request_id).model_dump_json().encode()
    return body, {"content-type": "application/json", "request-id": request_id, "x-request-id": request_id, "cache-control": "no-store"}


def _shape(path: str, headers: Headers) -> Shape:
    if "/v1/messages" in path or header(headers, b"anthropic-version") is not None:
        return ANTHROPIC
    if _OF_OPENAI.search(path):
        return OPENAI
    return next((shape for prefix, shape in _OF_DOCUMENTS.items() if path.startswith(prefix)), PLAIN)
