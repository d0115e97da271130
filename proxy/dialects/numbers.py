"""Numbers that an upstream reports: believed only when they can be counts."""

from proxy.dialects.base import COUNT_LIMIT, MODEL_LIMIT_CHARACTERS


class Unsound(Exception):
    """A report lacks what it must say: it cannot be charged by."""


class Nonsense(Unsound):
    """A report holds something that is no count: it must not be charged by, and a person should look at it."""


def count(report: dict[str, object], name: str) -> int:
    """Read a count; 0 when absent or null. Raises Nonsense for a boolean, a float, a text, a negative or a number above `COUNT_LIMIT`."""
    value = report.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= COUNT_LIMIT:
        raise Nonsense(name)
    return value


def part(report: dict[str, object], name: str) -> dict[str, object]:
    """Read an object inside a report; empty when absent or null. Raises Nonsense for anything else."""
    value = report.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Nonsense(name)
    return value


def word(value: object) -> str | None:
    """Read a short printable text, such as a model's name; None for anything else."""
    return value if isinstance(value, str) and 0 < len(value) <= MODEL_LIMIT_CHARACTERS and value.isprintable() else None


def doubtful(fault: Unsound) -> bool:
    """Tell whether a report that could not be charged by needs a person's look; one that only lacks something does not."""
    return isinstance(fault, Nonsense)
