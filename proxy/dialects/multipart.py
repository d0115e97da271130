"""Bodies of type multipart/form-data, read so strictly that no other reader can see other fields in them (RFC 7578)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.dialects.base import BadRequest, Headers

PARTS_LIMIT = 200
HEAD_LIMIT_BYTES = 4096
_BOUNDARY = re.compile(rb"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\\]{1,70})"|([^\s";,]{1,70}))\s*$""", re.IGNORECASE)
_FIRST_LINE = re.compile(rb"--([^\r\n]{1,70})\r\n")
_DISPOSITION = re.compile(rb'form-data\s*((?:;\s*\w+="[^"\\\r\n]*"\s*)*)', re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*(\w+)="([^"\\\r\n]*)"')


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a form: its name, and where its value stands: `body[start:end]`."""

    name: str
    start: int
    end: int
    is_file: bool


def check_boundary(headers: Headers, body: bytes) -> None:
    """Raise BadRequest unless the boundary that the header names is the one that the body begins with: the upstream goes by the header."""
    values = [value for name, value in headers if name == b"content-type"]
    named = _BOUNDARY.fullmatch(values[0]) if len(values) == 1 else None
    first = _FIRST_LINE.match(body)
    if named is None or first is None or first[1] != (named[1] or named[2]):
        raise BadRequest("The request body should be multipart/form-data, and begin with the boundary that its content-type names.")


def checked(headers: Headers, body: bytes) -> bytes:
    """Give a body back that `check_boundary` finds nothing wrong with. Raises BadRequest."""
    check_boundary(headers, body)
    return body


def fields(body: bytes) -> Sequence[Field]:
    """Find the fields of a form; linear in the body. Raises BadRequest for what is no form, or one that can be read in two ways."""
    first = _FIRST_LINE.match(body)
    if first is None:
        raise BadRequest("The request body should be multipart/form-data.")
    mark = b"\r\n--" + first[1]
    found: list[Field] = []
    position = first.end()
    while True:
        head_end = body.find(b"\r\n\r\n", position, position + HEAD_LIMIT_BYTES)
        if head_end < 0 or len(found) >= PARTS_LIMIT:
            raise BadRequest("The request body has a part that cannot be read.")
        start = head_end + 4
        end = body.find(mark, start)
        if end < 0:
            raise BadRequest("The request body ends in the middle of a part.")
        found.append(_field(body[position:head_end], start, end))
        position = end + len(mark)
        if body.startswith(b"--", position):
            if body[position + 2 :].strip():
                raise BadRequest("The request body goes on after its end.")
            return found
        if not body.startswith(b"\r\n", position):
            raise BadRequest("The request body has a line that is nearly a boundary.")
        position += 2


def _field(head: bytes, start: int, end: int) -> Field:
    dispositions = []
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or name != name.strip() or b"\n" in line or b"\r" in line:
            raise BadRequest("The request body has a part that cannot be read.")
        if name.lower() == b"content-disposition":
            dispositions.append(value.strip())
        elif name.lower() == b"content-transfer-encoding" and value.strip().lower() not in (b"binary", b"8bit", b"7bit"):
            raise BadRequest("The request body has a part in an encoding of its own.")
    matched = _DISPOSITION.fullmatch(dispositions[0]) if len(dispositions) == 1 else None
    parameters = [(key.lower(), value) for key, value in _PARAMETER.findall(matched[1])] if matched else []
    named = dict(parameters)
    if b"name" not in named or len(named) != len(parameters):
        raise BadRequest("The request body has a part without a name, or with two.")
    return Field(named[b"name"].decode("utf-8", "replace"), start, end, b"filename" in named)
