"""Single fields of a request body, read strictly where the gateway relies on them and not at all elsewhere."""

import hashlib
from collections.abc import Iterable

import msgspec

from proxy import splice
from proxy.dialects.base import IDENTITY_LIMIT_CHARACTERS, MODEL_LIMIT_CHARACTERS, BadRequest

LARGEST_INTEGER = 2**53
"""The largest integer that a client may write; more is not the same number to every reader."""


class Body:
    """A request body whose fields are read one by one; every method raises BadRequest and nothing else."""

    __slots__ = ("spans", "text")

    def __init__(self, text: bytes) -> None:
        try:
            self.spans = splice.fields(text)
        except splice.NotAnObject as error:
            raise BadRequest(f"The request body cannot be read: {error}.") from None
        self.text = text

    def value(self, name: str) -> object:
        """Decode a field; None when it is absent or null."""
        span = self.spans.get(name)
        if span is None:
            return None
        try:
            decoded: object = msgspec.json.decode(self.text[span.start : span.end])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise BadRequest(f"{name}: Input cannot be read as JSON", name) from None
        return decoded

    def raw(self, names: Iterable[str]) -> list[bytes]:
        """Give the fields' values as they are written; an absent field has none."""
        return [self.text[span.start : span.end] for span in map(self.spans.get, names) if span is not None]

    def model(self) -> str:
        """Read `model`: a printable name of 1 to `MODEL_LIMIT_CHARACTERS` characters."""
        model = self.value("model")
        if model is None:
            raise BadRequest("model: Field required", "model")
        if not isinstance(model, str) or not 0 < len(model) <= MODEL_LIMIT_CHARACTERS or not model.isprintable():
            raise BadRequest("model: Input should be the name of a model", "model")
        return model

    def messages(self) -> bytes:
        """Give `messages` as they are written: an array; what is in it is left to the upstream."""
        span = self.spans.get("messages")
        if span is None:
            raise BadRequest("messages: Field required", "messages")
        if not self.text.startswith(b"[", span.start):
            raise BadRequest("messages: Input should be a valid array", "messages")
        return self.text[span.start : span.end]

    def boolean(self, name: str) -> bool:
        """Read a boolean; False when absent or null."""
        value = self.value(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise BadRequest(f"{name}: Input should be a valid boolean", name)
        return value

    def integer(self, name: str, least: int, most: int = LARGEST_INTEGER) -> int | None:
        """Read an integer from `least` to `most`; None when absent or null."""
        value = self.value(name)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= most:
            raise BadRequest(f"{name}: Input should be an integer from {least} to {most}", name)
        return value

    def mapping(self, name: str) -> dict[str, object]:
        """Read an object that only informs; empty when the field is anything else."""
        value = self.value(name)
        return value if isinstance(value, dict) else {}


def identity(value: object) -> str | None:
    """Make a stored identity of what a client calls its user or conversation; None when it says nothing.

    A text longer than `IDENTITY_LIMIT_CHARACTERS` or with unprintable characters becomes `sha256:` and its digest: equal stays equal.
    """
    if not isinstance(value, str) or not value:
        return None
    if len(value) <= IDENTITY_LIMIT_CHARACTERS and value.isprintable():
        return value
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()
