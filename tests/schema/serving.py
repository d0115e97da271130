"""The served schema, of which a process has one."""

from functools import cache

from schema.build import build
from schema.engine import Contract
from schema.throttle import Throttle


@cache
def served_schema() -> Contract:
    """The schema of this process."""
    return build(Throttle())
