"""`.env.example`, made from the settings: `python -m operations.env_example > .env.example`; a test compares the two."""

import sys
import textwrap
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Le, MinLen
from pydantic.fields import FieldInfo

from settings import Settings

HEADING = """\
# Every setting, made from settings.py by `python -m operations.env_example`. Copy it to `.env` and give the required ones a value.
# Nothing reads `.env` by itself: `set -a; . ./.env; set +a` puts it into a shell's environment. Docker Compose is told what it needs
# in docs/production.md.
"""
WIDTH = 130


def lines() -> str:
    """Return the file's text: each setting with its description, its bounds and its default; the required ones have none and come first."""
    fields = sorted(Settings.model_fields.values(), key=lambda field: not field.is_required())
    return "\n".join([HEADING, *map(_entry, fields)])


def _entry(field: FieldInfo) -> str:
    said = " ".join(filter(None, [field.description, _bounds(field), "Required." if field.is_required() else None]))
    comment = "\n".join(f"# {line}" for line in textwrap.wrap(said, WIDTH - 2, break_long_words=False, break_on_hyphens=False))
    assignment = f"{field.alias}=" if field.is_required() else f"# {field.alias}={_shown(field.default)}"
    return f"{comment}\n{assignment}\n"


def _bounds(field: FieldInfo) -> str | None:
    if get_origin(field.annotation) is Literal:
        return f"One of: {', '.join(get_args(field.annotation))}."
    if field.annotation is bool:
        return "true or false."
    least = next((str(bound.ge) for bound in field.metadata if isinstance(bound, Ge)), None)
    most = next((str(bound.le) for bound in field.metadata if isinstance(bound, Le)), None)
    if least and most:
        return f"{least} to {most}."
    assert all(isinstance(bound, MinLen) for bound in field.metadata), "a new kind of bound must be told here"
    return None


def _shown(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    sys.stdout.write(lines())
