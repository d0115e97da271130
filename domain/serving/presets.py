"""What is shown of the tools' presets; the texts themselves live on the inference road, which lends them to whoever shows them."""

from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True)
class PresetVersionView:
    """An immutable version: `name` is its handle with its number (`claudecode@1`), `tokens` what `text` adds to a count."""

    name: str
    slug: str
    text: str = field(repr=False)
    tokens: int
    created_on: date


@dataclass(frozen=True, slots=True)
class PresetView:
    """A preset; `base_path` is what its tool gets as its base URL, `versions` stand newest first and are never none."""

    slug: str
    name: str
    base_path: str
    description: str
    versions: tuple[PresetVersionView, ...]

    @property
    def current(self) -> PresetVersionView:
        """The version that new calls get."""
        return self.versions[0]
