"""The files of the presets, and which version a request gets."""

import hashlib
import string
from datetime import date
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from proxy.dialects.base import BadRequest
from proxy.presets.registry import FOLDER, MARK, Malformed, Presets, choice, chosen, load

# What has landed stays: a change of a text is a new version, with a line of its own here.
LANDED = {
    "claudecode@1": (
        "4fb42791cc6a27b77669610f6c46d1b885f787a7365da28d902f8761586e2341",
        "dc344f1fcb8d14070e7c2388c3403b426f93564a15bb1b6817ee7726601f4867",
    ),
    "cline@1": (
        "94bf3213564e06a0c1e9b5b5aa4c1c820f450c7bfb104b0d41f066bcc5e58fa5",
        "13e0e31a9f2c59705a762c3d666a8cb0449067956120dea1511fae23b3af92ed",
    ),
    "cursor@1": (
        "2b42c3e9ac3e836a0676e6723c9308520fcd48a78d0381d0e90c5b712b92d289",
        "4bbfe499487d0160831ebf17b1662fe6c23c2a5f733d25aa94b9be825e660f42",
    ),
    "roocode@1": (
        "02a77f5dc1bd0ce73e120e5d404a8fe1ea83b3ebc8b27ec481b5e5df9e6255ae",
        "919f0cc9539f731d62a8a0c7a17e194451f87ced6f5c0f1a88af251d1fab2991",
    ),
}


@pytest.fixture
def presets() -> Presets:
    """The presets that are shipped."""
    return load()


def test_a_landed_version_never_changes(presets: Presets) -> None:
    """Every version's file and the text made of it have the SHA-256 that they had when they landed, and no landed version is gone."""
    versions = [version for preset in presets.values() for version in preset.versions]
    assert {version.name: (version.hash, hashlib.sha256(version.text.encode()).hexdigest()) for version in versions} == LANDED
    files = {f"{path.parent.name}@{path.stem}": path for path in FOLDER.glob("*/*.toml") if path.stem != "preset"}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == {name: file for name, (file, _) in LANDED.items()}


def test_there_is_one_for_every_tool(presets: Presets) -> None:
    """The four tools of the gateway document have a preset each, at the path that is their base URL."""
    assert {slug: preset.base_path for slug, preset in presets.items()} == {
        "claudecode": "/claudecode",
        "cline": "/cline",
        "cursor": "/cursor",
        "roocode": "/roocode",
    }
    assert [preset.name for preset in presets.values()] == ["Claude Code", "Cline", "Cursor", "Roo Code"]
    assert [preset.current.created_on for preset in presets.values()] == [date(2026, 11, 21)] * 4


def test_a_version_is_the_same_at_every_load(presets: Presets) -> None:
    """Loading twice gives equal values: nothing of a clock, a host or an order of files is in them."""
    assert load() == presets


def test_texts_are_plain_short_and_marked(presets: Presets) -> None:
    """Every text begins with the mark and its own name, is printable ASCII, pretends to be nobody, names no year, and adds under 700 tokens."""
    for preset in presets.values():
        version = preset.current
        assert version.text.startswith(f'{MARK}name="{version.name}">\n')
        assert version.text.endswith("\n</tallygate-preset>")
        assert set(version.text) <= set(string.ascii_letters + string.digits + string.punctuation + " \n")
        assert "You are" not in version.text
        assert "20" not in version.text
        assert 400 < version.tokens < 700


def test_json_of_a_text_is_the_text(presets: Presets) -> None:
    """The bytes that go into requests read as the text, without a cache breakpoint; its tokens are one for every four bytes of them, and of `[]`."""
    for preset in presets.values():
        version = preset.current
        assert msgspec.json.decode(version.block) == {"type": "text", "text": version.text}
        assert msgspec.json.decode(version.content) == version.text
        assert version.tokens == -(-(2 + len(version.block)) // 4)


# Which version a request gets.


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, "claudecode@1"),
        ("", "claudecode@1"),
        (" ", "claudecode@1"),
        ("claudecode@1", "claudecode@1"),
        (" claudecode@1 ", "claudecode@1"),
        ("none", None),
        ("None", None),
    ],
)
def test_a_client_chooses(presets: Presets, header: str | None, name: str | None) -> None:
    """Without the header it is the current version; with it the version named, or none at all."""
    version = chosen(presets, "claudecode", header)
    assert (version.name if version else None) == name


@pytest.mark.parametrize("header", ["claudecode@2", "claudecode@01", "claudecode", "cline@1", "claudecode@1,cline@1", "off", "\xff"])
def test_a_version_that_the_road_does_not_have_is_refused(presets: Presets, header: str) -> None:
    """Another number, another tool's version or another word is a bad request that tells what there is, and does not repeat what was sent."""
    with pytest.raises(BadRequest) as raised:
        chosen(presets, "claudecode", header)
    assert raised.value.message == "x-tallygate-preset: Input should be `none` or one of `claudecode@1`"


def test_the_header_is_read_by_its_name() -> None:
    """Of header fields as ASGI gives them the choice is found; without it there is none."""
    assert choice([(b"accept", b"*/*"), (b"x-tallygate-preset", b"none")]) == "none"
    assert choice([(b"x-preset", b"none")]) is None


# Files of an operator, or of a careless commit.

VERSION = 'published_on = 2027-01-02\nopening = "Be kind."\nskills = [{name = "a", text = "One."}, {name = "b", text = "Two."}]\n'


def _write(folder: Path, **files: str) -> None:
    place = folder / "house"
    place.mkdir()
    for name, text in files.items():
        (place / f"{name.removeprefix('v')}.toml").write_text(text)


ABOUT = 'name = "House"\ndescription = "Ours."\n'


def test_versions_are_numbered_and_the_last_is_current(tmp_path: Path) -> None:
    """Ten versions stand newest first, by number and not by letter; the text holds opening and skills in order; models are renamed by a table."""
    _write(tmp_path, preset=ABOUT, **{f"v{number}": VERSION for number in range(1, 10)}, v10=VERSION + 'models = {auto = "best"}\n')
    house = load(tmp_path)["house"]
    assert [version.name for version in house.versions] == [f"house@{number}" for number in range(10, 0, -1)]
    assert house.current.text == (
        '<tallygate-preset name="house@10">\nBe kind.\n\n<skill name="a">\nOne.\n</skill>\n\n<skill name="b">\nTwo.\n</skill>\n</tallygate-preset>'
    )
    assert (house.current.created_on, house.current.aliases) == (date(2027, 1, 2), MappingProxyType({"auto": "best"}))
    assert house.versions[1].aliases == {}


@pytest.mark.parametrize(
    "files",
    [
        {"preset": ABOUT},
        {"preset": ABOUT, "v2": VERSION},
        {"preset": ABOUT, "v1": VERSION, "v3": VERSION},
        {"preset": ABOUT, "v01": VERSION},
        {"preset": ABOUT, "v1": VERSION, "draft": VERSION},
        {"preset": ABOUT + "[", "v1": VERSION},
        {"preset": "", "v1": VERSION},
        {"preset": ABOUT, "v1": VERSION + "extra = 1\n"},
        {"preset": ABOUT, "v1": VERSION.replace("2027-01-02", '"soon"')},
    ],
)
def test_a_folder_that_is_not_one_is_refused_with_its_name(tmp_path: Path, files: dict[str, str]) -> None:
    """No version, a gap between numbers, a stray file, bad TOML, a missing or unknown field: refused, naming the file."""
    _write(tmp_path, **files)
    with pytest.raises(Malformed, match="house"):
        load(tmp_path)
