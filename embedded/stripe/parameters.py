"""Reading a request to Stripe's API: form fields into values, each checked against the SDK's own typed parameters."""

import re
import sys
import types
import typing
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, NotRequired, Required, get_args, get_origin
from urllib.parse import parse_qsl

from stripe._request_options import RequestOptions
from typing_extensions import get_type_hints, is_typeddict

Tree = dict[str, Any]
_PART = re.compile(r"[^\[\]]+")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_OPTIONS = frozenset(RequestOptions.__annotations__)


class BadParameter(Exception):
    """A parameter that Stripe would refuse; `param` names it as Stripe does, `code` is Stripe's."""

    def __init__(self, message: str, param: str, code: str) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def tree_of(encoded: bytes) -> Tree:
    """Return form fields such as `items[0][price]=x` as nested objects and lists of texts."""
    tree: Tree = {}
    for name, value in parse_qsl(encoded.decode(), keep_blank_values=True):
        place = tree
        parts = _PART.findall(name) + ([""] if name.endswith("[]") else [])
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        last = parts[-1] or str(len(place))
        place[last] = value
    return {name: _listed(value) for name, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdigit() for name in value):
        return [_listed(value[name]) for name in sorted(value, key=int)]
    return {name: _listed(item) for name, item in value.items()}


def read(kind: Any, tree: Mapping[str, Any], path: str = "") -> Tree:
    """Return the parameters as the TypedDict `kind` of the SDK types them. Raises BadParameter for what it does not describe."""
    hints = _hints(kind)
    for name in tree:
        if name not in hints:
            raise BadParameter(f"Received unknown parameter: {_named(path, name)}", _named(path, name), "parameter_unknown")
    for name in getattr(kind, "__required_keys__", ()):
        if name not in tree and name in hints:
            raise BadParameter(f"Missing required param: {_named(path, name)}.", _named(path, name), "parameter_missing")
    return {name: _value(hints[name], value, _named(path, name)) for name, value in tree.items()}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    scope = {**vars(typing), **vars(sys.modules[kind.__module__]), "StripeContext": str}
    return {name: hint for name, hint in get_type_hints(kind, scope, include_extras=False).items() if name not in _OPTIONS}


def _named(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, members = get_origin(hint), get_args(hint)
    if origin in (NotRequired, Required):
        return _value(members[0], value, path)
    if origin in (typing.Union, types.UnionType):
        return _one_of(members, value, path)
    if origin is Literal:
        return _one_of((hint,), value, path)
    if is_typeddict(hint):
        if not isinstance(value, dict):
            raise BadParameter("Invalid object", path, "parameter_invalid_object")
        return read(hint, value, path)
    if origin is list:
        if not isinstance(value, list):
            raise BadParameter("Invalid array", path, "parameter_invalid_array")
        return [_value(members[0], item, f"{path}[{number}]") for number, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise BadParameter("Invalid hash", path, "parameter_invalid_hash")
        return {name: _value(members[1], item, f"{path}[{name}]") for name, item in value.items()}
    return _scalar(hint, value, path)


def _one_of(members: tuple[Any, ...], value: Any, path: str) -> Any:
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    rest = [member for member in members if get_origin(member) is not Literal]
    if isinstance(value, str):
        if value in words:
            return value
        if words and all(member is str for member in rest):
            # the SDK lets any text through beside a closed set of words; the API does not
            raise BadParameter(f"Invalid {path}: must be one of {', '.join(filter(None, words))}", path, "parameter_invalid_enum")
        numbers = [member for member in rest if member in (int, bool, float, Decimal)]
        for member in numbers:
            try:
                return _scalar(member, value, path)
            except BadParameter:
                continue
        if str in rest:
            return value
        raise BadParameter(f"Invalid {path}", path, "parameter_invalid")
    for member in rest:
        fits = (isinstance(value, list) and get_origin(member) is list) or (isinstance(value, dict) and (is_typeddict(member) or get_origin(member) is dict))
        if fits:
            return _value(member, value, path)
    raise BadParameter(f"Invalid {path}", path, "parameter_invalid")


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if not isinstance(value, str):
        raise BadParameter(f"Invalid {path}", path, "parameter_invalid")
    if hint is int:
        if not _INTEGER.fullmatch(value):
            raise BadParameter(f"Invalid integer: {value}", path, "parameter_invalid_integer")
        return int(value)
    if hint is bool:
        if value not in ("true", "false", "True", "False"):
            raise BadParameter(f"Invalid boolean: {value}", path, "parameter_invalid_boolean")
        return value.lower() == "true"
    if hint in (float, Decimal):
        try:
            return Decimal(value)
        except InvalidOperation:
            raise BadParameter(f"Invalid decimal: {value}", path, "parameter_invalid_decimal") from None
    return value
