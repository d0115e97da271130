"""What optional fields of inputs hold: an empty text is a value, to be looked at and refused, and never taken for an absent one."""

from typing import TypeVar

from strawberry import UNSET

T = TypeVar("T")


def given(value: T | None) -> T | None:
    """The value of an optional field; None when it is absent or null."""
    return None if value is UNSET else value
