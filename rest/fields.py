"""What the fields of the documents have in common: how an instant, a number of a query string and an absent field are written."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from domain.money.amounts import parse_decimal

Word = TypeVar("Word", bound=StrEnum)

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DIGITS = re.compile(r"-?[0-9]{1,15}")


class Asked(BaseModel):
    """What a client sends; a field that is not described is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Told(BaseModel):
    """What we answer; instants are ISO 8601 in UTC, with a Z."""

    model_config = ConfigDict(frozen=True)


class CamelTold(BaseModel):
    """What we answer, with names in camelCase."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class Nothing(Asked):
    """What an operation takes that takes nothing."""


def _instant(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise PydanticCustomError("instant", "Input should be an instant like 2026-11-21T12:00:00Z")


def _day(value: object) -> object:
    if value is None or isinstance(value, date):
        return value
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("day", "Input should be a day like 2026-11-21")


def _integer(value: object) -> object:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticCustomError("integer", "Input should be an integer")
    return value


def _microusd(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return parse_decimal(repr(value), places=6)  # the shortest text that reads back as the same number: what the client wrote
        except ValueError:
            pass
    raise PydanticCustomError("usd", "Input should be a number with at most 6 decimals")


def choice(words: type[Word], spelled: Callable[[str], str] = str) -> Callable[[object], object]:
    """Return a reader of one of `words` by its value, after `spelled` has mended its spelling; None stays None."""
    listed = " or ".join(f"'{word.value}'" for word in words)

    def read(value: object) -> object:
        if value is None or isinstance(value, words):
            return value
        if isinstance(value, str) and spelled(value) in {word.value for word in words}:
            return words(spelled(value))
        raise PydanticCustomError("enum", f"Input should be {listed}")

    return read


def _absent(value: object) -> bool:
    return value is None


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Instant = Annotated[datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
"""An instant with an offset from UTC, kept in UTC."""
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A calendar day, written YYYY-MM-DD."""
Integer = Annotated[int, BeforeValidator(_integer)]
"""A whole number in a query string, written in digits alone."""
Microusd = Annotated[int, BeforeValidator(_microusd), WithJsonSchema({"type": "number", "minimum": 0})]
"""US dollars written as a JSON number with at most 6 decimals, kept as whole microdollars."""
LEFT_OUT: Any = Field(default=None, exclude_if=_absent, json_schema_extra=_without_default)
"""The default of a field that is left out of an answer when there is nothing to say."""
