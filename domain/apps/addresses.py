"""Where apps are served: each on an origin of its own, its versions on others."""

import re
from dataclasses import dataclass
from typing import NamedTuple

_LABEL = re.compile(r"(?P<slug>[a-z0-9]+(?:-[a-z0-9]+)*)(?:--v(?P<version>[1-9][0-9]{0,8}))?", re.ASCII)


class Site(NamedTuple):
    """What a host name asks for: an app, in its live version for None."""

    slug: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Addresses:
    """The domain below which every app has its origin; `port` is None where it is the scheme's own."""

    scheme: str
    domain: str
    port: int | None

    def url(self, slug: str, version: int | None = None) -> str:
        """Return the address of an app, or of one of its versions, with a slash at its end."""
        label = slug if version is None else f"{slug}--v{version}"
        return f"{self.scheme}://{label}.{self.domain}{'' if self.port is None else f':{self.port}'}/"

    def origin(self, slug: str) -> str:
        """Return the browser origin of an app's live version."""
        return self.url(slug)[:-1]

    def slug_at(self, origin: str) -> str | None:
        """Return the app whose live version has this browser origin; None for any other origin."""
        site = self.site(origin.partition("://")[2])
        return site.slug if site is not None and site.version is None and self.origin(site.slug) == origin else None

    def covers(self, host: str) -> bool:
        """Tell whether a `Host` field names something below the domain of apps, whatever it is."""
        return _name(host).endswith(f".{self.domain}")

    def site(self, host: str) -> Site | None:
        """Return what a `Host` field asks for; None when no app can have that name."""
        found = _LABEL.fullmatch(_name(host).removesuffix(f".{self.domain}"))
        if found is None or not self.covers(host):
            return None
        return Site(found["slug"], int(found["version"]) if found["version"] else None)


def _name(host: str) -> str:
    name, _, port = host.strip().lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.strip().lower()
    return name.removesuffix(".")
