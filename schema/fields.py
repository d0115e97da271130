"""Declaring a field that a function answers, so that types are still checked below the decorator."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import strawberry
from strawberry.extensions.field_extension import FieldExtension

F = TypeVar("F", bound=Callable[..., Any])


def resolved(description: str, *, extensions: Sequence[FieldExtension] = (), directives: Sequence[object] = ()) -> Callable[[F], F]:
    """Make the method a field. Strawberry's own decorator is typed as Any, which would switch checking off for the method."""
    return cast("Callable[[F], F]", strawberry.field(description=description, extensions=list(extensions), directives=list(directives)))
