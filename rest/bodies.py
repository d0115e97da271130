"""Reading what a client sends to a documented path: a small body, strict JSON, and parameters, each checked by a pydantic model."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from domain.errors import InvalidInput, Refusal, Required

Given = TypeVar("Given", bound=BaseModel)

LARGEST_BODY_BYTES = 64 * 1024
BODY_SECONDS = 30.0
MOST_PARAMETERS = 100


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class TooLarge(Refusal):
    """The body is over the most that this path takes."""

    code = "too_large"
    status = 413

    def __init__(self, most_bytes: int = LARGEST_BODY_BYTES) -> None:
        super().__init__(f"A request body has at most {most_bytes // 1024} KiB here.")


class TooSlow(Refusal):
    """The body did not come whole within BODY_SECONDS."""

    code = "timed_out"
    status = 408

    def __init__(self) -> None:
        super().__init__("The request did not come whole in time.")


async def read(scope: Scope, receive: Receive, most_bytes: int = LARGEST_BODY_BYTES) -> bytes:
    """Return the whole body; raises TooLarge, before reading when its length is announced, TooSlow and ClientGone."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if length.isdigit() and int(length) > most_bytes:
        raise TooLarge(most_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > most_bytes:
                    raise TooLarge(most_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise TooSlow from None


def from_body(model: type[Given], body: bytes) -> Given:
    """Return the body as `model` describes it; an empty body is an empty object, an unknown field is nothing.

    Raises InvalidInput, naming the field, for anything that is no JSON object in UTF-8 (NaN, lone surrogates, any depth), for a NUL in
    any text and for a value of the wrong type.
    """
    try:
        decoded = msgspec.json.decode(body) if body.strip() else {}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidInput("The body is not JSON.") from None
    if not isinstance(decoded, dict):
        raise InvalidInput("The body is not a JSON object.")
    if _holds_nul(decoded):
        raise InvalidInput("Text cannot hold the NUL character.")
    return _validated(model, decoded, strict=True)


def from_query(model: type[Given], query: bytes) -> Given:
    """Return the parameters of a query string as `model` describes them; unknown ones are nothing.

    Raises InvalidInput, naming the parameter, for one that is given twice or is not as described, for bad UTF-8 and for NUL.
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise InvalidInput("The query string cannot be read.") from None
    known: dict[str, str] = {}
    names = {field.alias or name for name, field in model.model_fields.items()}
    for name, value in pairs:
        if name not in names:
            continue
        if name in known:
            raise InvalidInput(f"{name}: given more than once", path=(name,))
        if "\x00" in value:
            raise InvalidInput(f"{name}: cannot hold the NUL character", path=(name,))
        known[name] = value
    return _validated(model, known, strict=False)


def _validated(model: type[Given], values: Mapping[str, Any], *, strict: bool) -> Given:
    try:
        return model.model_validate(values, strict=strict)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        path = tuple(str(part) for part in fault["loc"])
        kind = Required if fault["type"] == "missing" else InvalidInput
        raise kind(f"{'.'.join(path)}: {fault['msg']}" if path else fault["msg"], path=path) from None


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(name) or _holds_nul(item) for name, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
