"""Presets: what is spliced into the requests of coding tools."""

import datetime
from typing import Self

import strawberry
from strawberry import field

from domain.serving.presets import PresetVersionView, PresetView
from resolvers import presets as resolvers
from schema.context import Info
from schema.fields import resolved


@strawberry.type(description="A route tuned for one coding tool.")
class Preset:
    """As the contract has it."""

    slug: str = field(description="The stable handle: `claudecode`, `cline`, `cursor`, `roocode`, or one the operator added.")
    name: str = field(description="The display name.")
    base_path: str = field(description="The path to give the tool as its base URL, for example `/claudecode`.")
    description: str = field(description="What it tunes.")
    shown: strawberry.Private[PresetView]

    @resolved("The version that new calls get.")
    def current(self) -> "PresetVersion":
        """Show it."""
        return PresetVersion.of(self.shown.current)

    @resolved("Every version, newest first.")
    def versions(self) -> list["PresetVersion"]:
        """Show them."""
        return [PresetVersion.of(version) for version in self.shown.versions]

    @classmethod
    def of(cls, preset: PresetView) -> Self:
        """The preset as GraphQL shows it."""
        return cls(slug=preset.slug, name=preset.name, base_path=preset.base_path, description=preset.description, shown=preset)


@strawberry.type(description="An immutable version of a preset.")
class PresetVersion:
    """As the contract has it."""

    name: str = field(description="Handle and version, for example `claudecode@3`.")
    text: str = field(description="The text it splices into the system prompt.")
    tokens: int = field(description="Tokens of that text, as counted for the tool's default model.")
    created_at: datetime.datetime = field(description="When it was published.")
    slug: strawberry.Private[str]

    @resolved("The preset.")
    def preset(self, info: Info) -> Preset:
        """Find it."""
        return Preset.of(resolvers.of_slug(info.context, self.slug))

    @classmethod
    def of(cls, version: PresetVersionView) -> Self:
        """The version as GraphQL shows it."""
        published_at = datetime.datetime.combine(version.created_on, datetime.time(), datetime.UTC)
        return cls(name=version.name, text=version.text, tokens=version.tokens, created_at=published_at, slug=version.slug)


def version_named(info: Info, name: str | None) -> PresetVersion | None:
    """The version of a name that a call keeps."""
    found = resolvers.version(info.context, name)
    return PresetVersion.of(found) if found else None


def preset_named(info: Info, name: str | None) -> Preset | None:
    """The preset of whose versions a call keeps this name; null when it has left."""
    slug = (name or "").partition("@")[0]
    return next((Preset.of(preset) for preset in resolvers.every(info.context) if preset.slug == slug), None)
