"""Names of tools that another dialect does not take: longer ones (Anthropic takes 128 characters, OpenAI 64), and ones inside namespaces."""

import hashlib
import re
from collections.abc import Iterable

LONGEST = 64
_KEPT = 51
_LONG = re.compile(rb'"name"[ \t\r\n]*:[ \t\r\n]*"([a-zA-Z0-9_-]{65,128})"')


def short(name: str) -> str:
    """Give a name of at most `LONGEST` characters: itself, or its beginning and a digest, always the same and never another name's."""
    if len(name) <= LONGEST:
        return name
    return f"{name[:_KEPT]}_{hashlib.sha256(name.encode()).hexdigest()[: LONGEST - _KEPT - 1]}"


def inside(namespace: str, name: str) -> str:
    """Give the name that stands for a tool of a namespace where there are none."""
    return short(f"{namespace}__{name}")


def aliases(tools: Iterable[bytes]) -> dict[str, str]:
    """Give the long names among tools, as they are written in a request, by what stands for them; one look at the bytes when there are none."""
    found = (name.decode() for written in tools for name in _LONG.findall(written))
    return {short(name): name for name in found}
