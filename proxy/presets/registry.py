"""The presets that there are: one folder for each tool, one file for each version."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

from domain.serving.presets import PresetVersionView, PresetView
from proxy.dialects.base import BadRequest, Headers
from proxy.dialects.counting import input_tokens

File = TypeVar("File")

FOLDER = Path(__file__).parent
MARK = "<tallygate-preset "
"""How every preset's text begins; a request that has it has its preset already."""

HEADER = b"x-tallygate-preset"
"""The field by which a client chooses: `none`, or a version such as `claudecode@1`."""
ANSWER_HEADER = b"x-preset"
"""The field by which an answer names the version that was used."""


class Malformed(Exception):
    """A preset's file is not what it has to be; the message names the file."""


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable version of a preset.

    `name` is unique (`claudecode@1`). `text` is what a request gets. `block` and `content` are the same text as JSON: a block of the Messages
    API, and a string. `tokens` is what it adds to a count, `hash` the SHA-256 of its file in hex, `created_on` the day it was published.
    `aliases` says which model the router is asked for in place of the one that a tool asks for.
    """

    name: str
    slug: str
    number: int
    text: str = field(repr=False)
    block: bytes = field(repr=False)
    content: bytes = field(repr=False)
    tokens: int
    hash: str
    created_on: date
    aliases: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Preset:
    """A road tuned for one coding tool; `base_path` is what the tool gets as its base URL, `versions` stand newest first."""

    slug: str
    name: str
    base_path: str
    description: str
    versions: tuple[Version, ...] = field(repr=False)

    @property
    def current(self) -> Version:
        """The version that a call gets which does not choose."""
        return self.versions[0]


Presets = Mapping[str, Preset]
"""Every preset by its slug."""


class _PresetFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str


class _Skill(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    text: str


class _VersionFile(msgspec.Struct, forbid_unknown_fields=True):
    published_on: date
    opening: str
    skills: list[_Skill]
    models: dict[str, str] = {}


def load(folder: Path = FOLDER) -> Presets:
    """Read every preset; a folder with a `preset.toml` is one. Raises Malformed, also where a number is missing between two versions."""
    return MappingProxyType({path.parent.name: _preset(path) for path in sorted(folder.glob("*/preset.toml"))})


def choice(headers: Headers) -> str | None:
    """Return what a request's HEADER says; None when it has none."""
    return next((value.decode("latin-1") for name, value in headers if name == HEADER), None)


def chosen(presets: Presets, slug: str, header: str | None) -> Version | None:
    """Return the version that a request of a tool's road gets: the current one, the one that its HEADER names, or None for `none`.

    Raises BadRequest for a version that this road does not have, and KeyError for a slug that there is not.
    """
    preset = presets[slug]
    wanted = header.strip() if header is not None else ""
    if not wanted:
        return preset.current
    if wanted.lower() == "none":
        return None
    version = next((version for version in preset.versions if version.name == wanted), None)
    if version is None:
        known = ", ".join(f"`{version.name}`" for version in preset.versions)
        raise BadRequest(f"{HEADER.decode()}: Input should be `none` or one of {known}")
    return version


def shown(presets: Presets) -> tuple[PresetView, ...]:
    """Return all presets as others may see them, by slug."""
    return tuple(
        PresetView(
            preset.slug,
            preset.name,
            preset.base_path,
            preset.description,
            tuple(PresetVersionView(version.name, version.slug, version.text, version.tokens, version.created_on) for version in preset.versions),
        )
        for preset in presets.values()
    )


def _preset(path: Path) -> Preset:
    slug = path.parent.name
    about = _read(path, _PresetFile)
    files = {file.stem: file for file in path.parent.glob("*.toml") if file != path}
    names = [str(number) for number in range(1, len(files) + 1)]
    if not names or set(files) != set(names):
        raise Malformed(f"{path.parent}: versions are 1.toml, 2.toml and so on, without a gap")
    versions = tuple(_version(slug, int(name), files[name]) for name in reversed(names))
    return Preset(slug, about.name, f"/{slug}", about.description, versions)


def _version(slug: str, number: int, path: Path) -> Version:
    read = _read(path, _VersionFile)
    name = f"{slug}@{number}"
    parts = [read.opening.strip(), *(f'<skill name="{skill.name}">\n{skill.text.strip()}\n</skill>' for skill in read.skills)]
    text = f'{MARK}name="{name}">\n' + "\n\n".join(parts) + "\n</tallygate-preset>"
    content = msgspec.json.encode(text)
    block = b'{"type":"text","text":' + content + b"}"
    return Version(
        name=name,
        slug=slug,
        number=number,
        text=text,
        block=block,
        content=content,
        tokens=input_tokens(b"[]", [block]),
        hash=hashlib.sha256(path.read_bytes()).hexdigest(),
        created_on=read.published_on,
        aliases=MappingProxyType(read.models),
    )


def _read(path: Path, kind: type[File]) -> File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), kind)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Malformed(f"{path}: {error}") from None
