"""The tools' presets, as the inference road lends them."""

from domain.serving.presets import PresetVersionView, PresetView
from resolvers.asking import Asking


def every(asking: Asking) -> list[PresetView]:
    """All of them, by slug."""
    return list(asking.facilities.presets)


def of_slug(asking: Asking, slug: str) -> PresetView:
    """The preset of a slug that one of its versions names."""
    return next(preset for preset in asking.facilities.presets if preset.slug == slug)


def version(asking: Asking, name: str | None) -> PresetVersionView | None:
    """The version of a name that a call keeps; None for no name, and for one that was taken away."""
    return next((version for preset in asking.facilities.presets for version in preset.versions if version.name == name), None)
