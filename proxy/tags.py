"""Tags that a caller puts on a call by the header `x-tallygate-tags`, to split its usage by: `team=core, env=prod`."""

import re
from collections.abc import Sequence
from typing import Final

from domain.usage.metrics import LONGEST_TAG

HEADER: Final = b"x-tallygate-tags"
MOST_TAGS: Final = 16
LONGEST_VALUE: Final = 128
_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_TAG}}}")


def tags_of(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """Return the tags of a request, None without any: 16 at most, names of letters, digits, dots, dashes and underscores, values of printable ASCII.

    What is none is left out, and harms no call; of a name that is given twice, the first value counts.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        if name != HEADER:
            continue
        for pair in value.decode("latin-1").split(","):
            tag, equals, told = (part.strip() for part in pair.partition("="))
            if equals and _NAME.fullmatch(tag) and 1 <= len(told) <= LONGEST_VALUE and told.isascii() and told.isprintable() and len(found) < MOST_TAGS:
                found.setdefault(tag, told)
    return found or None
